//! The sysroot as `fsck` finds it: also one that libostree refuses to load, whose boot entries are read here then.

use crate::boot::loader;
use crate::deployment::origin;
use crate::deployment::salvage;
use crate::deployment::sysroot::Host;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use ostree_ext::{gio, ostree};
use std::path::{Path, PathBuf};

/// A sysroot with what is deployed in it.
pub(super) struct Site<'a> {
    pub(super) host: &'a Host,
    pub(super) root: Dir,
    pub(super) repo: ostree::Repo,
    /// Why libostree refuses the sysroot, where it does.
    pub(super) refused: Option<String>,
    /// In boot order.
    pub(super) deployments: Vec<Found>,
}

/// A deployment, as libostree or its boot entry tells of it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// `STATEROOT-COMMIT.SERIAL`.
    pub(super) id: String,
    pub(super) stateroot: String,
    pub(super) commit: String,
    pub(super) is_booted: bool,
    pub(super) is_staged: bool,
    /// Its folder below the sysroot.
    pub(super) folder: PathBuf,
    /// libostree's own object; none where it refuses the sysroot.
    pub(super) handle: Option<ostree::Deployment>,
}

impl<'a> Site<'a> {
    /// Reads what is deployed; fails when there is no repository.
    pub(super) fn read(host: &'a Host) -> Result<Self> {
        let path = host.path();
        let root = Dir::open_ambient_dir(path, ambient_authority())
            .with_context(|| format!("Opening {}", path.display()))?;
        let refused = host.load().err().map(|error| format!("{error:#}"));
        let (repo, deployments) = match refused {
            None => (host.repo(), loaded(host)),
            Some(_) => (open_repo(path)?, salvaged(&root)),
        };
        Ok(Self {
            host,
            root,
            repo,
            refused,
            deployments,
        })
    }

    /// Returns `/boot` of the sysroot.
    pub(super) fn boot(&self) -> Result<Dir> {
        self.root.open_dir("boot").context("Opening /boot")
    }

    /// Returns the deployment with this id.
    pub(super) fn find(&self, id: &str) -> Option<&Found> {
        self.deployments.iter().find(|found| found.id == id)
    }
}

fn loaded(host: &Host) -> Vec<Found> {
    let booted = host.booted();
    let found = |deployment: ostree::Deployment| Found {
        id: origin::id(&deployment),
        stateroot: deployment.osname().to_string(),
        commit: deployment.csum().to_string(),
        is_booted: booted.as_ref().is_some_and(|booted| booted.equal(&deployment)),
        is_staged: deployment.is_staged(),
        folder: PathBuf::from(host.sysroot().deployment_dirpath(&deployment).as_str()),
        handle: Some(deployment),
    };
    host.deployments().into_iter().map(found).collect()
}

/// Reads the boot entries; what is wrong with them is found where entries are checked.
fn salvaged(root: &Dir) -> Vec<Found> {
    let entries = root
        .open_dir("boot")
        .map_err(anyhow::Error::from)
        .and_then(|boot| loader::entries(&boot))
        .unwrap_or_default();
    let running = salvage::running();
    let found = |(_, entry): (String, loader::Entry)| {
        let link = entry.ostree()?.strip_prefix("ostree=")?.to_owned();
        let (stateroot, commit, serial, directory) = salvage::resolve(root, &link)?;
        Some(Found {
            id: format!("{stateroot}-{commit}.{serial}"),
            folder: directory.with_extension(serial.to_string()),
            is_booted: running.as_ref() == Some(&link),
            is_staged: false,
            stateroot,
            commit,
            handle: None,
        })
    };
    entries.into_iter().filter_map(found).collect()
}

fn open_repo(path: &Path) -> Result<ostree::Repo> {
    let repo = ostree::Repo::new(&gio::File::for_path(path.join("ostree/repo")));
    repo.open(gio::Cancellable::NONE)
        .with_context(|| format!("Opening the repository of {}", path.display()))?;
    Ok(repo)
}
