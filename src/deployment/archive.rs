//! The repositories as a deployment sees them: its tree, and the `/etc` that the next deployment will have.

use super::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::layer::archive::Archive;
use crate::layer::etc::EtcView;
use crate::layer::places::Places;
use anyhow::Result;
use ostree_ext::ostree;
use std::path::{Path, PathBuf};

/// The deployment whose tree is looked at, and what it is open for.
#[derive(Debug)]
pub struct View {
    /// The deployment.
    pub deployment: ostree::Deployment,
    root: PathBuf,
    etc: EtcView,
    places: Places,
}

impl View {
    /// Returns the view of the deployment that the next one continues.
    ///
    /// Fails when the stateroot has no deployment.
    pub fn of(host: &Host, stateroot: Option<&str>) -> Result<Self> {
        let stateroot = host.stateroot(stateroot)?;
        let deployment = host.merge_deployment(&stateroot).ok_or_else(|| {
            Fault::new(
                Kind::NotFound,
                format!("The stateroot `{stateroot}` has no deployment, so it has no repositories either"),
            )
            .hint("deploy an image with `apt-ostree rebase REFERENCE`")
        })?;
        let root = host.root_of(&deployment);
        Ok(Self {
            etc: etc_of(host, &deployment),
            places: Places::of(host.path(), &stateroot),
            root,
            deployment,
        })
    }

    /// Opens the repositories to look things up; any user may do so.
    pub fn open_to_read(&self) -> Result<Archive> {
        Archive::open_to_read(&self.places, &self.root, &self.etc)
    }

    /// Opens the repositories to fetch indexes; the caller holds the sysroot's lock.
    pub fn open(&self) -> Result<Archive> {
        Archive::open(&self.places, &self.root, &self.etc)
    }
}

/// Returns the `/etc` that a deployment has now; a staged one takes that of the booted one over.
fn etc_of(host: &Host, deployment: &ostree::Deployment) -> EtcView {
    let after = host.root_of(deployment).join("usr/etc");
    let booted = host.booted().filter(|_| deployment.is_staged());
    let source = host.root_of(booted.as_ref().unwrap_or(deployment));
    EtcView {
        current: existing(&source.join("etc")),
        before: Some(source.join("usr/etc")),
        after,
    }
}

fn existing(path: &Path) -> Option<PathBuf> {
    path.is_dir().then(|| path.to_path_buf())
}
