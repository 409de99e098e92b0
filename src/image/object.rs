//! Writing and reading objects of a `bare` or `bare-user` repository without libostree.
//!
//! libostree hashes in plain C, twice on some file systems, and writes a file before it looks whether it has it.
//! Here the name is computed first, an object that exists is never written, and what is written goes to a staging
//! folder of the same shape as `objects/`. Nothing of it counts until [`ObjectStore::publish`] moved it.

use super::space::Space;
use crate::fault::{Fault, Kind};
use crate::host::{attributes, folder};
use crate::tree::{Checksum, Metadata, MetadataKind, Objects};
use anyhow::{Context, Result, ensure};
use fn_error_context::context;
use ostree_ext::ostree;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{RwLock, RwLockReadGuard};

const EXTENSION_FILE: &str = "file";
/// The attribute in which a `bare-user` repository keeps what the file itself cannot carry.
const BARE_USER_ATTRIBUTE: &str = "user.ostreemeta";
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o775);
/// A file of this size is sent on its way to the disk at once; smaller ones go together when all is written.
const WRITTEN_EARLY: u64 = 64 * 1024;
/// So much of a large file is sent to the disk at a time.
const WRITTEN_AT_ONCE: u64 = 8 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Bare,
    BareUser,
}

/// The objects of a repository, and those staged for it.
///
/// May be used from several threads at once.
#[derive(Debug)]
pub struct ObjectStore {
    layout: Layout,
    objects: OwnedFd,
    staging: OwnedFd,
    folders: [AtomicBool; 256],
    no_tmpfile: AtomicBool,
    next_name: AtomicU64,
    staged_bytes: AtomicU64,
    staged_objects: AtomicU64,
    /// Whether what is written has to reach the disk.
    durable: bool,
    /// Writers share it; whoever moves objects has it alone.
    moving: RwLock<()>,
    space: Space,
}

