//! The least tree that apt can solve against: a dpkg database and `usr/etc`, no programs.

use super::archive::Archive as Repository;
use super::package::Package;
use super::write;
use apt_ostree::layer::archive::Archive;
use apt_ostree::layer::etc::EtcView;
use apt_ostree::layer::intent::Intent;
use apt_ostree::layer::places::Places;
use apt_ostree::layer::plan::Plan;
use apt_ostree::layer::refresh::Refresh;
use apt_ostree::report::Silent;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// A base tree and the places of a host beside it.
pub struct Base {
    directory: TempDir,
    /// The `/etc` to use; pristine at first.
    pub etc: EtcView,
}

impl Base {
    /// Makes a tree in which `dpkg` and these packages are installed.
    pub fn new(installed: &[Package]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        // apt's own user must reach the cache, as it does on a host.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).expect("mode");
        let etc = EtcView::pristine(directory.path().join("root/usr/etc"));
        let base = Self { directory, etc };
        write(base.root().join("usr/etc/debian_version"), "13\n");
        base.install(installed);
        base
    }

    /// Makes a tree that uses the repository.
    pub fn using(repository: &Repository, installed: &[Package]) -> Self {
        let base = Self::new(installed);
        repository.enable(&base.root(), &base.root().join("usr/etc"));
        base
    }

    /// Makes `dpkg` and these packages the installed ones.
    pub fn install(&self, installed: &[Package]) {
        let dpkg = Package::new("dpkg", "1.22")
            .architecture("amd64")
            .field("Essential", "yes");
        let status: String = std::iter::once(&dpkg)
            .chain(installed)
            .map(Package::installed)
            .collect();
        write(self.root().join("usr/lib/sysimage/dpkg/status"), status);
    }

    /// Returns the tree.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Returns a path below the tree's `usr/etc/apt`.
    pub fn apt(&self, path: &str) -> PathBuf {
        self.root().join("usr/etc/apt").join(path)
    }

    /// Returns the places of the host.
    pub fn places(&self) -> Places {
        Places::of(self.directory.path(), "debian")
    }

    /// Opens the repositories of the tree.
    pub fn open(&self) -> Archive {
        self.try_open().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Fetches the indexes and solves the intent.
    pub fn solve(&self, intent: &Intent) -> anyhow::Result<Plan> {
        let archive = self.try_open()?;
        archive.refresh(Refresh::Always, &Silent)?;
        archive.solve(intent, &Silent)
    }

    /// Returns the plan of a request for these packages.
    pub fn plan(&self, names: &[&str]) -> Plan {
        let plan = self.solve(&requesting(names));
        plan.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Opens the repositories of the tree, or returns why not.
    pub fn try_open(&self) -> anyhow::Result<Archive> {
        Archive::open(&self.places(), &self.root(), &self.etc)
    }
}

/// Returns the intent that has only these packages on top.
pub fn requesting(names: &[&str]) -> Intent {
    Intent {
        packages: names
            .iter()
            .map(|name| name.parse().expect("a request"))
            .collect(),
        ..Intent::default()
    }
}
