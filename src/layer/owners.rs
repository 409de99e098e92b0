//! Gives what a run of the scripts made to the ids of this host.
//!
//! Ids may change places, so every file is looked at once and goes straight to its last owner. A change of owner
//! clears set-id bits and file capabilities; both come back. What the base owns with the same id keeps it: its
//! numbers mean the base's accounts.

use super::ids::Mapping;
use super::stage::Stage;
use crate::compose::rootfs;
use crate::compose::sysusers::Accounts;
use crate::host::{attributes, folder};
use anyhow::{Context, Result};
use fn_error_context::context;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
const CAPABILITIES: &[u8] = b"security.capability";

/// Applies the mapping to the lines of `/etc/passwd` and `/etc/group` that `base` has not, and to every new or
/// changed file.
#[context("Giving files to the users of this host")]
pub(super) fn change(stage: &Stage, mapping: &Mapping, base: &Accounts) -> Result<()> {
    if mapping.is_empty() {
        return Ok(());
    }
    rewrite(stage, "etc/passwd", &|fields| {
        if !base.users.iter().any(|user| user.name == fields[0]) {
            map_field(fields, 2, |id| mapping.user(id));
            map_field(fields, 3, |id| mapping.group(id));
        }
    })?;
    rewrite(stage, "etc/group", &|fields| {
        if !base.groups.iter().any(|group| group.name == fields[0]) {
            map_field(fields, 2, |id| mapping.group(id));
        }
    })?;
    let mut walk = Walk {
        mapping,
        done: HashSet::new(),
    };
    let at = |path: &Path| folder::open(rustix::fs::CWD, path);
    let (upper, root, base) = (at(stage.upper())?, at(stage.root())?, at(stage.base())?);
    walk.folder(upper.as_fd(), root.as_fd(), Some(base))
}

fn map_field(fields: &mut [String], index: usize, map: impl Fn(u32) -> u32) {
    if let Some(id) = fields.get(index).and_then(|field| field.parse().ok()) {
        fields[index] = map(id).to_string();
    }
}

/// Changes the lines of a file of fields with colons between; every line has at least one.
fn rewrite(stage: &Stage, path: &str, change: &dyn Fn(&mut [String])) -> Result<()> {
    let text = rootfs::read_text(stage.dir(), path)?.with_context(|| format!("/{path} is missing"))?;
    let mut changed = String::with_capacity(text.len());
    for line in text.lines() {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        change(&mut fields);
        changed.push_str(&fields.join(":"));
        changed.push('\n');
    }
    rootfs::write(stage.dir(), path, &changed, 0o644)?;
    Ok(())
}

struct Walk<'a> {
    mapping: &'a Mapping,
    /// Inodes of files with several names that are done.
    done: HashSet<u64>,
}

impl Walk<'_> {
    fn folder(&mut self, upper: BorrowedFd<'_>, root: BorrowedFd<'_>, base: Option<OwnedFd>) -> Result<()> {
        for entry in rustix::fs::Dir::read_from(upper)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let stat = rustix::fs::statat(upper, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let below = base
                .as_ref()
                .map(|base| look(base.as_fd(), name))
                .transpose()?
                .flatten();
            self.entry(root, name, &stat, below.as_ref())
                .with_context(|| format!("Changing the owner of {name:?}"))?;
            if kind.is_dir() {
                let is_dir = below.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
                let below = match (&base, is_dir) {
                    (Some(base), true) => Some(folder::open(base, name)?),
                    _ => None,
                };
                let inside = folder::open(upper, name)?;
                self.folder(inside.as_fd(), folder::open(root, name)?.as_fd(), below)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, root: BorrowedFd<'_>, name: &OsStr, stat: &Stat, base: Option<&Stat>) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        // A whiteout has no owner that counts and no name in the merged view.
        if kind.is_char_device() && stat.st_rdev == 0 {
            return Ok(());
        }
        if stat.st_nlink > 1 && !kind.is_dir() && !self.done.insert(stat.st_ino) {
            return Ok(());
        }
        let keeps = |new: u32, old: u32, of_base: Option<u32>| if of_base == Some(old) { old } else { new };
        let uid = keeps(
            self.mapping.user(stat.st_uid),
            stat.st_uid,
            base.map(|base| base.st_uid),
        );
        let gid = keeps(
            self.mapping.group(stat.st_gid),
            stat.st_gid,
            base.map(|base| base.st_gid),
        );
        let found = attributes::read(root, name)?;
        if (uid, gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(root, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            if kind.is_file() && stat.st_mode & 0o6000 != 0 {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::chmodat(root, name, mode, AtFlags::empty())?;
            }
            if let Some((_, value)) = found.iter().find(|(name, _)| name == CAPABILITIES) {
                attributes::write(root, name, CAPABILITIES, value)?;
            }
        }
        for (attribute, value) in found.iter().filter(|(name, _)| ACLS.contains(&name.as_slice())) {
            let changed = map_acl(value, self.mapping);
            if changed != *value {
                attributes::write(root, name, attribute, &changed)?;
            }
        }
        Ok(())
    }
}

fn look(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Maps the ids in an access control list: a version of four bytes, then entries of tag, permissions and id.
fn map_acl(value: &[u8], mapping: &Mapping) -> Vec<u8> {
    const USER: [u8; 2] = 2u16.to_le_bytes();
    const GROUP: [u8; 2] = 8u16.to_le_bytes();
    let mut changed = value.to_vec();
    for entry in changed.get_mut(4..).unwrap_or_default().chunks_exact_mut(8) {
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let id = match [entry[0], entry[1]] {
            USER => mapping.user(id),
            GROUP => mapping.group(id),
            _ => continue,
        };
        entry[4..].copy_from_slice(&id.to_le_bytes());
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_an_access_control_list_are_mapped_by_their_kind() {
        let list = |user: u32, group: u32| {
            let mut bytes = 2u32.to_le_bytes().to_vec();
            for (tag, id) in [
                (1u16, u32::MAX),
                (2, user),
                (4, u32::MAX),
                (8, group),
                (16, u32::MAX),
            ] {
                bytes.extend_from_slice(&tag.to_le_bytes());
                bytes.extend_from_slice(&7u16.to_le_bytes());
                bytes.extend_from_slice(&id.to_le_bytes());
            }
            bytes
        };
        let mapping = Mapping {
            users: [(100, 500)].into(),
            groups: [(100, 501)].into(),
        };
        assert_eq!(map_acl(&list(100, 100), &mapping), list(500, 501));
        assert_eq!(map_acl(b"odd", &mapping), b"odd");
    }
}
