//! Disks with a host on them, made by the program under test.

use crate::agent;
use crate::qemu::{self, Accelerator};
use crate::support::run;
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A disk in the cache, with the state of its first boot once that was saved.
pub(crate) struct Disk {
    /// `disk.raw`, `vars.fd` and `state` are in here.
    pub(crate) folder: PathBuf,
    /// How its machine runs.
    pub(crate) accelerator: Accelerator,
    /// The SMBIOS strings of its machine.
    pub(crate) credentials: Vec<String>,
}

/// Returns the release under test.
pub(crate) fn release() -> String {
    variable("APT_OSTREE_VM_RELEASE").unwrap_or_else(|| "trixie".to_owned())
}

/// Returns the OCI directory of a test image.
pub(crate) fn image(name: &str) -> PathBuf {
    let path = cache().join("vm-images").join(release()).join(name);
    assert!(
        path.join("index.json").is_file(),
        "{} is missing; run hack/vm-test",
        path.display()
    );
    path
}

/// Returns the packages that `hack/packages` downloaded for the base image.
pub(crate) fn packages() -> Vec<PathBuf> {
    let folder = variable("APT_OSTREE_VM_PACKAGES").expect("APT_OSTREE_VM_PACKAGES, which hack/vm-test sets");
    let folder = PathBuf::from(folder);
    let entries = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; run hack/vm-test", folder.display()));
    let files = entries.map(|entry| entry.expect("entry").path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "deb"))
        .collect()
}

impl Disk {
    /// Returns a disk with the image installed, made unless the same image was installed already.
    pub(crate) fn with(name: &str, arguments: &[&str]) -> Self {
        let accelerator = Accelerator::find();
        let credentials = agent::credentials();
        let key = [
            std::fs::read_to_string(image(name).join("index.json")).expect("index.json"),
            arguments.join(" "),
            qemu::version(),
            qemu::arguments(Path::new(""), accelerator, &credentials).join(" "),
        ];
        let key = hex::encode(Sha256::digest(key.join("\n")));
        let kind = format!("{}-{name}", release());
        let folder = cache().join("vm").join(format!("{kind}-{}", &key[..16]));
        let _lock = lock(&cache().join("vm").join(format!("{kind}.lock")));
        if !folder.join("vars.fd").is_file() {
            forget(&kind);
            make(name, arguments, &folder);
        }
        Self {
            folder,
            accelerator,
            credentials,
        }
    }
}

fn make(name: &str, arguments: &[&str], folder: &Path) {
    let start = std::time::Instant::now();
    std::fs::create_dir_all(folder).expect("cache folder");
    let source = format!("ostree-unverified-image:oci:{}", image(name).display());
    let disk = folder.join("disk.raw").display().to_string();
    let mut words = vec!["provision", "to-disk", "--image", &source];
    words.extend([
        "--target-imgref",
        "ostree-unverified-registry:registry.example/os/debian:stable",
    ]);
    words.extend(["--karg", "console=ttyS0", "--size", "6G", "--wipe"]);
    // What the kernel does against the faults of processors costs a fifth of a boot where every instruction is translated.
    words.extend(["--karg", "mitigations=off"]);
    let boot_files = cache().join("efi").display().to_string();
    if Path::new(&boot_files).is_dir() {
        words.extend(["--boot-files", &boot_files]);
    }
    words.extend(arguments);
    words.push(&disk);
    run(env!("CARGO_BIN_EXE_apt-ostree"), words);
    std::fs::copy(qemu::VARIABLES, folder.join("vars.fd")).expect("firmware variables");
    crate::tell(&format!("{name} installed on a disk in {:.0?}", start.elapsed()));
}

/// Removes the disks of older builds of the same image.
fn forget(kind: &str) {
    let Ok(entries) = std::fs::read_dir(cache().join("vm")) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(kind).is_some_and(|rest| rest.len() == 17) {
            std::fs::remove_dir_all(entry.path()).expect("old disk");
        }
    }
}

/// Waits until no other test makes what `path` stands for; until the file is closed, the others wait.
pub(crate) fn lock(path: &Path) -> File {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("cache folder");
    let file = File::create(path).expect("lock");
    rustix::fs::flock(&file, FlockOperation::LockExclusive).expect("lock");
    file
}

/// Returns the folder that the scripts in `hack/` share.
pub(crate) fn cache() -> PathBuf {
    variable("APT_OSTREE_CACHE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache"),
        PathBuf::from,
    )
}

fn variable(name: &str) -> Option<String> {
    let value = apt_ostree::host::environment::variable(name)?;
    Some(value.into_string().expect("UTF-8"))
}