impl ObjectStore {
    /// Opens the objects of `repo`, with `staging` for what is written.
    ///
    /// Fails for a repository whose objects this program does not write.
    pub fn open(repo: &ostree::Repo, staging: OwnedFd) -> Result<Self> {
        let layout = match repo.mode() {
            ostree::RepoMode::Bare => Layout::Bare,
            ostree::RepoMode::BareUser => Layout::BareUser,
            other => {
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!("An image cannot be imported into a repository of mode {other:?}"),
                )
                .hint("make one with `ostree init --repo=REPO --mode=bare-user`")
                .into());
            }
        };
        let objects = folder::open(repo.dfd_borrow(), "objects")?;
        Ok(Self {
            layout,
            objects,
            staging,
            folders: [const { AtomicBool::new(false) }; 256],
            no_tmpfile: AtomicBool::new(false),
            next_name: AtomicU64::new(0),
            staged_bytes: AtomicU64::new(0),
            staged_objects: AtomicU64::new(0),
            durable: !repo.is_disable_fsync(),
            moving: RwLock::new(()),
            space: Space::of(repo)?,
        })
    }

    /// Returns the space that may still be used.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Returns how many bytes were staged since the last [`ObjectStore::publish`].
    pub fn staged_bytes(&self) -> u64 {
        self.staged_bytes.load(Ordering::Relaxed)
    }

    /// Returns whether a file, or a link, of that name exists.
    pub fn has_file(&self, checksum: &Checksum) -> Result<bool> {
        self.has(checksum, EXTENSION_FILE)
    }

    /// Returns whether a directory object of that name exists.
    pub fn has_metadata(&self, kind: MetadataKind, checksum: &Checksum) -> Result<bool> {
        self.has(checksum, kind.extension())
    }

    /// Opens the object of a regular file for reading what the file holds.
    pub fn open_file(&self, checksum: &Checksum) -> Result<File> {
        let path = object_path(checksum, EXTENSION_FILE);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        for place in [&self.objects, &self.staging] {
            match rustix::fs::openat(place, &path, flags, Mode::empty()) {
                Ok(file) => return Ok(file.into()),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).with_context(|| format!("Opening the object {path}")),
            }
        }
        anyhow::bail!("The object {path} is missing")
    }

    /// Returns whether the object is a regular file without content.
    pub fn is_empty_file(&self, checksum: &Checksum) -> Result<bool> {
        let path = object_path(checksum, EXTENSION_FILE);
        for place in [&self.staging, &self.objects] {
            match rustix::fs::statat(place, &path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
                    return Ok(is_file && stat.st_size == 0);
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).with_context(|| format!("Looking at the object {path}")),
            }
        }
        Ok(false)
    }

    /// Stores a regular file whose content is at hand.
    pub fn write_file(&self, metadata: &Metadata, content: &[u8]) -> Result<Checksum> {
        let mut hasher = metadata.file_hasher();
        hasher.update(content);
        let checksum = Checksum::finish(hasher);
        if self.has_file(&checksum)? {
            return Ok(checksum);
        }
        let _writing = self.writing();
        let mut file = self.new_file(content.len() as u64)?;
        file.write_all(content)?;
        self.finish_file(file, metadata, &checksum)?;
        Ok(checksum)
    }

    /// Begins a regular file that is too large to be held.
    pub fn begin_file<'a>(&'a self, metadata: &'a Metadata, size: u64) -> Result<LargeFile<'a>> {
        Ok(LargeFile {
            store: self,
            metadata,
            hasher: metadata.file_hasher(),
            file: self.new_file(size)?,
        })
    }

    /// Makes a finished file the object `checksum` by giving it a second name, without a copy.
    ///
    /// The file lies on the repository's mount, has the owner and the permissions of `metadata`, and nobody writes to
    /// it any more. Its times become those of objects, and attributes that `metadata` does not have go. Fails for a
    /// repository that is not `bare`.
    pub fn adopt_file(&self, file: &File, metadata: &Metadata, checksum: &Checksum) -> Result<()> {
        ensure!(
            self.layout == Layout::Bare,
            "Only a bare repository keeps files as they are"
        );
        if self.has_file(checksum)? {
            return Ok(());
        }
        let _writing = self.writing();
        for (name, _) in attributes::of(file)? {
            if metadata.xattrs.iter().all(|(kept, _)| kept != name) {
                rustix::fs::fremovexattr(file, name.as_slice())
                    .with_context(|| format!("Removing the attribute {}", String::from_utf8_lossy(&name)))?;
            }
        }
        rustix::fs::futimens(file, &epoch())?;
        self.make_folder(checksum)?;
        let path = object_path(checksum, EXTENSION_FILE);
        match self.link(file, &path) {
            Ok(()) => self.count(file.metadata()?.len()),
            // Another thread brought the same object meanwhile.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("Naming the object {path}")),
        }
        Ok(())
    }

    /// Gives an open file a name among the staged objects.
    fn link(&self, file: &File, path: &str) -> rustix::io::Result<()> {
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(
            rustix::fs::CWD,
            open,
            &self.staging,
            path,
            AtFlags::SYMLINK_FOLLOW,
        )
    }

    /// Stores a symbolic link.
    pub fn write_symlink(&self, metadata: &Metadata, target: &str) -> Result<Checksum> {
        let checksum = metadata.symlink_checksum(target);
        if self.has_file(&checksum)? {
            return Ok(checksum);
        }
        let _writing = self.writing();
        self.space.take(target.len() as u64)?;
        match self.layout {
            Layout::BareUser => {
                let mut file = self.new_file(target.len() as u64)?;
                file.write_all(target.as_bytes())?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
                set_attribute(
                    &file,
                    BARE_USER_ATTRIBUTE.as_bytes(),
                    &metadata.bare_user_symlink(),
                )?;
                self.seal(file, &object_path(&checksum, EXTENSION_FILE), &checksum)?;
            }
            Layout::Bare => {
                let name = self.temporary_name();
                rustix::fs::symlinkat(target, &self.staging, &name)?;
                rustix::fs::chownat(
                    &self.staging,
                    &name,
                    Some(rustix::fs::Uid::from_raw(metadata.uid)),
                    Some(rustix::fs::Gid::from_raw(metadata.gid)),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
                for (attribute, value) in metadata.xattrs.iter() {
                    let path = format!("/proc/self/fd/{}/{name}", self.staging.as_raw_fd());
                    rustix::fs::lsetxattr(path, attribute, value, XattrFlags::empty())
                        .with_context(|| attribute_context(attribute))?;
                }
                rustix::fs::utimensat(&self.staging, &name, &epoch(), AtFlags::SYMLINK_NOFOLLOW)?;
                self.make_folder(&checksum)?;
                let path = object_path(&checksum, EXTENSION_FILE);
                rustix::fs::renameat(&self.staging, &name, &self.staging, path)?;
                self.count(target.len() as u64);
            }
        }
        Ok(checksum)
    }

    /// Stores a commit object. What it names must be published before it is.
    pub fn write_commit(&self, bytes: &[u8]) -> Result<Checksum> {
        self.write_plain("commit", bytes)
    }

    /// Moves everything staged to its place.
    ///
    /// The data reaches the disk before any name does, unless the repository asks for no such care.
    #[context("Moving new objects to their places")]
    pub fn publish(&self, sync: bool) -> Result<()> {
        let _alone = self.moving.write().expect("no writer panics while it holds this");
        if sync {
            rustix::fs::syncfs(&self.staging)?;
        }
        for number in 0..=u8::MAX {
            let folder = format!("{number:02x}");
            match rustix::fs::renameat(&self.staging, &folder, &self.objects, &folder) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => self.publish_folder(&folder)?,
                Err(error) => return Err(error).with_context(|| format!("Moving the objects of {folder}")),
            }
            self.folders[usize::from(number)].store(false, Ordering::Relaxed);
        }
        self.staged_bytes.store(0, Ordering::Relaxed);
        self.staged_objects.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn publish_folder(&self, folder: &str) -> Result<()> {
        let from = folder::open(self.staging.as_fd(), folder)?;
        let to = folder::open(self.objects.as_fd(), folder)?;
        for entry in rustix::fs::Dir::read_from(&from)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match rustix::fs::renameat_with(&from, name, &to, name, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                Err(Errno::EXIST) => rustix::fs::unlinkat(&from, name, AtFlags::empty())?,
                // A file system without the flag; replacing an object by its equal does no harm.
                Err(Errno::INVAL) => rustix::fs::renameat(&from, name, &to, name)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write_plain(&self, extension: &str, bytes: &[u8]) -> Result<Checksum> {
        let checksum = Checksum::of(bytes);
        if self.has(&checksum, extension)? {
            return Ok(checksum);
        }
        let _writing = self.writing();
        let mut file = self.new_file(bytes.len() as u64)?;
        file.write_all(bytes)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
        rustix::fs::futimens(&file, &epoch())?;
        self.seal(file, &object_path(&checksum, extension), &checksum)?;
        Ok(checksum)
    }

    fn writing(&self) -> RwLockReadGuard<'_, ()> {
        self.moving.read().expect("no mover panics while it holds this")
    }

    fn has(&self, checksum: &Checksum, extension: &str) -> Result<bool> {
        let path = object_path(checksum, extension);
        // Staging first: an object that is being moved is then found in one place or the other.
        for place in [&self.staging, &self.objects] {
            match rustix::fs::accessat(
                place,
                &path,
                rustix::fs::Access::EXISTS,
                AtFlags::SYMLINK_NOFOLLOW,
            ) {
                Ok(()) => return Ok(true),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).with_context(|| format!("Looking for the object {path}")),
            }
        }
        Ok(false)
    }

    fn new_file(&self, size: u64) -> Result<StagedFile> {
        self.space.take(size)?;
        if !self.no_tmpfile.load(Ordering::Relaxed) {
            let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
            match rustix::fs::openat(&self.staging, ".", flags, Mode::from_raw_mode(0o600)) {
                Ok(file) => {
                    return Ok(StagedFile {
                        file: file.into(),
                        name: None,
                        size: 0,
                        waiting: 0,
                        durable: self.durable,
                    });
                }
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                    self.no_tmpfile.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error).context("Making a file for an object"),
            }
        }
        let name = self.temporary_name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.staging, &name, flags, Mode::from_raw_mode(0o600))
            .context("Making a file for an object")?;
        Ok(StagedFile {
            file: file.into(),
            name: Some(name),
            size: 0,
            waiting: 0,
            durable: self.durable,
        })
    }

    fn finish_file(&self, file: StagedFile, metadata: &Metadata, checksum: &Checksum) -> Result<()> {
        match self.layout {
            Layout::Bare => {
                rustix::fs::fchown(
                    &file,
                    Some(rustix::fs::Uid::from_raw(metadata.uid)),
                    Some(rustix::fs::Gid::from_raw(metadata.gid)),
                )
                .context("Setting the owner of an object")?;
                // A change of owner clears set-id bits and capabilities, so both come behind it.
                rustix::fs::fchmod(&file, Mode::from_raw_mode(metadata.mode & 0o7777))?;
                for (name, value) in metadata.xattrs.iter() {
                    set_attribute(&file, name, value)?;
                }
            }
            Layout::BareUser => {
                rustix::fs::fchmod(&file, Mode::from_raw_mode(metadata.mode & 0o777 | 0o400))?;
                set_attribute(&file, BARE_USER_ATTRIBUTE.as_bytes(), &metadata.bare_user_file())?;
            }
        }
        rustix::fs::futimens(&file, &epoch())?;
        self.seal(file, &object_path(checksum, EXTENSION_FILE), checksum)
    }

    /// Gives a finished file its name among the staged objects; it was complete before, so the name can be trusted.
    fn seal(&self, file: StagedFile, path: &str, checksum: &Checksum) -> Result<()> {
        self.make_folder(checksum)?;
        if file.size >= WRITTEN_EARLY {
            file.begin_writing()?;
        }
        let outcome = match &file.name {
            Some(name) => rustix::fs::renameat(&self.staging, name, &self.staging, path),
            None => self.link(&file.file, path),
        };
        match outcome {
            Ok(()) => {
                self.count(file.size);
                Ok(())
            }
            // Another thread wrote the same object meanwhile.
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("Naming the object {path}")),
        }
    }

    fn count(&self, bytes: u64) {
        self.staged_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.staged_objects.fetch_add(1, Ordering::Relaxed);
    }

    fn make_folder(&self, checksum: &Checksum) -> Result<()> {
        let number = checksum.as_bytes()[0];
        let known = &self.folders[usize::from(number)];
        if known.load(Ordering::Relaxed) {
            return Ok(());
        }
        match rustix::fs::mkdirat(&self.staging, format!("{number:02x}"), FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).context("Making a folder for objects"),
        }
        known.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn temporary_name(&self) -> String {
        format!(
            "tmp-{}-{}",
            std::process::id(),
            self.next_name.fetch_add(1, Ordering::Relaxed)
        )
    }
}

