//! The real bootable Debian 13 image of `hack/images`, imported once and copied for each test.
//!
//! The template lies in cargo's folder for test files, so that its objects can be hard-linked; it is imported again
//! when the image or the importer changes.

use super::home::Home;
use super::repo::{self, TestSysroot};
use apt_ostree::host::environment::variable;
use apt_ostree::host::mounts;
use apt_ostree::image::pull::{PullOptions, pull};
use apt_ostree::image::reference::ImageReference;
use apt_ostree::layer::stage::Stage;
use apt_ostree::report::Silent;
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A sysroot of its own whose repository holds the image.
pub struct Debian {
    pub sysroot: TestSysroot,
    /// The image's commit.
    pub commit: String,
    /// The reference under which the image is stored.
    pub reference: String,
}

impl Debian {
    /// Copies the template; costs a hard link for each object.
    pub fn new() -> Self {
        let (template, reference) = template();
        let directory = tempfile::Builder::new()
            .prefix("debian-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("directory");
        // Objects are never written to; everything else is, in place, and locks belong to one sysroot.
        let [from, to] = [template.as_path(), directory.path()].map(|path| path.to_str().expect("UTF-8"));
        super::run("cp", ["-a", &format!("{from}/."), to]);
        let objects = "ostree/repo/objects";
        std::fs::create_dir_all(directory.path().join(objects)).expect("objects");
        super::run(
            "cp",
            ["-al", &format!("{from}.objects/."), &format!("{to}/{objects}")],
        );
        let sysroot = TestSysroot::from_directory(directory);
        let commit = std::fs::read_to_string(template.with_extension("commit")).expect("the commit");
        Self {
            sysroot,
            commit,
            reference,
        }
    }

    /// Returns the repository's directory.
    pub fn repo_path(&self) -> PathBuf {
        self.sysroot.repo()
    }

    /// Opens the repository with the library.
    pub fn repo(&self) -> ostree_ext::ostree::Repo {
        repo::open(&self.repo_path())
    }

    /// Opens a place to layer on the image; to be called within [`in_private_mounts`].
    pub fn stage(&self) -> Stage {
        Stage::open(&self.repo(), &self.commit).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Runs `ostree --repo=... ARGS` and returns its output.
    pub fn ostree(&self, args: &[&str]) -> String {
        repo::ostree(&self.repo_path(), args)
    }

    /// Fails the test unless the repository is sound.
    pub fn assert_sound(&self) {
        repo::assert_sound(&self.repo_path());
    }

    /// Returns the names in the repository's folder for temporary files that layering left.
    pub fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.repo_path().join("tmp")).expect("tmp");
        entries
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("apt-ostree-layer."))
            .collect()
    }
}

/// Runs `work` in a thread with a private mount namespace: the other tests' threads neither see nor keep its mounts.
pub fn in_private_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            mounts::enter_private().expect("a mount namespace; these tests need root");
            work()
        });
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Returns the directory of the OCI image `name` of Debian 13, for example `base`.
pub fn image(name: &str) -> PathBuf {
    let cache = variable("APT_OSTREE_CACHE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache"),
        PathBuf::from,
    );
    let image = cache.join("images/trixie").join(name);
    assert!(
        image.join("index.json").is_file(),
        "{} is missing: run hack/images",
        image.display()
    );
    image
}

/// Returns the imported template and the reference of its image.
fn template() -> (PathBuf, String) {
    let image = image("base");
    let reference = format!("ostree-unverified-image:oci:{}", image.display());
    let index = std::fs::read(image.join("index.json")).expect("the image's index");
    let key = [
        &index,
        reference.as_bytes(),
        apt_ostree::image::IMPORTER_VERSION.as_bytes(),
    ]
    .concat();
    let name = format!("template-{}", &hex::encode(Sha256::digest(key))[..16]);
    let template = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let lock = File::create(template.with_extension("lock")).expect("lock");
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).expect("lock");
    if !template.with_extension("commit").exists() {
        import(&template, &reference);
    }
    (template, reference)
}

fn import(template: &Path, reference: &str) {
    let objects = template.with_extension("objects");
    for leftover in [template, &objects] {
        if leftover.exists() {
            std::fs::remove_dir_all(leftover).expect("what a killed run left");
        }
    }
    let path = template.to_str().expect("UTF-8");
    std::fs::create_dir(template).expect("directory");
    super::run("ostree", ["admin", "init-fs", path]);
    super::run(
        "ostree",
        ["admin", "os-init", &format!("--sysroot={path}"), "default"],
    );
    let repository = template.join("ostree/repo");
    repo::ostree(&repository, &["config", "set", "sysroot.bootloader", "none"]);
    let home = Home::new();
    let options = PullOptions {
        require_bootable: true,
        require_kernel: true,
        source: home.options(),
        ..PullOptions::default()
    };
    let reference: ImageReference = reference.parse().expect("a reference");
    let pulled = pull(&repo::open(&repository), &reference, &options, &Silent)
        .unwrap_or_else(|error| panic!("{error:#}"));
    std::fs::rename(repository.join("objects"), objects).expect("the objects");
    std::fs::write(template.with_extension("commit"), pulled.image.commit).expect("the commit");
}
