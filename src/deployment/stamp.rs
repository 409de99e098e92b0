//! Tells by a few looks whether what is deployed may have changed, without loading the sysroot.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where libostree keeps what lasts until the next boot.
const RUN: &str = "/run/ostree";

/// The times and identities of everything that `status` depends on.
///
/// Two equal stamps mean that nothing changed in between; libostree moves the time of `ostree/deploy` with each write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Mark)>);

/// Inode, time in nanoseconds, size.
type Mark = (u64, i64, i64, u64);

impl Stamp {
    /// Looks at the sysroot at `root`; what cannot be looked at counts as missing.
    pub fn of(root: &Path) -> Self {
        let mut stamp = Self::default();
        stamp.add(root.join("ostree/deploy"));
        stamp.add(root.join("boot/loader"));
        stamp.add(root.join("boot/loader/entries"));
        stamp.add_below(&Path::new(RUN).join("deployment-state"), 2);
        for name in ["staged-deployment", "staged-deployment-locked"] {
            stamp.add(Path::new(RUN).join(name));
        }
        for stateroot in entries(&root.join("ostree/deploy")) {
            stamp.add_below(&stateroot.join("deploy"), 1);
            // What this program notes about the stateroot is replaced in one step.
            stamp.add(stateroot.join("var/lib/apt-ostree"));
        }
        stamp
    }

    /// Returns the folders in which a change of the sysroot at `root` shows first.
    pub fn folders(root: &Path) -> [PathBuf; 4] {
        [
            root.join("ostree/deploy"),
            root.join("boot"),
            PathBuf::from(RUN),
            Path::new(RUN).join("deployment-state"),
        ]
    }

    fn add(&mut self, path: PathBuf) {
        if let Ok(found) = std::fs::symlink_metadata(&path) {
            let mark = (found.ino(), found.mtime(), found.mtime_nsec(), found.size());
            self.0.push((path, mark));
        }
    }

    fn add_below(&mut self, folder: &Path, levels: u32) {
        self.add(folder.to_owned());
        if levels == 0 {
            return;
        }
        for entry in entries(folder) {
            if entry.is_symlink() || !entry.is_dir() {
                self.add(entry);
            } else {
                self.add_below(&entry, levels - 1);
            }
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let deploy = root.path().join("ostree/deploy/debian/deploy");
        std::fs::create_dir_all(&deploy).unwrap();
        let first = Stamp::of(root.path());
        assert_eq!(first, Stamp::of(root.path()));
        std::fs::write(deploy.join("a.0.origin"), "[origin]\n").unwrap();
        let second = Stamp::of(root.path());
        assert_ne!(first, second);
        std::fs::write(deploy.join("a.0.origin"), "[origin]\npinned=true\n").unwrap();
        assert_ne!(second, Stamp::of(root.path()));
    }
}
