//! `deploy`: boot one particular image of the followed reference, by digest or by version.

use crate::deployment::advance::{self, Source};
use crate::deployment::origin::Origin;
use crate::deployment::outlook::{self, Candidate};
use crate::deployment::sysroot::{Host, WriteLock};
use crate::fault::{Fault, Kind};
use crate::image::reference::ImageReference;
use crate::image::store::StoredImage;
use crate::layer::assemble::Network;
use crate::layer::packages::PackageDifference;
use crate::ops::layering::{Packages, SetUp};
use crate::ops::{Fetch, Next, Outcome, Target};
use crate::report::Report;
use anyhow::{Context, Result};
use ostree_ext::ostree;
use serde::{Deserialize, Serialize};

/// How to deploy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// `sha256:...`, `version=V`, or a version; nothing where a driver is only registered.
    pub revision: String,
    /// Register the caller's systemd unit, under this name, as what drives updates until the next boot.
    pub register_driver: Option<String>,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
    /// Cache only, download only, locked.
    #[serde(flatten)]
    pub fetch: Fetch,
    /// Packages on top at the same time.
    #[serde(flatten)]
    pub on_top: Packages,
    /// How packages are set up.
    #[serde(flatten)]
    pub set_up: SetUp,
    /// Refuse an image that was created before the current one.
    pub disallow_downgrade: bool,
    /// Do it though something else drives the updates of this host.
    pub bypass_driver: bool,
    /// Reboot when a new deployment was made.
    pub reboot: bool,
}

/// What the user asked for, told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Revision {
    Digest(String),
    Version(String),
}

/// Boots the image with the given digest or version next; the host goes on following its tag, so that a later
/// `upgrade` leaves it again.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let layering = options.set_up.layering_with(&options.on_top)?;
    let wanted = parse(&options.revision)?;
    let lock = host.lock("deploy", options.target.patience(), report)?;
    let found = find(&lock, &wanted, options, report)?;
    options.fetch.conclude(
        &lock,
        Next {
            stateroot: &found.stateroot,
            origin: &found.origin,
            merge: Some(&found.merge),
            reference: found.reference,
            network: Network::Usual,
            unchanged: format!("The image {} is deployed already.", found.image.manifest_digest),
            image: found.image,
        },
        &layering,
        report,
    )
}

/// Stores the image and returns it, with how the packages would differ from those of the deployment it would continue.
///
/// A `deploy` that follows does not fetch the image again. Fails when a request on top cannot be met on it.
pub fn preview(
    host: &Host,
    options: &Options,
    report: &dyn Report,
) -> Result<(StoredImage, PackageDifference)> {
    let wanted = parse(&options.revision)?;
    let lock = host.lock("deploy --preview", options.target.patience(), report)?;
    let found = find(&lock, &wanted, options, report)?;
    let candidate = Candidate {
        stateroot: &found.stateroot,
        image: &found.image,
        origin: &found.origin,
        merge: &found.merge,
    };
    let difference = outlook::packages(&lock, &candidate, report)?;
    Ok((found.image, difference))
}

/// The image that was asked for, and what it goes to.
struct Found {
    stateroot: String,
    merge: ostree::Deployment,
    origin: Origin,
    reference: ImageReference,
    image: StoredImage,
}

fn find(lock: &WriteLock<'_>, wanted: &Revision, options: &Options, report: &dyn Report) -> Result<Found> {
    let host = lock.host();
    let stateroot = host.stateroot(options.target.stateroot.as_deref())?;
    let merge = host.require_merge_deployment(&stateroot, "that says what to follow")?;
    let origin = Origin::of(&merge)?;
    let reference = origin.require_reference()?;
    let source = options.fetch.source();
    let image = match wanted {
        Revision::Digest(digest) => by_digest(lock, &reference, digest, source, report)?,
        Revision::Version(version) => by_version(lock, &reference, version, source, report)?,
    };
    if options.disallow_downgrade {
        advance::refuse_downgrade(host, &merge, &image, "leave out `--disallow-downgrade`")?;
    }
    origin.set_pinned_digest(Some(&image.manifest_digest));
    Ok(Found {
        stateroot,
        merge,
        origin,
        reference,
        image,
    })
}

fn parse(text: &str) -> Result<Revision, Fault> {
    if let Some(version) = text.strip_prefix("version=") {
        return Ok(Revision::Version(version.to_owned()));
    }
    let text = text.strip_prefix("revision=").unwrap_or(text);
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(Revision::Digest(format!("sha256:{hex}")));
    }
    if text.is_empty() || text.starts_with("sha256:") {
        return Err(
            Fault::new(Kind::Usage, format!("`{text}` is neither a digest nor a version"))
                .hint("give `sha256:` and 64 hexadecimal digits, or `version=V`"),
        );
    }
    Ok(Revision::Version(text.to_owned()))
}

fn by_digest(
    lock: &WriteLock<'_>,
    reference: &ImageReference,
    digest: &str,
    source: Source,
    report: &dyn Report,
) -> Result<StoredImage> {
    // An image that a deployment still holds needs no registry.
    if let Some(image) = deployed(lock, |image| image.manifest_digest == digest) {
        return Ok(image);
    }
    let pinned = reference.with_digest(digest)?;
    advance::obtain(lock, &pinned, source, report).with_context(|| format!("Fetching {pinned}"))
}

/// A version is looked for among the deployments first, then as a tag of the same repository.
fn by_version(
    lock: &WriteLock<'_>,
    reference: &ImageReference,
    version: &str,
    source: Source,
    report: &dyn Report,
) -> Result<StoredImage> {
    if let Some(image) = deployed(lock, |image| image.version().as_deref() == Some(version)) {
        return Ok(image);
    }
    let tagged = reference.with_tag(version)?;
    report.note(&format!(
        "No deployment has the version {version}; trying {tagged}."
    ));
    advance::obtain(lock, &tagged, source, report)
        .with_context(|| format!("Looking for the version {version}"))
}

fn deployed(lock: &WriteLock<'_>, matches: impl Fn(&StoredImage) -> bool) -> Option<StoredImage> {
    lock.host()
        .deployments()
        .iter()
        .filter_map(|deployment| advance::image_of(lock.host(), deployment).ok())
        .find(|image| matches(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions() {
        let hex = "a".repeat(64);
        assert_eq!(parse(&hex).unwrap(), Revision::Digest(format!("sha256:{hex}")));
        assert_eq!(
            parse(&format!("sha256:{hex}")).unwrap(),
            Revision::Digest(format!("sha256:{hex}"))
        );
        assert_eq!(
            parse(&format!("revision={hex}")).unwrap(),
            Revision::Digest(format!("sha256:{hex}"))
        );
        assert_eq!(
            parse("version=13.2").unwrap(),
            Revision::Version("13.2".to_owned())
        );
        assert_eq!(parse("13.2").unwrap(), Revision::Version("13.2".to_owned()));
        assert!(parse("sha256:abc").is_err());
        assert!(parse("").is_err());
    }
}