impl Objects for ObjectStore {
    fn read(&self, kind: MetadataKind, checksum: &Checksum) -> Result<Vec<u8>> {
        let path = object_path(checksum, kind.extension());
        for place in [&self.staging, &self.objects] {
            match rustix::fs::openat(place, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(file) => {
                    let mut bytes = Vec::new();
                    File::from(file)
                        .read_to_end(&mut bytes)
                        .with_context(|| format!("Reading the object {path}"))?;
                    return Ok(bytes);
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).with_context(|| format!("Opening the object {path}")),
            }
        }
        Err(Fault::new(
            Kind::Invalid,
            format!("The object {path} is missing from the repository"),
        )
        .hint("`ostree fsck` tells what else is damaged")
        .into())
    }

    fn write(&self, kind: MetadataKind, bytes: &[u8]) -> Result<Checksum> {
        self.write_plain(kind.extension(), bytes)
    }
}

/// A regular file on its way into the store, hashed while it is written.
#[derive(Debug)]
pub struct LargeFile<'a> {
    store: &'a ObjectStore,
    metadata: &'a Metadata,
    hasher: Sha256,
    file: StagedFile,
}

impl LargeFile<'_> {
    /// Appends to the content.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    /// Names the object, or drops it when the store has it.
    pub fn finish(self) -> Result<Checksum> {
        let checksum = Checksum::finish(self.hasher);
        let _writing = self.store.writing();
        if !self.store.has_file(&checksum)? {
            self.store.finish_file(self.file, self.metadata, &checksum)?;
        } else if let Some(name) = &self.file.name {
            rustix::fs::unlinkat(&self.store.staging, name, AtFlags::empty())?;
        }
        Ok(checksum)
    }
}

