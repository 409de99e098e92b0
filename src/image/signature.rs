//! What the image proxy of an older skopeo leaves undone: policy enforcement, and telling why opening failed.
//!
//! Before protocol 0.2.6 (Debian 12's skopeo 1.9.3 speaks 0.2.3) `OpenImage` does not look at `policy.json` at
//! all. `skopeo copy` does, before it copies anything. So the image is copied into an OCI directory in which
//! every layer seems to be present already: only manifest, configuration and signatures move, and skopeo's own
//! verification decides.

use crate::fault::{Fault, Kind};
use crate::host::runner::Cmd;
use crate::image::credentials::Credentials;
use crate::image::proxy::SourceOptions;
use crate::image::reference::{ImageReference, Transport};
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use oci_spec::image::ImageManifest;
use serde::Deserialize;
use std::os::fd::AsRawFd;
use std::path::Path;

/// How a check by `skopeo copy` ended.
#[derive(Debug)]
pub(crate) enum Verification {
    /// The policy accepts the image with this manifest digest.
    Accepted(String),
    /// The policy refuses it; the text is skopeo's reason.
    Refused(String),
    /// The check itself failed; the text is skopeo's reason.
    Failed(String),
}

/// Lets `skopeo copy` check the image against the policy, without moving a layer.
pub(crate) fn verify(
    reference: &ImageReference,
    manifest: &ImageManifest,
    policy: &Path,
    options: &SourceOptions,
) -> Result<Verification> {
    let place = tempfile::tempdir().context("Making a directory for checking a signature")?;
    let image = place.path().join("image");
    let blobs = image.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    for layer in manifest.layers() {
        let digest = layer.digest().to_string();
        crate::image::name::check_digest(&digest).map_err(|reason| {
            Fault::new(Kind::Invalid, format!("The manifest names `{digest}`, {reason}"))
        })?;
        let hex = digest.split_once(':').map_or("", |(_, hex)| hex);
        // The size is the only thing looked at, and a hole costs nothing.
        std::fs::File::create(blobs.join(hex))?.set_len(layer.size())?;
    }
    let digest_file = place.path().join("digest");
    let policy = policy.as_os_str().to_owned();
    let destination = format!("oci:{}:checked", image.display());
    let copy = |global: &[&std::ffi::OsStr]| -> Result<std::process::Output> {
        let credentials = find_credentials(options)?;
        bounded(options, global)
            .args(["copy", "--quiet", "--remove-signatures", "--digestfile"])
            .arg(&digest_file)
            .args(authfile(&credentials))
            .arg(reference.skopeo_name())
            .arg(&destination)
            .output()
    };
    let output = copy(&["--policy".as_ref(), &policy])?;
    if output.status.success() {
        let digest =
            std::fs::read_to_string(&digest_file).context("Reading the digest of the checked image")?;
        return Ok(Verification::Accepted(digest.trim().to_owned()));
    }
    let reason = last_line(&output.stderr);
    // Without the policy the same copy tells whether the policy was the reason; the text does not.
    if copy(&["--insecure-policy".as_ref()])?.status.success() {
        Ok(Verification::Refused(reason))
    } else {
        Ok(Verification::Failed(reason))
    }
}

/// Returns the raw manifest or index that the reference names, read without regard to the policy.
pub(crate) fn raw_manifest(reference: &ImageReference, options: &SourceOptions) -> Result<Option<Vec<u8>>> {
    let credentials = find_credentials(options)?;
    let output = bounded(options, &[])
        .args(["inspect", "--raw"])
        .args(authfile(&credentials))
        .arg(reference.skopeo_name())
        .output()?;
    Ok(output.status.success().then_some(output.stdout))
}

/// Returns the tags of the repository in the registry, if it tells them.
pub(crate) fn tags(reference: &ImageReference, options: &SourceOptions) -> Result<Option<Vec<String>>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        tags: Option<Vec<String>>,
    }
    let (Transport::Registry, Some(name)) = (reference.transport(), reference.registry_name()) else {
        return Ok(None);
    };
    let credentials = find_credentials(options)?;
    let output = bounded(options, &[])
        .arg("list-tags")
        .args(authfile(&credentials))
        .arg(format!("docker://{}", name.repository))
        .output()?;
    if !output.status.success() {
        return Ok(None);
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).context("Reading what skopeo list-tags printed")?;
    Ok(Some(answer.tags.unwrap_or_default()))
}

/// Returns a skopeo command that is ended when a registry lets it hang.
fn bounded(options: &SourceOptions, global: &[&std::ffi::OsStr]) -> Cmd {
    options
        .surroundings
        .cmd("timeout")
        .arg("--kill-after=5")
        .arg(options.limits.answer.as_secs().max(1).to_string())
        .arg("skopeo")
        .args(global)
}

pub(crate) fn find_credentials(options: &SourceOptions) -> Result<Credentials> {
    let root = Dir::open_ambient_dir(&options.auth_root, ambient_authority())
        .with_context(|| format!("Opening {}", options.auth_root.display()))?;
    Credentials::find(&root, &options.auth_root, &options.surroundings)
}

fn authfile(credentials: &Credentials) -> Vec<std::ffi::OsString> {
    let path = match credentials {
        Credentials::Podman => return Vec::new(),
        Credentials::File(path) => path.clone().into_os_string(),
        // The child opens our descriptor by its place in /proc; the secret itself is on no command line.
        Credentials::Merged(file) => format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into(),
    };
    vec!["--authfile".into(), path]
}

fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("skopeo gave no reason")
        .to_owned()
}
