//! Packages laid over the real Debian image: dpkg runs in a stage, the result is a derived commit.

use super::debian::{Debian, in_private_mounts};
use super::package::Package;
use super::repo;
use apt_ostree::host::attributes;
use apt_ostree::host::runner::Cmd;
use apt_ostree::layer::commit::commit;
use apt_ostree::layer::ids::Ids;
use apt_ostree::layer::places::Places;
use apt_ostree::layer::plan::Plan;
use apt_ostree::layer::record::Record;
use apt_ostree::layer::stage::Stage;
use apt_ostree::layer::translate::{TranslateOptions, Translated, translate};
use apt_ostree::report::Silent;
use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A derived commit and what was said about it.
pub struct Layered {
    pub commit: String,
    pub translated: Translated,
}

/// What is done to the base.
pub struct Layering<'a> {
    debian: &'a Debian,
    base: String,
    packages: Vec<Package>,
    removals: Vec<String>,
    options: TranslateOptions,
    etc: Option<PathBuf>,
    stateroot: String,
    change: Box<dyn Fn(&Path) + Send + Sync + 'a>,
}

impl<'a> Layering<'a> {
    /// Begins with the image of `debian` and these packages.
    pub fn new(debian: &'a Debian, packages: &[Package]) -> Self {
        Self {
            debian,
            base: debian.commit.clone(),
            packages: packages.to_vec(),
            removals: Vec::new(),
            options: TranslateOptions::default(),
            etc: None,
            stateroot: "default".to_owned(),
            change: Box::new(|_| ()),
        }
    }

    /// Takes another commit as the base.
    pub fn over(mut self, commit: &str) -> Self {
        self.base = commit.to_owned();
        self
    }

    /// Takes a package of the image out.
    pub fn remove(mut self, name: &str) -> Self {
        self.removals.push(name.to_owned());
        self
    }

    /// Sets what the packages and the host ask for beside.
    pub fn options(mut self, options: TranslateOptions) -> Self {
        self.options = options;
        self
    }

    /// Names the host's own `/etc`.
    pub fn host_etc(mut self, etc: &Path) -> Self {
        self.etc = Some(etc.to_owned());
        self
    }

    /// Takes the ids of another stateroot.
    pub fn stateroot(mut self, name: &str) -> Self {
        self.stateroot = name.to_owned();
        self
    }

    /// Changes the stage behind dpkg's back, after the packages are installed.
    pub fn change(mut self, change: impl Fn(&Path) + Send + Sync + 'a) -> Self {
        self.change = Box::new(change);
        self
    }

    /// Makes the derived commit; the test fails when that fails.
    pub fn run(&self) -> Layered {
        self.try_run().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Makes the derived commit, with the ids of the sysroot's stateroot.
    pub fn try_run(&self) -> anyhow::Result<Layered> {
        in_private_mounts(|| {
            let repo = self.debian.repo();
            let stage = Stage::open(&repo, &self.base)?;
            self.install(&stage);
            (self.change)(stage.root());
            let places = Places::of(self.debian.sysroot.path(), &self.stateroot);
            let mut ids = Ids::load(&places, self.etc.as_deref())?;
            let translated = translate(&stage, &Plan::default(), &mut ids, &self.options, &Silent)?;
            let commit = commit(&repo, &self.base, &stage, &Record::default())?;
            stage.close()?;
            Ok(Layered { commit, translated })
        })
    }

    fn install(&self, stage: &Stage) {
        inside(stage.root(), stage.scratch(), "systemd-tmpfiles")
            .args(["--create", "--prefix=/var"])
            .output()
            .expect("systemd-tmpfiles");
        for name in &self.removals {
            let remove = inside(stage.root(), stage.scratch(), "dpkg").args(["--remove", name]);
            remove.run().unwrap_or_else(|error| panic!("{error:#}"));
        }
        let mut files = Vec::new();
        for package in &self.packages {
            let file = package.build(stage.scratch());
            files.push(Path::new("/run/debs").join(file.file_name().expect("a name")));
        }
        if !files.is_empty() {
            let dpkg = inside(stage.root(), stage.scratch(), "dpkg");
            let dpkg = dpkg.args(["--force-confdef", "--force-confold", "--install"]);
            let output = dpkg.args(files).output().expect("dpkg");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success(),
                "{said}\n{}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }
}

/// Returns a command that runs a program of `root` in it.
pub fn inside(root: &Path, debs: &Path, program: &str) -> Cmd {
    Cmd::new("bwrap")
        .arg("--bind")
        .arg(root)
        .args(["/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run"])
        .arg("--ro-bind")
        .arg(debs)
        .args(["/run/debs", "--tmpfs", "/tmp", "--chmod", "1777", "/tmp"])
        .args(["--unshare-net", "--die-with-parent", "--clearenv"])
        .args([
            "--setenv",
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ])
        .args(["--setenv", "DEBIAN_FRONTEND", "noninteractive"])
        .args(["--setenv", "SYSTEMD_OFFLINE", "1", "--setenv", "INITRD", "No"])
        .args([
            "--setenv",
            "LC_ALL",
            "C.UTF-8",
            "--setenv",
            "SOURCE_DATE_EPOCH",
            "1700000000",
        ])
        .arg(program)
}

/// The tree of a commit, checked out.
pub struct Checkout {
    _directory: tempfile::TempDir,
    root: PathBuf,
}

impl Checkout {
    /// Checks out a commit; its files are the repository's own.
    pub fn of(debian: &Debian, commit: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("checkout-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("directory");
        let root = directory.path().join("root");
        let path = root.to_str().expect("UTF-8");
        repo::ostree(&debian.repo_path(), &["checkout", "-H", commit, path]);
        Self {
            _directory: directory,
            root,
        }
    }

    /// Returns the path of something in it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Returns whether something is there; links are not followed.
    pub fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Returns a file's text.
    pub fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Returns the text of a link.
    pub fn link(&self, path: &str) -> String {
        let target = std::fs::read_link(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        target.to_string_lossy().into_owned()
    }

    /// Returns permission bits, user and group.
    pub fn owner(&self, path: &str) -> (u32, u32, u32) {
        let found = self.path(path).symlink_metadata();
        let found = found.unwrap_or_else(|error| panic!("{path}: {error}"));
        (found.permissions().mode() & 0o7777, found.uid(), found.gid())
    }

    /// Returns an extended attribute.
    pub fn attribute(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let path = self.path(path);
        let parent = std::fs::File::open(path.parent().expect("a parent")).expect("parent");
        let file: &OsStr = path.file_name().expect("a name");
        let found = attributes::read(&parent, file).expect("attributes");
        let mut found = found.into_iter();
        found
            .find(|(known, _)| known == name.as_bytes())
            .map(|(_, value)| value)
    }

    /// Returns the line of a file that begins with `start`.
    pub fn line(&self, path: &str, start: &str) -> Option<String> {
        let text = self.text(path);
        text.lines()
            .find(|line| line.starts_with(start))
            .map(str::to_owned)
    }
}