/// A file without a name among the objects.
#[derive(Debug)]
struct StagedFile {
    file: File,
    /// Its temporary name, on a file system that has no files without one.
    name: Option<String>,
    size: u64,
    /// Bytes that nobody has told the kernel to write yet.
    waiting: u64,
    durable: bool,
}

impl StagedFile {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        self.waiting += bytes.len() as u64;
        self.file.write_all(bytes).context("Writing an object")?;
        if self.waiting >= WRITTEN_AT_ONCE {
            self.begin_writing()?;
            self.waiting = 0;
        }
        Ok(())
    }

    /// Makes the kernel begin to write what it holds of the file, and waits for nothing.
    ///
    /// Left alone it begins after half a minute, and all of an import would have to be waited for at its end.
    fn begin_writing(&self) -> Result<()> {
        if self.durable {
            // Linux begins to write dirty pages before it finds that it cannot drop them.
            rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed)
                .context("Beginning to write an object to the disk")?;
        }
        Ok(())
    }
}

impl AsFd for StagedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn object_path(checksum: &Checksum, extension: &str) -> String {
    let name = checksum.to_string();
    format!("{}/{}.{extension}", &name[..2], &name[2..])
}

fn set_attribute(file: &StagedFile, name: &[u8], value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()).with_context(|| attribute_context(name))
}

fn attribute_context(name: &[u8]) -> String {
    format!("Setting the extended attribute {}", String::from_utf8_lossy(name))
}

fn epoch() -> Timestamps {
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: zero,
        last_modification: zero,
    }
}
