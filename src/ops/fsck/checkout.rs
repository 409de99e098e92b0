//! The folders of deployments: `/usr` in them is what the commit says.
//!
//! A file that is a hard link of its object needs no second look: the object is checked by its own name.

use super::finding::{Content, Finding, Findings, Remedy, Restore};
use super::objects::{self, Object};
use super::site::{Found, Site};
use crate::host::folder;
use crate::image::commit::Commit;
use crate::image::objects::StoredObjects;
use crate::tree::{Checksum, Directory, MetadataKind, Objects};
use anyhow::{Context, Result};
use ostree_ext::ostree;
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Where a deployment is compared with its commit.
const USR: &str = "usr";

/// Compares one deployment; `quick` takes equal size, owner and permissions for equality.
pub(super) fn check(site: &Site<'_>, found: &Found, quick: bool, findings: &mut Findings) -> Result<()> {
    let mut root = Commit::load(&site.repo, &found.commit)?.root;
    let objects = StoredObjects(&site.repo);
    let Some(usr) = root.find_directory(&objects, USR)? else {
        return Ok(());
    };
    let mut comparison = Comparison {
        found,
        quick,
        objects,
        store: folder::open(site.repo.dfd_borrow(), "objects")?,
        findings,
    };
    let top = site.root.open_dir(&found.folder)?;
    match folder::open(&top, USR) {
        Ok(folder) => comparison.directory(usr, &folder, USR),
        Err(_) => {
            comparison.missing(USR, Content::Folder);
            Ok(())
        }
    }
}

struct Comparison<'a> {
    found: &'a Found,
    quick: bool,
    objects: StoredObjects<'a>,
    store: OwnedFd,
    findings: &'a mut Findings,
}

impl Comparison<'_> {
    fn directory(&mut self, expected: &mut Directory, folder: &OwnedFd, path: &str) -> Result<()> {
        self.attributes(expected, folder, path)?;
        // A directory object that is missing is found where objects are checked.
        let Ok(entries) = expected.entries(&self.objects) else {
            return Ok(());
        };
        let names = match names(folder) {
            Ok(names) => names,
            Err(error) if super::finding::is_denied(&error) => {
                self.findings.unread("folders of deployments", path);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for (name, object) in &entries.files {
            self.file(folder, name, object, &format!("{path}/{name}"))?;
        }
        for (name, below) in &mut entries.directories {
            let path = format!("{path}/{name}");
            match folder::open(folder, &**name) {
                Ok(inside) => self.directory(below, &inside, &path)?,
                Err(error) if super::finding::is_denied(&error) => {
                    self.findings.unread("folders of deployments", path);
                }
                Err(_) if names.iter().any(|known| **known == **name) => {
                    self.differs(&path, "is no folder any more", None);
                }
                Err(_) => self.missing(&path, Content::Folder),
            }
        }
        for name in names {
            if !entries.files.contains_key(&*name) && !entries.directories.contains_key(&*name) {
                let path = format!("{path}/{name}");
                let message = format!(
                    "`/{path}` of the deployment {} is not in its commit",
                    self.found.id
                );
                self.findings.push(
                    Finding::warning("deployment-file-extra", self.thing(&path), message)
                        .hint("fsck removes nothing that somebody may have put there"),
                );
            }
        }
        Ok(())
    }

    fn attributes(&mut self, expected: &Directory, folder: &OwnedFd, path: &str) -> Result<()> {
        let Ok(bytes) = self.objects.read(MetadataKind::DirMeta, &expected.metadata()) else {
            return Ok(());
        };
        let number = |index: usize| {
            let field = bytes.get(4 * index..4 * index + 4)?;
            Some(u32::from_be_bytes(field.try_into().ok()?))
        };
        let (uid, gid, mode) = number(0)
            .zip(number(1))
            .zip(number(2))
            .map(|((uid, gid), mode)| (uid, gid, mode & 0o7777))
            .context("A directory's metadata is too short")?;
        let stat = rustix::fs::fstat(folder)?;
        if (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) != (uid, gid, mode) {
            let content = Content::Attributes { uid, gid, mode };
            self.differs(path, "has another owner or other permissions", Some(content));
        }
        Ok(())
    }

    fn file(&mut self, folder: &OwnedFd, name: &str, object: &Checksum, path: &str) -> Result<()> {
        self.findings.checked.files += 1;
        let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                self.missing(path, Content::File(*object));
                return Ok(());
            }
            Err(error) => return Err(error).with_context(|| format!("Looking at {path}")),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::Symlink) {
            self.differs(path, "is no file any more", None);
            return Ok(());
        }
        let place = objects::path(&(ostree::ObjectType::File, *object));
        let stored = rustix::fs::statat(&self.store, &place, AtFlags::SYMLINK_NOFOLLOW).ok();
        let file = Some(Content::File(*object));
        if let Some(stored) = &stored {
            if (stored.st_dev, stored.st_ino) == (stat.st_dev, stat.st_ino) {
                return Ok(());
            }
            if let Some(what) = difference(stored, &stat) {
                self.differs(path, what, file);
                return Ok(());
            }
            if self.quick {
                return Ok(());
            }
        }
        match objects::checksum_of(folder, name) {
            Ok(sum) if sum == *object => {}
            Ok(_) => self.differs(path, "has other content", file),
            Err(error) if super::finding::is_denied(&error) => {
                self.findings.unread("files of deployments", path);
            }
            Err(error) => return Err(error).with_context(|| format!("Reading {path}")),
        }
        Ok(())
    }

    fn missing(&mut self, path: &str, content: Content) {
        let message = format!("`/{path}` of the deployment {} is missing", self.found.id);
        let finding = Finding::error("deployment-file-missing", self.thing(path), message);
        let finding = self.restorable(finding, path, content);
        self.findings.push(finding);
    }

    fn differs(&mut self, path: &str, how: &str, content: Option<Content>) {
        let message = format!("`/{path}` of the deployment {} {how}", self.found.id);
        let finding = Finding::error("deployment-file-differs", self.thing(path), message);
        let finding = match content {
            Some(content) => self.restorable(finding, path, content),
            None => finding.hint("move what stands there away and run `apt-ostree fsck --repair` again"),
        };
        self.findings.push(finding);
    }

    fn restorable(&self, finding: Finding, path: &str, what: Content) -> Finding {
        if self.found.is_booted {
            return finding.hint(
                "nothing is changed below the running system; boot another deployment, for example after `apt-ostree rollback`, and run `apt-ostree fsck --repair` there",
            );
        }
        finding.remedy(Remedy::Restore(Restore {
            folder: self.found.folder.clone(),
            path: path.to_owned(),
            what,
            commit: self.found.commit.clone(),
        }))
    }

    fn thing(&self, path: &str) -> String {
        format!("{}:/{path}", self.found.id)
    }
}

