//! File systems mounted over a directory: small ones, and ones that are full.

use super::run;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A file system over a directory; taken off when dropped.
pub struct Mounted {
    place: PathBuf,
    _disk: Option<tempfile::NamedTempFile>,
}

impl Mounted {
    /// Mounts an empty temporary file system.
    pub fn tmpfs(place: &Path, options: &str) -> Self {
        let shown = place.display().to_string();
        run("mount", ["-t", "tmpfs", "-o", options, "tmpfs", &shown]);
        Self {
            place: place.to_owned(),
            _disk: None,
        }
    }

    /// Mounts an ext4 of this many bytes that holds what the directory holds.
    pub fn disk_with(place: &Path, size: u64) -> Self {
        let disk = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
        disk.as_file().set_len(size).expect("size");
        let [image, shown] = [disk.path(), place].map(|path| path.display().to_string());
        run("mkfs.ext4", ["-q", "-m", "0", &image]);
        let first = tempfile::tempdir().expect("directory");
        let there = first.path().display().to_string();
        run("mount", ["-o", "loop", &image, &there]);
        run("cp", ["-a", &format!("{shown}/."), &there]);
        run("mount", ["--bind", &there, &shown]);
        run("umount", [&there]);
        Self {
            place: place.to_owned(),
            _disk: Some(disk),
        }
    }

    /// Mounts the file system in the file `image`, which stays the caller's.
    pub fn image(place: &Path, image: &Path) -> Self {
        run("mount", [Path::new("-oloop"), image, place]);
        Self {
            place: place.to_owned(),
            _disk: None,
        }
    }

    /// Mounts it again with other options.
    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        run("mount", ["-o", &options, &self.place.display().to_string()]);
    }

    /// Fills the file system until so many bytes are left.
    pub fn leave(&self, bytes: u64) {
        self.empty();
        let state = rustix::fs::statvfs(&self.place).expect("a file system");
        let filler = File::create(self.filler()).expect("a file");
        let size = (state.f_bavail * state.f_frsize).saturating_sub(bytes);
        rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, size).expect("space");
    }

    /// Takes away what filled it.
    pub fn empty(&self) {
        if self.filler().exists() {
            std::fs::remove_file(self.filler()).expect("a file");
        }
    }

    fn filler(&self) -> PathBuf {
        self.place.join("filler")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", ["-l", &self.place.display().to_string()]);
    }
}
