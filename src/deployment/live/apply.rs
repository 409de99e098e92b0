//! Bringing a running root from one commit to another: `/usr` path by path, new defaults of `/etc` with it.
//!
//! Every step can be repeated, so what an interrupted run left is completed by running again from both commits it was
//! between. A file is replaced by a rename; the whole is not one step.

use crate::image::commit::Commit;
use crate::image::objects::StoredObjects;
use crate::tree::{Change, Checksum, Directory, Found, MetadataKind, Objects};
use anyhow::{Context, Result, bail};
use cap_std_ext::cap_std::fs::{Dir, MetadataExt};
use cap_std_ext::dirext::CapStdExtDirExt;
use fn_error_context::context;
use ostree_ext::{gio, ostree};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Where the defaults of `/etc` are, below `/usr`.
const DEFAULTS: &str = "etc";

/// What happened to files of `/etc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Etc {
    /// Paths below `/etc` that got the new default, or went with the old one.
    pub changed: BTreeSet<String>,
    /// Paths below `/etc` whose default changed and that stay as they were changed on this host.
    pub kept: BTreeSet<String>,
}

/// Returns the steps below `/usr` from one commit to another.
pub fn changes(repo: &ostree::Repo, from: &str, to: &str) -> Result<Vec<Change>> {
    let objects = StoredObjects(repo);
    let mut old = Commit::load(repo, from)?.root;
    let mut new = Commit::load(repo, to)?.root;
    let usr = |what: &str| format!("The commit {what} has no /usr");
    let old = old.find_directory(&objects, "usr")?.with_context(|| usr(from))?;
    let new = new.find_directory(&objects, "usr")?.with_context(|| usr(to))?;
    old.changes_to(new, &objects)
}

/// Brings the running root, whose `/usr` is writable, to the commit `to`.
///
/// `from` are the commits it is at: one, or two after an interrupted run.
#[context("Applying the commit {to}")]
pub fn apply(repo: &ostree::Repo, root: &Dir, from: &[&str], to: &str) -> Result<Etc> {
    let mut target = Target {
        repo,
        root,
        tree: Commit::load(repo, to)?.root,
        commit: to,
        etc: Etc::default(),
    };
    for commit in from {
        for change in changes(repo, commit, to)? {
            target
                .step(&change)
                .with_context(|| format!("At /usr/{}", change.path()))?;
        }
    }
    Ok(target.etc)
}

struct Target<'a> {
    repo: &'a ostree::Repo,
    root: &'a Dir,
    commit: &'a str,
    tree: Directory,
    etc: Etc,
}

