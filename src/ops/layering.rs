//! What every verb that deploys may change on top of the image: `--install`, `--uninstall` and their kin.

use crate::deployment::sysroot::WriteLock;
use crate::fault::{Fault, Kind};
use crate::layer::answers;
use crate::layer::assemble::{Network, SCRIPT_TIMEOUT};
use crate::layer::change::Change;
use crate::layer::intent::{Intent, LocalPackage, PackageRequest};
use crate::layer::packages;
use crate::layer::places::Places;
use crate::layer::store;
use crate::ops::Next;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

/// What changes on top of the image.
#[derive(Clone, Debug)]
pub struct Layering {
    /// Requests by name, and what is forgotten.
    pub change: Change,
    /// Packages to put on top: paths of files, and `https://` addresses.
    pub install_files: Vec<String>,
    /// The same, for packages of the image that they replace.
    pub replace_files: Vec<String>,
    /// Requests that the image provides already are no mistake.
    pub allow_inactive: bool,
    /// A file with answers for debconf.
    pub debconf: Option<PathBuf>,
    /// How long one maintainer script may run.
    pub script_timeout: Duration,
}

impl Default for Layering {
    fn default() -> Self {
        Self {
            change: Change::default(),
            install_files: Vec::new(),
            replace_files: Vec::new(),
            allow_inactive: false,
            debconf: None,
            script_timeout: SCRIPT_TIMEOUT,
        }
    }
}

/// What came of a change of the requests.
pub(super) struct Requested {
    /// Requests that must not be dormant.
    pub(super) active: Vec<PackageRequest>,
}

impl Layering {
    /// Returns whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.change.is_empty()
            && self.install_files.is_empty()
            && self.replace_files.is_empty()
            && self.debconf.is_none()
    }

    /// Changes the requests of the next deployment's origin; files are taken into the host's store.
    ///
    /// Fails with every mistake by package. What was taken into the store goes with the next success.
    pub(super) fn request(
        &self,
        lock: &WriteLock<'_>,
        next: &Next<'_>,
        network: Network,
    ) -> Result<Requested> {
        if self.is_empty() {
            return Ok(Requested { active: Vec::new() });
        }
        let host = lock.host();
        let before = match next.origin.intent() {
            Err(_) if self.change.forgets_everything() => {
                // What cannot be read is forgotten with the rest.
                next.origin.set_intent(&Intent::default());
                Intent::default()
            }
            intent => intent?,
        };
        let places = Places::of(host.path(), next.stateroot);
        let take = |files: &[String]| -> Result<Vec<LocalPackage>> {
            files
                .iter()
                .map(|file| take_file(&places, file, network))
                .collect()
        };
        let mut change = self.change.clone();
        change.install_local.extend(take(&self.install_files)?);
        change.replace_local.extend(take(&self.replace_files)?);
        if let Some(path) = &self.debconf {
            change.debconf = Some(answers::store(&places, path)?);
        }
        let base = packages::of_commit(&host.repo(), &next.image.commit)?;
        let intent = change.apply(&before, &base)?;
        if intent != before {
            next.origin.set_intent(&intent);
        }
        let wanted = change.install.into_iter();
        let active = wanted.filter(|request| !self.allow_inactive && !before.packages.contains(request));
        Ok(Requested {
            active: active.collect(),
        })
    }
}

fn take_file(places: &Places, file: &str, network: Network) -> Result<LocalPackage> {
    if !file.starts_with("https://") {
        return store::add_local(places, file.as_ref());
    }
    if network == Network::Off {
        return Err(Fault::new(
            Kind::Usage,
            format!("{file} cannot be fetched with `--cache-only`"),
        )
        .hint("download it first and name the file")
        .into());
    }
    store::download_url(places, file)
}
