//! Temporary OSTree repositories and sysroots, and what ostree's own tools say about them.

use super::run;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A repository in a temporary directory.
pub struct TestRepo {
    directory: TempDir,
}

impl TestRepo {
    /// Makes an empty repository of mode `bare`, or `bare-user` when the tests do not run as root.
    pub fn new() -> Self {
        let mode = match rustix::process::getuid().is_root() {
            true => "bare",
            false => "bare-user",
        };
        Self::with_mode(mode)
    }

    /// Makes an empty repository of this mode.
    pub fn with_mode(mode: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let repo = Self { directory };
        repo.ostree(&["init", "--mode", mode]);
        repo
    }

    /// Returns the repository's directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Opens the repository with the library.
    pub fn open(&self) -> ostree_ext::ostree::Repo {
        open(self.path())
    }

    /// Runs `ostree --repo=... ARGS` and returns its output.
    pub fn ostree(&self, args: &[&str]) -> String {
        ostree(self.path(), args)
    }

    /// Fails the test unless `ostree fsck` finds nothing.
    pub fn assert_sound(&self) {
        assert_sound(self.path());
    }

    /// Returns all refs with their commits.
    pub fn refs(&self) -> BTreeMap<String, String> {
        refs(self.path())
    }
}

impl Default for TestRepo {
    fn default() -> Self {
        Self::new()
    }
}

/// A sysroot with one stateroot called `default`, in a temporary directory.
pub struct TestSysroot {
    directory: TempDir,
}

impl TestSysroot {
    /// Makes a sysroot without deployments.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let sysroot = Self { directory };
        sysroot.init();
        sysroot
    }

    /// Takes over a directory in which a sysroot is.
    pub fn from_directory(directory: TempDir) -> Self {
        Self { directory }
    }

    /// Makes the sysroot in its directory, which may be a file system mounted there meanwhile.
    pub fn init(&self) {
        let path = self.path().to_str().expect("UTF-8");
        run("ostree", ["admin", "init-fs", path]);
        run(
            "ostree",
            ["admin", "os-init", &format!("--sysroot={path}"), "default"],
        );
    }

    /// Returns the root directory of the sysroot.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the repository's directory.
    pub fn repo(&self) -> PathBuf {
        self.path().join("ostree/repo")
    }

    /// Runs `ostree admin VERB --sysroot=... ARGS` and returns its output.
    pub fn admin(&self, verb: &str, args: &[&str]) -> String {
        let sysroot = format!("--sysroot={}", self.path().display());
        run(
            "ostree",
            ["admin", verb, &sysroot].into_iter().chain(args.iter().copied()),
        )
    }
}

impl Default for TestSysroot {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestSysroot {
    fn drop(&mut self) {
        // Deployments are immutable; without this the directory could not be removed. Absent ones do not matter.
        let deployments = self.path().join("ostree/deploy");
        let list = apt_ostree::host::runner::Cmd::new("find").arg(deployments);
        let found = list
            .args(["-maxdepth", "3", "-path", "*/deploy/*.*", "-type", "d"])
            .args(["-exec", "chattr", "-i", "{}", "+"])
            .output();
        drop(found);
    }
}

/// Opens a repository with the library.
pub fn open(path: &Path) -> ostree_ext::ostree::Repo {
    let repo = ostree_ext::ostree::Repo::new_for_path(path);
    repo.open(ostree_ext::gio::Cancellable::NONE).expect("repository");
    repo
}

/// Runs `ostree --repo=PATH ARGS` and returns its output.
pub fn ostree(path: &Path, args: &[&str]) -> String {
    let repo = format!("--repo={}", path.display());
    run("ostree", [repo.as_str()].into_iter().chain(args.iter().copied()))
}

/// Fails the test unless `ostree fsck` finds nothing.
pub fn assert_sound(path: &Path) {
    ostree(path, &["fsck"]);
}

/// Returns all refs of a repository with their commits.
pub fn refs(path: &Path) -> BTreeMap<String, String> {
    let names = ostree(path, &["refs"]);
    let commit = |name: &str| ostree(path, &["rev-parse", name]).trim().to_owned();
    names
        .lines()
        .map(|name| (name.to_owned(), commit(name)))
        .collect()
}