impl Target<'_> {
    fn step(&mut self, change: &Change) -> Result<()> {
        let path = Path::new("usr").join(change.path());
        let default = Path::new(change.path()).strip_prefix(DEFAULTS).ok();
        if let Some(below) = default {
            self.step_of_etc(change, below)?;
        }
        match change {
            Change::Removed(_) => self.remove(&path),
            Change::File(_) | Change::Directory(_) => self.place(&path, &path),
            Change::Metadata(_, metadata) => self.set_metadata(&path, metadata),
        }
    }

    /// Does for `/etc` what is about to be done for its default, which still is the old one.
    fn step_of_etc(&mut self, change: &Change, below: &Path) -> Result<()> {
        let here = Path::new("etc").join(below);
        match change {
            Change::Metadata(..) => Ok(()),
            Change::Directory(path) => self.new_folder_of_etc(path, &here),
            Change::File(path) => {
                let default = Path::new("usr").join(path);
                let unmodified = self.same(&here, &default)?;
                if self.note(below, unmodified) {
                    self.place(&default, &here)?;
                }
                Ok(())
            }
            Change::Removed(path) => {
                let default = Path::new("usr").join(path);
                if self
                    .root
                    .symlink_metadata_optional(&default)?
                    .is_some_and(|found| found.is_dir())
                {
                    return self.remove_folder_of_etc(&default, below);
                }
                self.remove_from_etc(&here, &default, below)
            }
        }
    }

    /// Fills a folder whose default is new; what this host has there already stays.
    fn new_folder_of_etc(&mut self, path: &str, here: &Path) -> Result<()> {
        if self.root.symlink_metadata_optional(here)?.is_none() {
            self.etc.changed.insert(below_etc(here));
            return self.place(&Path::new("usr").join(path), here);
        }
        let objects = StoredObjects(self.repo);
        let folder = self
            .tree
            .find_directory(&objects, &format!("usr/{path}"))?
            .with_context(|| format!("The commit {} has no folder /usr/{path}", self.commit))?;
        let entries = folder.entries(&objects)?.clone();
        for name in entries.files.keys() {
            let file = here.join(&**name);
            let free = self.root.symlink_metadata_optional(&file)?.is_none();
            let below = below_etc(&file);
            if self.note(Path::new(&below), free) {
                self.place(&Path::new("usr").join(path).join(&**name), &file)?;
            }
        }
        for name in entries.directories.keys() {
            self.new_folder_of_etc(&format!("{path}/{name}"), &here.join(&**name))?;
        }
        Ok(())
    }

    /// Removes the files of a folder whose default goes, and the folder when nothing is left in it.
    fn remove_folder_of_etc(&mut self, default: &Path, below: &Path) -> Result<()> {
        let here = Path::new("etc").join(below);
        if !self
            .root
            .symlink_metadata_optional(&here)?
            .is_some_and(|found| found.is_dir())
        {
            return Ok(());
        }
        for entry in self.root.read_dir(default)? {
            let name = entry?.file_name();
            let (default, below) = (default.join(&name), below.join(&name));
            let here = here.join(&name);
            if self.root.symlink_metadata(&default)?.is_dir() {
                self.remove_folder_of_etc(&default, &below)?;
            } else {
                self.remove_from_etc(&here, &default, &below)?;
            }
        }
        if self.root.read_dir(&here)?.next().is_none() {
            self.root.remove_dir(&here)?;
        }
        Ok(())
    }

    fn remove_from_etc(&mut self, here: &Path, default: &Path, below: &Path) -> Result<()> {
        if self.root.symlink_metadata_optional(here)?.is_none() {
            return Ok(());
        }
        let unmodified = self.same(here, default)?;
        if self.note(below, unmodified) {
            self.remove(here)?;
        }
        Ok(())
    }

    /// Remembers what becomes of a file, and returns whether it follows its default.
    fn note(&mut self, below: &Path, unmodified: bool) -> bool {
        let list = if unmodified {
            &mut self.etc.changed
        } else {
            &mut self.etc.kept
        };
        list.insert(below.to_string_lossy().into_owned());
        unmodified
    }

    /// Returns whether a file of `/etc` is as its default on disk, or both are missing.
    fn same(&self, here: &Path, default: &Path) -> Result<bool> {
        let (mine, theirs) = (
            self.root.symlink_metadata_optional(here)?,
            self.root.symlink_metadata_optional(default)?,
        );
        let (Some(mine), Some(theirs)) = (&mine, &theirs) else {
            return Ok(mine.is_none() && theirs.is_none());
        };
        if mine.is_symlink() && theirs.is_symlink() {
            return Ok(self.root.read_link_contents(here)? == self.root.read_link_contents(default)?);
        }
        Ok(mine.is_file()
            && theirs.is_file()
            && (mine.mode(), mine.uid(), mine.gid(), mine.len())
                == (theirs.mode(), theirs.uid(), theirs.gid(), theirs.len())
            && self.root.read(here)? == self.root.read(default)?)
    }

    /// Writes what the commit has at `path` to `here`: a file or link by a rename, a folder with all below it.
    fn place(&mut self, path: &Path, here: &Path) -> Result<()> {
        let objects = StoredObjects(self.repo);
        let is_folder = match self.tree.find(&objects, &path.to_string_lossy())? {
            Some(Found::Directory(_)) => true,
            Some(Found::File(_)) => false,
            None => bail!("The commit {} has no /{}", self.commit, path.display()),
        };
        let stands = self.root.symlink_metadata_optional(here)?;
        if stands.is_some_and(|found| found.is_dir() != is_folder) {
            self.remove(here)?;
        }
        let (folder, name) = self.parent(here)?;
        let destination = if is_folder { name } else { PathBuf::from(".") };
        // A file comes under the name it has in the commit, which is the one it has here.
        let options = ostree::RepoCheckoutAtOptions {
            overwrite_mode: ostree::RepoCheckoutOverwriteMode::UnionFiles,
            force_copy: true,
            subpath: Some(Path::new("/").join(path)),
            ..ostree::RepoCheckoutAtOptions::default()
        };
        self.repo.checkout_at(
            Some(&options),
            folder.as_raw_fd(),
            destination,
            self.commit,
            gio::Cancellable::NONE,
        )?;
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.root.remove_all_optional(path)?;
        Ok(())
    }

    fn set_metadata(&self, path: &Path, metadata: &Checksum) -> Result<()> {
        let bytes = StoredObjects(self.repo).read(MetadataKind::DirMeta, metadata)?;
        let number = |at: usize| -> Result<u32> {
            let bytes = bytes
                .get(at..at + 4)
                .context("A directory's metadata is cut short")?;
            Ok(u32::from_be_bytes(bytes.try_into()?))
        };
        // A handle that can be asked for its path only takes no new owner.
        let folder = rustix::fs::openat(
            self.root.open_dir(path)?,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::fchown(
            &folder,
            Some(Uid::from_raw(number(0)?)),
            Some(Gid::from_raw(number(4)?)),
        )?;
        rustix::fs::fchmod(&folder, Mode::from_raw_mode(number(8)? & 0o7777))?;
        Ok(())
    }

    fn parent(&self, path: &Path) -> Result<(Dir, PathBuf)> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("{} has no place", path.display());
        };
        Ok((self.root.open_dir(folder)?, PathBuf::from(name)))
    }
}

fn below_etc(path: &Path) -> String {
    let below = path.strip_prefix("etc").unwrap_or(path);
    below.to_string_lossy().into_owned()
}