/// Returns what the metadata of two files tell apart, in words behind the file's name.
fn difference(stored: &Stat, found: &Stat) -> Option<&'static str> {
    let kind = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
    if kind(stored) != kind(found) || stored.st_size != found.st_size {
        return Some("has other content");
    }
    let rights = |stat: &Stat| (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777);
    (rights(stored) != rights(found)).then_some("has another owner or other permissions")
}

fn names(folder: &OwnedFd) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Returns a file of a deployment that is exactly a missing object, where there is one.
pub(super) fn copy_of(
    site: &Site<'_>,
    object: &Object,
    holders: &BTreeMap<String, String>,
) -> Option<PathBuf> {
    if object.0 != ostree::ObjectType::File {
        return None;
    }
    site.deployments.iter().find_map(|found| {
        let path = holders.get(&found.commit)?;
        let place = found.folder.join(path);
        let parent = site.root.open_dir(place.parent()?).ok()?;
        let sum = objects::checksum_of(&parent, place.file_name()?.to_str()?).ok()?;
        (sum == object.1).then_some(place)
    })
}

/// Puts a file or folder of a deployment back. What a file replaces is gone then.
///
/// Fails when the object is not whole.
pub(super) fn restore(site: &Site<'_>, restore: &Restore) -> Result<()> {
    let Restore {
        folder,
        path,
        what,
        commit,
    } = restore;
    let top = folder::open(&site.root, folder.as_path())?;
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut parent = top;
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        parent = folder::open(&parent, part)?;
    }
    match what {
        Content::File(object) => put_file(site, &parent, name, object),
        Content::Folder => put_folder(site, &parent, name, path, commit),
        Content::Attributes { uid, gid, mode } => {
            let inside = folder::open(&parent, name)?;
            let (uid, gid) = (rustix::fs::Uid::from_raw(*uid), rustix::fs::Gid::from_raw(*gid));
            rustix::fs::fchown(&inside, Some(uid), Some(gid))?;
            rustix::fs::fchmod(&inside, rustix::fs::Mode::from_raw_mode(*mode))?;
            Ok(())
        }
    }
    .with_context(|| format!("Putting {path} back"))
}

fn put_file(site: &Site<'_>, parent: &OwnedFd, name: &str, object: &Checksum) -> Result<()> {
    let kind = ostree::ObjectType::File;
    site.repo
        .fsck_object(kind, &object.to_string(), ostree_ext::gio::Cancellable::NONE)?;
    let store = folder::open(site.repo.dfd_borrow(), "objects")?;
    let new = format!(".{}.apt-ostree-fsck", &object.to_string()[..16]);
    match rustix::fs::unlinkat(parent, &new, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::fs::linkat(
        &store,
        objects::path(&(kind, *object)),
        parent,
        &new,
        AtFlags::empty(),
    )?;
    rustix::fs::renameat(parent, &new, parent, name)?;
    Ok(())
}

fn put_folder(site: &Site<'_>, parent: &OwnedFd, name: &str, path: &str, commit: &str) -> Result<()> {
    use std::os::fd::AsRawFd;
    let options = ostree::RepoCheckoutAtOptions {
        no_copy_fallback: true,
        subpath: Some(PathBuf::from(format!("/{path}"))),
        ..Default::default()
    };
    site.repo.checkout_at(
        Some(&options),
        parent.as_raw_fd(),
        name,
        commit,
        ostree_ext::gio::Cancellable::NONE,
    )?;
    Ok(())
}
