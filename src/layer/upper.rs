//! The upper directory of an overlay, read as one more layer of the image.
//!
//! A whiteout of overlayfs (a character device 0:0) becomes a whiteout of [`tree`](crate::tree), an opaque directory
//! an opaque one, and what overlayfs noted in attributes goes. Several threads read the files; what was copied up and
//! not changed is the object that the base names already, and every other file becomes an object without a copy.

use crate::fault::{Fault, Kind};
use crate::host::{attributes, folder};
use crate::image::object::ObjectStore;
use crate::tree::{Checksum, Directory, Metadata, OPAQUE, WHITEOUT_PREFIX};
use anyhow::{Context, Result, anyhow};
use fn_error_context::context;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use sha2::Digest;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are read at once.
const PIECE: usize = 1 << 17;
const MOST_THREADS: usize = 4;

/// At the top: what is shown there during a run only, and what a host has of its own. `/var` is described in
/// tmpfiles.d, and no file of it remains there.
const LEFT_OUT: &[&str] = &["etc", "var"];
/// At the top: directories that stay, without anything in them.
const EMPTIED: &[&str] = &["boot", "dev", "proc", "run", "sys", "sysroot", "tmp"];

/// Makes everything below the upper directory `root` objects and returns it as a tree with whiteouts.
///
/// The files become objects as they are, without a copy, so nothing may write to them any more, and `root` must come
/// from the handle of the store's repository: names are given on one mount only. Fails with a fault on what no commit can hold: device nodes, sockets and FIFOs, and names that are not UTF-8 or
/// would be taken for whiteouts.
#[context("Reading what the packages changed")]
pub(super) fn read(root: &OwnedFd, store: &ObjectStore) -> Result<Directory> {
    let mut walk = Walk {
        store,
        pending: Vec::new(),
        seen: HashMap::new(),
        dirmetas: HashMap::new(),
    };
    let tree = walk.folder(root.as_fd(), Path::new(""))?;
    let stored = store_all(root.as_fd(), &walk.pending, store)?;
    Ok(tree.finish(&stored))
}

/// A directory before its files are stored.
struct Folder {
    metadata: Checksum,
    files: Vec<(Box<str>, Content)>,
    folders: Vec<(Box<str>, Folder)>,
}

enum Content {
    Known(Checksum),
    /// Index into the files to be stored.
    Pending(usize),
}

impl Folder {
    fn finish(self, stored: &[Checksum]) -> Directory {
        let mut directory = Directory::new(self.metadata);
        let entries = directory.change_loaded().expect("made in memory just now");
        for (name, content) in self.files {
            let checksum = match content {
                Content::Known(checksum) => checksum,
                Content::Pending(index) => stored[index],
            };
            entries.files.insert(name, checksum);
        }
        for (name, folder) in self.folders {
            entries.directories.insert(name, folder.finish(stored));
        }
        directory
    }
}

struct Walk<'a> {
    store: &'a ObjectStore,
    /// Regular files by their path.
    pending: Vec<PathBuf>,
    /// Files with several names, by inode: index into `pending`.
    seen: HashMap<u64, usize>,
    dirmetas: HashMap<Metadata, Checksum>,
}

