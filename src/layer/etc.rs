//! `/etc` as the next deployment will have it, before libostree has merged it.
//!
//! The same rule as libostree's merge, file by file: what the administrator changed, added or removed holds,
//! everything else is the new image's. Files are opened below their own root and links are followed by name, so
//! that `/usr/...` always means the image's tree and never the running system's.

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, ResolveFlags};
use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Links that one look-up follows at most.
const LINKS: usize = 16;

/// The three states of `/etc` that a merge is made from.
#[derive(Clone, Debug)]
pub struct EtcView {
    /// The live `/etc` that is carried over; none for the first deployment and in a container.
    pub current: Option<PathBuf>,
    /// What `current` began as: the `usr/etc` of its deployment.
    pub before: Option<PathBuf>,
    /// The `usr/etc` of the new base.
    pub after: PathBuf,
}

impl EtcView {
    /// Returns the view of an `/etc` that nobody changed.
    pub fn pristine(after: impl Into<PathBuf>) -> Self {
        Self {
            current: None,
            before: None,
            after: after.into(),
        }
    }

    /// Returns the names in a folder of `/etc`, sorted, directories left out; nothing when there is no such folder.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        let sides = [self.current.as_ref(), Some(&self.after)];
        for side in sides.into_iter().flatten() {
            let Some(folder) = open_beneath(side, folder, OFlags::RDONLY | OFlags::DIRECTORY)? else {
                continue;
            };
            let mut buffer = Vec::with_capacity(8192);
            let mut entries = RawDir::new(&folder, buffer.spare_capacity_mut());
            while let Some(entry) = entries.next() {
                let entry = entry?;
                if let Ok(name) = entry.file_name().to_str() {
                    if name != "." && name != ".." && entry.file_type() != FileType::Directory {
                        names.insert(name.to_owned());
                    }
                }
            }
        }
        let mut kept = Vec::new();
        for name in names {
            if self.entry(&format!("{folder}/{name}"))?.is_some() {
                kept.push(name);
            }
        }
        Ok(kept)
    }

    /// Returns what the merge will have at a path below `/etc`.
    fn entry(&self, path: &str) -> Result<Option<Entry>> {
        let after = Entry::read(&self.after, path)?;
        let Some(current) = &self.current else {
            return Ok(after);
        };
        let current = Entry::read(current, path)?;
        let before = match &self.before {
            Some(before) => Entry::read(before, path)?,
            None => None,
        };
        Ok(if current == before { after } else { current })
    }
}

/// A tree that is not the running system: a root with the `/etc` it will have.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// The root; its own `etc` is not looked at.
    pub root: &'a Path,
    /// Its `/etc`.
    pub etc: &'a EtcView,
}

/// A file's content and permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The permission bits.
    pub mode: u32,
}

impl Tree<'_> {
    /// Reads the file at an absolute path of the tree, following links inside it; nothing when it does not exist.
    pub fn read(&self, path: &str) -> Result<Option<Content>> {
        let mut place = normal("/", path);
        for _ in 0..LINKS {
            let entry = match place.strip_prefix("/etc/") {
                Some(inside) => self.etc.entry(inside),
                None => Entry::read(self.root, place.trim_start_matches('/')),
            };
            match entry.with_context(|| format!("Reading {path}"))? {
                None => return Ok(None),
                Some(Entry::File { bytes, mode, .. }) => return Ok(Some(Content { bytes, mode })),
                Some(Entry::Link(target)) => {
                    let folder = place.rsplit_once('/').map_or("/", |(folder, _)| folder);
                    place = normal(folder, &target);
                }
            }
        }
        bail!("{path} is a chain of more than {LINKS} links");
    }
}

/// Joins two paths and takes `.` and `..` out; the result is absolute and never leaves `/`.
fn normal(folder: &str, path: &str) -> String {
    let folder = if path.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// What is at a path; two are equal when libostree's merge would see no change.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File {
        bytes: Vec<u8>,
        mode: u32,
        owner: (u32, u32),
    },
    Link(String),
}

