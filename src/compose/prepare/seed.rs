//! The data of a service that a maintainer script made, for example a database: one unit.
//!
//! Copied file by file, a file of the image's would get into a database that a host runs and lacks that name. So the
//! topmost directory is copied as a whole, and only to a host that has nothing there.

use super::rootfs;
use anyhow::Result;
use cap_std_ext::cap_std::fs::{Dir, Metadata, MetadataExt};
use std::path::Path;

/// Tells whether `path`, a directory below `place` that belongs to a service, holds data that nobody unpacked.
///
/// A directory that came with a package counts when such a file is directly in it: other directories below it may
/// be made by scripts one after another, and each is a unit of its own then.
pub(super) fn holds_data(
    root: &Dir,
    place: &Path,
    path: &Path,
    is_made: &dyn Fn(&Path) -> bool,
) -> Result<bool> {
    let deep = is_made(path);
    for name in rootfs::names(root, place.join(path))? {
        let inside = path.join(name);
        let Some(metadata) = rootfs::look(root, place.join(&inside))? else {
            continue;
        };
        if metadata.is_file() && is_made(&inside) {
            return Ok(true);
        }
        if deep && metadata.is_dir() && holds_data(root, place, &inside, is_made)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the metadata of `path` when everything below it has the same owner and group.
pub(super) fn owner(root: &Dir, path: &Path, metadata: &Metadata) -> Result<Option<Metadata>> {
    let mut same = true;
    rootfs::walk(root, path, &mut |_, found| {
        same &= (found.uid(), found.gid()) == (metadata.uid(), metadata.gid());
        Ok(())
    })?;
    Ok(same.then(|| metadata.clone()))
}

/// Tells whether two trees hold the same names with the same content, mode and owner.
pub(super) fn is_same(root: &Dir, one: &Path, other: &Path) -> Result<bool> {
    let (Some(a), Some(b)) = (rootfs::look(root, one)?, rootfs::look(root, other)?) else {
        return Ok(false);
    };
    if (a.file_type(), a.mode(), a.uid(), a.gid()) != (b.file_type(), b.mode(), b.uid(), b.gid()) {
        return Ok(false);
    }
    if a.is_symlink() {
        return Ok(rootfs::link_target(root, one)? == rootfs::link_target(root, other)?);
    }
    if !a.is_dir() {
        return Ok(a.len() == b.len() && root.read(one)? == root.read(other)?);
    }
    let names = rootfs::names(root, one)?;
    if names != rootfs::names(root, other)? {
        return Ok(false);
    }
    for name in names {
        if !is_same(root, &one.join(&name), &other.join(&name))? {
            return Ok(false);
        }
    }
    Ok(true)
}