impl Walk<'_> {
    fn folder(&mut self, handle: BorrowedFd<'_>, path: &Path) -> Result<Folder> {
        let stat = rustix::fs::fstat(handle)?;
        let found = attributes::read(handle, OsStr::new("."))?;
        let opaque = found
            .iter()
            .any(|(name, value)| name == b"trusted.overlay.opaque" && value == b"y");
        let mut read = Folder {
            metadata: self.dirmeta(metadata(&stat, found))?,
            files: Vec::new(),
            folders: Vec::new(),
        };
        if opaque {
            read.files.push((OPAQUE.into(), Content::Known(nothing())));
        }
        let at_top = path.as_os_str().is_empty();
        if path.parent() == Some(Path::new("")) && EMPTIED.iter().any(|name| path == Path::new(name)) {
            return Ok(read);
        }
        for name in names(handle)? {
            if at_top && LEFT_OUT.iter().any(|left_out| name == *left_out) {
                continue;
            }
            let inside = path.join(&name);
            self.entry(handle, &name, &inside, &mut read)
                .with_context(|| format!("Reading /{}", inside.display()))?;
        }
        Ok(read)
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path, into: &mut Folder) -> Result<()> {
        let text = valid_name(name, path)?;
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let below = self.folder(folder::open(parent, name)?.as_fd(), path)?;
                into.folders.push((text.into(), below));
            }
            FileType::RegularFile => into
                .files
                .push((text.into(), Content::Pending(self.file(&stat, path)))),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                let target = target
                    .to_str()
                    .map_err(|_| refuse(path, "is a link whose target is not UTF-8"))?;
                let metadata = metadata(&stat, attributes::read(parent, name)?);
                let checksum = self.store.write_symlink(&metadata, target)?;
                into.files.push((text.into(), Content::Known(checksum)));
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => into.files.push((
                format!("{WHITEOUT_PREFIX}{text}").into(),
                Content::Known(nothing()),
            )),
            _ => return Err(refuse(path, "is a device, socket or FIFO")),
        }
        Ok(())
    }

    fn file(&mut self, stat: &Stat, path: &Path) -> usize {
        let next = self.pending.len();
        if stat.st_nlink > 1 {
            match self.seen.get(&stat.st_ino) {
                Some(known) => return *known,
                None => self.seen.insert(stat.st_ino, next),
            };
        }
        self.pending.push(path.to_owned());
        next
    }

    fn dirmeta(&mut self, metadata: Metadata) -> Result<Checksum> {
        if let Some(known) = self.dirmetas.get(&metadata) {
            return Ok(*known);
        }
        let checksum = Directory::write_metadata(self.store, &metadata)?;
        self.dirmetas.insert(metadata, checksum);
        Ok(checksum)
    }
}

/// Stores files with a few threads and returns their objects in the same order.
fn store_all(root: BorrowedFd<'_>, files: &[PathBuf], store: &ObjectStore) -> Result<Vec<Checksum>> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS));
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Ok(Vec::with_capacity(files.len())));
    let work = || {
        let mut done = Vec::new();
        let failed = loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = files.get(index) else { break None };
            match store_file(root, path, store) {
                Ok(checksum) => done.push((index, checksum)),
                Err(error) => {
                    // The others stop as well.
                    next.store(files.len(), Ordering::Relaxed);
                    break Some(error);
                }
            }
        };
        let mut outcome = outcome.lock().expect("no thread panics while it holds this");
        match (failed, &mut *outcome) {
            (Some(error), Ok(_)) => *outcome = Err(error),
            (None, Ok(all)) => all.append(&mut done),
            (_, Err(_)) => {}
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut all: Vec<(usize, Checksum)> =
        outcome.into_inner().map_err(|_| anyhow!("A thread panicked"))??;
    all.sort_unstable_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, checksum)| checksum).collect())
}

#[context("Storing /{}", path.display())]
fn store_file(root: BorrowedFd<'_>, path: &Path, store: &ObjectStore) -> Result<Checksum> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
    let stat = rustix::fs::fstat(&file)?;
    let metadata = metadata(&stat, attributes::of(&file)?);
    let mut file = File::from(file);
    let mut hasher = metadata.file_hasher();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            length => hasher.update(&piece[..length]),
        }
    }
    let checksum = Checksum::finish(hasher);
    store.adopt_file(&file, &metadata, &checksum)?;
    Ok(checksum)
}

fn metadata(stat: &Stat, found: Vec<(Vec<u8>, Vec<u8>)>) -> Metadata {
    let mut metadata = Metadata {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        ..Metadata::default()
    };
    for (name, value) in found {
        metadata.xattrs.keep(&name, &value);
    }
    metadata
}

/// A whiteout names no content.
fn nothing() -> Checksum {
    Checksum::of(b"")
}

fn valid_name<'a>(name: &'a OsStr, path: &Path) -> Result<&'a str> {
    let text = name
        .to_str()
        .ok_or_else(|| refuse(path, "has a name that is not UTF-8"))?;
    if text.starts_with(WHITEOUT_PREFIX) {
        return Err(refuse(path, "has a name that is reserved for removed files"));
    }
    Ok(text)
}

fn refuse(path: &Path, reason: &str) -> anyhow::Error {
    Fault::new(
        Kind::Unsupported,
        format!("/{} cannot be layered: it {reason}", path.display()),
    )
    .hint("uninstall the package that brings it; `dpkg -S` in a container names it")
    .into()
}

fn names(folder: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
