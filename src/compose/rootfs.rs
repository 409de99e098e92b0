//! Looking at and changing a root file system below its directory handle.
//!
//! Nothing here leaves the root, and nothing removes or replaces a mount point: a container build binds
//! `/etc/resolv.conf`, `/etc/hosts` and the like over the image's own files.

use crate::host::attributes;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::fs::{
    Dir, FileType, Metadata, MetadataExt, OpenOptions, OpenOptionsExt, PermissionsExt,
};
use cap_std_ext::dirext::CapStdExtDirExt;
use fn_error_context::context;
use rustix::fs::{AtFlags, Gid, Mode, Uid};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Returns the metadata of `path` itself, or nothing where a part of it is missing.
#[context("Looking at /{}", path.as_ref().display())]
pub(crate) fn look(root: &Dir, path: impl AsRef<Path>) -> Result<Option<Metadata>> {
    match root.symlink_metadata(path.as_ref()) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the file type of `path` itself, or nothing where a part of it is missing.
pub(crate) fn file_type(root: &Dir, path: impl AsRef<Path>) -> Result<Option<FileType>> {
    Ok(look(root, path)?.map(|metadata| metadata.file_type()))
}

/// Tells whether `path` itself is a regular file.
pub(crate) fn is_file(root: &Dir, path: impl AsRef<Path>) -> Result<bool> {
    Ok(file_type(root, path)?.is_some_and(|kind| kind.is_file()))
}

/// Tells whether `path` itself is a directory.
pub(crate) fn is_dir(root: &Dir, path: impl AsRef<Path>) -> Result<bool> {
    Ok(file_type(root, path)?.is_some_and(|kind| kind.is_dir()))
}

/// Returns the text of the symbolic link at `path`, or nothing where there is none.
pub(crate) fn link_target(root: &Dir, path: impl AsRef<Path>) -> Result<Option<PathBuf>> {
    if !file_type(root, &path)?.is_some_and(|kind| kind.is_symlink()) {
        return Ok(None);
    }
    let target = root.read_link_contents(path.as_ref());
    Ok(Some(target.with_context(|| {
        format!("Reading the link /{}", path.as_ref().display())
    })?))
}

/// Tells whether something is mounted over `path`.
pub(crate) fn is_mount_point(root: &Dir, path: impl AsRef<Path>) -> Result<bool> {
    let path = path.as_ref();
    // The root directory of a container is a mount point that is meant to be changed.
    if path.as_os_str().is_empty() {
        return Ok(false);
    }
    match root.is_mountpoint(path) {
        Ok(found) => Ok(found.unwrap_or(false)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns the names in the directory `path` in byte order; a missing directory has none.
#[context("Listing /{}", path.as_ref().display())]
pub(crate) fn names(root: &Dir, path: impl AsRef<Path>) -> Result<Vec<OsString>> {
    let path = path.as_ref();
    let entries = if path.as_os_str().is_empty() {
        root.entries()?
    } else if is_dir(root, path)? {
        root.read_dir(path)?
    } else {
        return Ok(Vec::new());
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Visits everything below `path` in byte order, parents first, without entering mount points.
pub(crate) fn walk(
    root: &Dir,
    path: &Path,
    visit: &mut dyn FnMut(&Path, &Metadata) -> Result<()>,
) -> Result<()> {
    for name in names(root, path)? {
        let child = path.join(name);
        let Some(metadata) = look(root, &child)? else {
            continue;
        };
        if is_mount_point(root, &child)? {
            continue;
        }
        visit(&child, &metadata)?;
        // The visitor may have removed or moved the directory.
        if metadata.is_dir() && is_dir(root, &child)? {
            walk(root, &child, visit)?;
        }
    }
    Ok(())
}

/// Returns the text of a small file, or nothing where it is missing; follows links inside the root only.
#[context("Reading /{}", path.as_ref().display())]
pub(crate) fn read_text(root: &Dir, path: impl AsRef<Path>) -> Result<Option<String>> {
    let path = path.as_ref();
    if !is_file(root, path)? {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&root.read(path)?).into_owned()))
}

/// Makes the directory `path` with `mode` where it is missing; parents get mode 0755.
#[context("Making the directory /{}", path.as_ref().display())]
pub(crate) fn make_dir(root: &Dir, path: impl AsRef<Path>, mode: u32) -> Result<bool> {
    let path = path.as_ref();
    if root.metadata_optional(path)?.is_some_and(|found| found.is_dir()) {
        return Ok(false);
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dir(root, parent, 0o755)?;
    }
    root.create_dir(path)?;
    set_mode(root, path, mode)?;
    Ok(true)
}

/// Sets all twelve mode bits of `path`, which must not be a link.
pub(crate) fn set_mode(root: &Dir, path: &Path, mode: u32) -> Result<()> {
    let (parent, name) = open_parent(root, path)?;
    Ok(rustix::fs::chmodat(
        &parent,
        &name,
        Mode::from_raw_mode(mode & 0o7777),
        AtFlags::empty(),
    )?)
}

/// Gives the file or directory `path` the owner, mode and attributes of `from`, in the order that keeps them all.
fn copy_all_attributes(root: &Dir, from: &Path, path: &Path, model: &Metadata) -> Result<()> {
    copy_attributes(root, path, model)?;
    let (source, source_name) = open_parent(root, from)?;
    let (parent, name) = open_parent(root, path)?;
    for (attribute, value) in attributes::read(&source, &source_name)? {
        if !attribute.starts_with(b"trusted.overlay.") {
            attributes::write(&parent, &name, &attribute, &value)?;
        }
    }
    Ok(())
}

/// Gives the directory `path` the mode and owner of `model`.
fn copy_attributes(root: &Dir, path: &Path, model: &Metadata) -> Result<()> {
    let (parent, name) = open_parent(root, path)?;
    let (uid, gid) = (Uid::from_raw(model.uid()), Gid::from_raw(model.gid()));
    rustix::fs::chownat(&parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    set_mode(root, path, model.mode())
}

fn open_parent(root: &Dir, path: &Path) -> Result<(Dir, OsString)> {
    let name = path.file_name().context("A path without a name")?.to_owned();
    let parent = match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => root.open_dir(parent)?,
        None => root.try_clone()?,
    };
    Ok((parent, name))
}

/// Writes `contents` to `path` with `mode`; tells whether that changed anything.
///
/// An unchanged file is left alone, so that a second run adds nothing to an image layer.
#[context("Writing /{}", path.as_ref().display())]
pub(crate) fn write(root: &Dir, path: impl AsRef<Path>, contents: &str, mode: u32) -> Result<bool> {
    let path = path.as_ref();
    if is_mount_point(root, path)? {
        return Ok(false);
    }
    if let Some(found) = look(root, path)? {
        let same_mode = found.permissions().mode() & 0o7777 == mode;
        if found.is_file() && same_mode && root.read(path)? == contents.as_bytes() {
            return Ok(false);
        }
        remove(root, path)?;
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dir(root, parent, 0o755)?;
    }
    root.write(path, contents)?;
    set_mode(root, path, mode)?;
    Ok(true)
}

/// Makes `path` a symbolic link with the text `target`; tells whether that changed anything.
#[context("Linking /{} to {target}", path.as_ref().display())]
pub(crate) fn link(root: &Dir, path: impl AsRef<Path>, target: &str) -> Result<bool> {
    let path = path.as_ref();
    if link_target(root, path)?.is_some_and(|found| found == Path::new(target)) {
        return Ok(false);
    }
    remove(root, path)?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dir(root, parent, 0o755)?;
    }
    root.symlink_contents(target, path)?;
    Ok(true)
}

/// Removes `path` with everything below it; tells whether anything went away. Mount points stay.
#[context("Removing /{}", path.as_ref().display())]
pub(crate) fn remove(root: &Dir, path: impl AsRef<Path>) -> Result<bool> {
    let path = path.as_ref();
    let Some(kind) = file_type(root, path)? else {
        return Ok(false);
    };
    if is_mount_point(root, path)? {
        return Ok(false);
    }
    if !kind.is_dir() {
        root.remove_file(path)?;
        return Ok(true);
    }
    clear(root, path)?;
    match root.remove_dir(path) {
        Ok(()) => Ok(true),
        // A mount point inside keeps its parents.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DirectoryNotEmpty | ErrorKind::ResourceBusy
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes everything in the directory `path`; tells whether anything went away. Mount points stay.
pub(crate) fn clear(root: &Dir, path: impl AsRef<Path>) -> Result<bool> {
    let mut changed = false;
    for name in names(root, &path)? {
        changed |= remove(root, path.as_ref().join(name))?;
    }
    Ok(changed)
}

/// Moves `from` to `to`; a directory is merged into one that exists, anything else is replaced.
///
/// Directories are made anew and their entries renamed one by one, because the overlay of a container build
/// refuses to rename a directory that comes from a lower layer.
#[context("Moving /{} to /{}", from.display(), to.display())]
pub(crate) fn move_tree(root: &Dir, from: &Path, to: &Path) -> Result<()> {
    let Some(metadata) = look(root, from)? else {
        return Ok(());
    };
    if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dir(root, parent, 0o755)?;
    }
    if !metadata.is_dir() {
        if is_dir(root, to)? {
            remove(root, to)?;
        }
        return match root.rename(from, root, to) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::CrossesDevices => copy_over(root, from, to, &metadata),
            Err(error) => Err(error.into()),
        };
    }
    if !is_dir(root, to)? {
        remove(root, to)?;
        root.create_dir(to)?;
    }
    copy_all_attributes(root, from, to, &metadata)?;
    for name in names(root, from)? {
        move_tree(root, &from.join(&name), &to.join(&name))?;
    }
    root.remove_dir(from)?;
    Ok(())
}

/// Moves a file or link to another file system.
fn copy_over(root: &Dir, from: &Path, to: &Path, metadata: &Metadata) -> Result<()> {
    remove(root, to)?;
    if metadata.is_symlink() {
        root.symlink_contents(root.read_link_contents(from)?, to)?;
        let (parent, name) = open_parent(root, to)?;
        let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
        rustix::fs::chownat(&parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    } else if metadata.is_file() {
        let mut options = OpenOptions::new();
        let mut file = root.open_with(to, options.write(true).create_new(true).mode(0o600))?;
        std::io::copy(&mut root.open(from)?, &mut file)?;
        copy_all_attributes(root, from, to, metadata)?;
    } else {
        anyhow::bail!("It is neither a file nor a link");
    }
    root.remove_file(from)?;
    Ok(())
}

/// Makes the directory `path` and its missing parents with the mode and owner that the same path below
/// `model` has, so that moving a file from there to here opens nothing that was closed.
pub(crate) fn mirror_dirs(root: &Dir, model: &Path, path: &Path, inside: &Path) -> Result<()> {
    let mut below = PathBuf::new();
    make_dir(root, path, 0o755)?;
    for part in inside.components() {
        below.push(part);
        let target = path.join(&below);
        if !is_dir(root, &target)? {
            make_dir(root, &target, 0o755)?;
        }
        if let Some(metadata) = look(root, model.join(&below))? {
            copy_attributes(root, &target, &metadata)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std_ext::cap_std::ambient_authority;

    fn root() -> (tempfile::TempDir, Dir) {
        let folder = tempfile::tempdir().unwrap();
        let root = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        (folder, root)
    }

    #[test]
    fn moving_merges_directories_and_keeps_modes() {
        let (_folder, root) = root();
        root.create_dir_all("a/x").unwrap();
        root.create_dir_all("b/x").unwrap();
        root.write("a/x/new", "1").unwrap();
        root.write("b/x/old", "2").unwrap();
        set_mode(&root, Path::new("a/x"), 0o1750).unwrap();
        move_tree(&root, Path::new("a"), Path::new("b")).unwrap();
        assert_eq!(names(&root, "b/x").unwrap(), ["new", "old"]);
        assert_eq!(look(&root, "b/x").unwrap().unwrap().mode() & 0o7777, 0o1750);
        assert!(look(&root, "a").unwrap().is_none());
    }

    #[test]
    fn writing_twice_changes_once() {
        let (_folder, root) = root();
        assert!(write(&root, "usr/lib/x", "a\n", 0o644).unwrap());
        assert!(!write(&root, "usr/lib/x", "a\n", 0o644).unwrap());
        assert!(link(&root, "var/lib/y", "../../usr").unwrap());
        assert!(!link(&root, "var/lib/y", "../../usr").unwrap());
    }
}
