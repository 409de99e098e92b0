//! What automatic updates note, for `status` and for their next run.
//!
//! ```text
//! /var/lib/apt-ostree/automatic.json   of the stateroot; mode 0644, replaced in one step
//! ```
//!
//! The notes are no plan: what is available is asked for again before anything is fetched.

use crate::deployment::model::DeploymentState;
use crate::deployment::sysroot::Host;
use crate::host::{clock, durable};
use crate::image::difference::ManifestDifference;
use crate::layer::packages::PackageDifference;
use crate::layer::places::Places;
use anyhow::{Context, Result};
use fn_error_context::context;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

const NAME: &str = "automatic.json";

/// Everything that is noted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Notes {
    /// The last run under a policy other than `none`.
    pub last_run: Option<LastRun>,
    /// The digest of the image that a run staged last.
    pub staged: Option<String>,
    /// What the registry had when it was asked last, if that was news.
    pub cached_update: Option<CachedUpdate>,
}

/// A run and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LastRun {
    /// When it ended, in seconds since 1970.
    pub time: u64,
    /// The policy it ran under.
    pub policy: String,
    /// What came of it.
    #[serde(flatten)]
    pub ending: Ending,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Ending {
    /// The host has what the registry has.
    NothingNew,
    /// There is an update, and the policy is to fetch nothing.
    Available,
    /// The update boots next.
    Staged {
        /// Why `apply` did not reboot.
        #[serde(skip_serializing_if = "Option::is_none")]
        waits: Option<String>,
    },
    /// The update is staged and a reboot was asked for.
    Applied,
    /// Nothing was done.
    Skipped {
        /// Why; a clause without a full stop.
        why: String,
    },
    /// It failed.
    Failed {
        /// The error.
        message: String,
    },
}

/// An update that is known and was not deployed when it was noted; the keys are rpm-ostree's where it has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CachedUpdate {
    /// The stateroot.
    pub osname: String,
    /// The reference that was followed.
    pub container_image_reference: String,
    /// The digest of the new manifest.
    pub container_image_reference_digest: String,
    /// The version the new image states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When the new image was created, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// Always true, as the followed reference is what was looked at.
    pub ref_has_new_commit: bool,
    /// Layers that come and go.
    pub manifest_diff: LayerCounts,
    /// Packages that come, go and change, where the layers are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_diff: Option<PackageDifference>,
    /// When it was noticed, in seconds since 1970.
    pub noticed: u64,
}

/// Numbers of layers and compressed bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LayerCounts {
    /// Layers of the new image.
    pub total: usize,
    /// Their bytes.
    pub total_size: u64,
    /// Layers that only the old image has.
    pub n_removed: usize,
    /// Their bytes.
    pub removed_size: u64,
    /// Layers that only the new image has.
    pub n_added: usize,
    /// Their bytes.
    pub added_size: u64,
}

impl From<&ManifestDifference> for LayerCounts {
    fn from(layers: &ManifestDifference) -> Self {
        Self {
            total: layers.total,
            total_size: layers.total_size,
            n_removed: layers.removed.len(),
            removed_size: layers.removed_size(),
            n_added: layers.added.len(),
            added_size: layers.added_size(),
        }
    }
}

impl CachedUpdate {
    /// Returns whether it is news for a host with these deployments: the reference is followed still, and no
    /// deployment has that image.
    pub fn is_news(&self, deployments: &[DeploymentState]) -> bool {
        let mut ours = deployments.iter().filter(|state| state.stateroot == self.osname);
        let deployed = |state: &DeploymentState| {
            state.container_image_reference_digest.as_ref() == Some(&self.container_image_reference_digest)
        };
        let follows = ours.clone().next().is_some_and(|first| {
            first.container_image_reference.as_ref() == Some(&self.container_image_reference)
        });
        follows && !ours.any(deployed)
    }
}

/// Returns what is noted for a stateroot; nothing where nothing was ever noted.
#[context("Reading what automatic updates noted")]
pub fn read(host: &Host, stateroot: &str) -> Result<Notes> {
    let folder = match File::open(folder(host, stateroot)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Notes::default()),
        folder => folder?,
    };
    match durable::read(&folder, NAME)? {
        None => Ok(Notes::default()),
        Some(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{NAME} has another form")),
    }
}

/// Changes what is noted for a stateroot. Notes that cannot be read are begun anew.
#[context("Noting what came of an automatic update")]
pub fn note(host: &Host, stateroot: &str, change: impl FnOnce(&mut Notes)) -> Result<()> {
    let mut notes = read(host, stateroot).unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        Notes::default()
    });
    change(&mut notes);
    let path = folder(host, stateroot);
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&path)
        .with_context(|| format!("Making the folder {}", path.display()))?;
    let mut text = serde_json::to_vec_pretty(&notes)?;
    text.push(b'\n');
    durable::replace(File::open(&path)?, NAME, &text, 0o644)
}

/// Notes the end of a run, and the image it staged.
pub fn note_run(
    host: &Host,
    stateroot: &str,
    policy: &str,
    ending: Ending,
    staged: Option<String>,
) -> Result<()> {
    note(host, stateroot, |notes| {
        notes.last_run = Some(LastRun {
            time: clock::seconds(),
            policy: policy.to_owned(),
            ending,
        });
        notes.staged = staged.or(notes.staged.take());
    })
}

/// The sysroot of a booted host may be mounted read only, and its `/var` is not.
fn folder(host: &Host, stateroot: &str) -> PathBuf {
    match host.booted() {
        Some(booted) if booted.osname() == stateroot => PathBuf::from("/var/lib/apt-ostree"),
        _ => Places::of(host.path(), stateroot).state(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Notes {
        serde_json::from_str(include_str!("../../tests/fixtures/automatic-v1.json")).unwrap()
    }

    #[test]
    fn the_form_of_the_first_version_is_read_and_written() {
        let notes = sample();
        let update = notes.cached_update.clone().unwrap();
        assert_eq!(
            (update.version.as_deref(), update.manifest_diff.n_added),
            (Some("13.2"), 2)
        );
        let run = notes.last_run.clone().unwrap();
        assert_eq!(
            run.ending,
            Ending::Staged {
                waits: Some("the maintenance window opens Sat 02:00".to_owned())
            }
        );
        let written = serde_json::to_value(&notes).unwrap();
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/automatic-v1.json")).unwrap();
        assert_eq!(written, fixture);
    }

    #[test]
    fn an_update_is_news_until_it_is_deployed_or_another_reference_followed() {
        let update = sample().cached_update.unwrap();
        let state = |reference: &str, digest: &str| DeploymentState {
            stateroot: "debian".to_owned(),
            container_image_reference: Some(reference.to_owned()),
            container_image_reference_digest: Some(digest.to_owned()),
            ..DeploymentState::default()
        };
        let (reference, digest) = (
            update.container_image_reference.as_str(),
            update.container_image_reference_digest.as_str(),
        );
        assert!(update.is_news(&[state(reference, "sha256:old")]));
        assert!(!update.is_news(&[state(reference, "sha256:old"), state(reference, digest)]));
        assert!(!update.is_news(&[state("ostree-unverified-registry:other", "sha256:old")]));
        assert!(!update.is_news(&[]));
    }
}