impl Entry {
    /// Reads a path below `root`; nothing when it does not exist or is neither file nor link.
    fn read(root: &Path, path: &str) -> Result<Option<Self>> {
        let Some(handle) = open_beneath(root, path, OFlags::PATH | OFlags::NOFOLLOW)? else {
            return Ok(None);
        };
        let state = rustix::fs::fstat(&handle)?;
        match FileType::from_raw_mode(state.st_mode) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&handle, "", Vec::new())?;
                let target = target
                    .into_string()
                    .context("The target of a link is not UTF-8")?;
                Ok(Some(Self::Link(target)))
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let Some(handle) = open_beneath(root, path, flags)? else {
                    return Ok(None);
                };
                let mut bytes = Vec::new();
                std::fs::File::from(handle).read_to_end(&mut bytes)?;
                Ok(Some(Self::File {
                    bytes,
                    mode: state.st_mode & 0o7777,
                    owner: (state.st_uid, state.st_gid),
                }))
            }
            _ => Ok(None),
        }
    }
}

/// Opens a path below a root; links in its middle are followed inside the root only.
fn open_beneath(root: &Path, path: &str, flags: OFlags) -> Result<Option<OwnedFd>> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match rustix::fs::openat(CWD, root, folder, Mode::empty()) {
        Ok(root) => root,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("Opening {}", root.display())),
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(handle) => Ok(Some(handle)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("Opening {path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_administrators_changes_hold_and_the_rest_follows_the_image() {
        let place = tempfile::tempdir().unwrap();
        let side = |name: &str| place.path().join(name);
        for (name, current, before, after) in [
            ("untouched", Some("1"), Some("1"), Some("2")),
            ("changed", Some("mine"), Some("1"), Some("2")),
            ("added", Some("mine"), None, None),
            ("removed", None, Some("1"), Some("2")),
            ("dropped", Some("1"), Some("1"), None),
            ("new", None, None, Some("2")),
        ] {
            for (side, text) in [("current", current), ("before", before), ("after", after)] {
                if let Some(text) = text {
                    write(place.path().join(side).join("apt").join(name), text);
                }
            }
        }
        let etc = EtcView {
            current: Some(side("current")),
            before: Some(side("before")),
            after: side("after"),
        };
        let tree = Tree {
            root: place.path(),
            etc: &etc,
        };
        let text = |name: &str| {
            let content = tree.read(&format!("/etc/apt/{name}")).unwrap();
            content.map(|content| String::from_utf8(content.bytes).unwrap())
        };
        assert_eq!(etc.list("apt").unwrap(), ["added", "changed", "new", "untouched"]);
        assert_eq!(text("untouched").as_deref(), Some("2"));
        assert_eq!(text("changed").as_deref(), Some("mine"));
        assert_eq!(text("removed"), None);
        assert_eq!(text("dropped"), None);
    }

    #[test]
    fn links_stay_in_the_tree() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        write(root.join("usr/share/key"), "image's");
        write(place.path().join("secret"), "no");
        std::fs::create_dir_all(root.join("usr/etc/apt")).unwrap();
        let link = |target: &str, name: &str| symlink(target, root.join("usr/etc/apt").join(name)).unwrap();
        link("/usr/share/key", "absolute");
        link("../../usr/share/key", "relative");
        link("../../../../secret", "outside");
        link("loop", "loop");
        symlink("/etc/apt/absolute", root.join("usr/share/back")).unwrap();
        let etc = EtcView::pristine(root.join("usr/etc"));
        let tree = Tree {
            root: &root,
            etc: &etc,
        };
        let read = |path: &str| tree.read(path).map(|found| found.map(|content| content.bytes));
        for path in ["/etc/apt/absolute", "/etc/apt/relative", "/usr/share/back"] {
            assert_eq!(read(path).unwrap().as_deref(), Some(&b"image's"[..]), "{path}");
        }
        assert_eq!(read("/etc/apt/outside").unwrap(), None);
        assert!(read("/etc/apt/loop").is_err());
    }
}
