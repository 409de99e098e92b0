//! Scratch folders: opened relative to a handle, locked by the process that uses them, removed with all they hold.
//!
//! The lock is an flock(2) on the folder itself, so it ends with the process, however that ends. No link is followed.

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Opens a folder below another.
pub fn open(parent: impl AsFd, name: impl Arg + Copy) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(parent, name, flags, Mode::empty())
        .with_context(|| format!("Opening the folder {}", name.to_string_lossy()))
}

/// Opens and locks a folder; returns nothing when another process holds it or removed it meanwhile.
pub fn lock(parent: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>> {
    let Ok(folder) = open(parent, name) else {
        return Ok(None);
    };
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("Locking {name}")),
    }
    let ours = rustix::fs::fstat(&folder)?;
    let same = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|now| now.st_ino == ours.st_ino && now.st_dev == ours.st_dev);
    Ok(same.then_some(folder))
}

/// Makes and locks a new folder `PREFIX<number>` of mode 0700 and returns its name with it.
pub fn create(parent: BorrowedFd<'_>, prefix: &str) -> Result<(String, OwnedFd)> {
    let mut number = 0;
    loop {
        let name = format!("{prefix}{number}");
        number += 1;
        match rustix::fs::mkdirat(parent, &name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => continue,
            Err(error) => return Err(error).with_context(|| format!("Making the folder {name}")),
        }
        // Another process may take it for a leftover before it is locked.
        if let Some(folder) = lock(parent, &name)? {
            return Ok((name, folder));
        }
    }
}

/// Removes a folder with all it holds.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &str) -> Result<()> {
    let name = std::ffi::CString::new(name)?;
    remove(parent, &name)
}

fn remove(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let folder = open(parent, name)?;
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let inside = entry.file_name();
        if inside == c"." || inside == c".." {
            continue;
        }
        match rustix::fs::unlinkat(&folder, inside, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR | Errno::PERM) => remove(folder.as_fd(), inside)?,
            Err(error) => {
                return Err(error).with_context(|| format!("Removing {}", inside.to_string_lossy()));
            }
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
        .with_context(|| format!("Removing {}", name.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_locked_folder_is_left_to_its_process_and_a_tree_goes_whole() {
        let directory = tempfile::tempdir().unwrap();
        let parent = std::fs::File::open(directory.path()).unwrap();
        let (name, folder) = create(parent.as_fd(), "scratch.").unwrap();
        assert!(lock(parent.as_fd(), &name).unwrap().is_none());
        let (second, _lock) = create(parent.as_fd(), "scratch.").unwrap();
        assert_ne!(name, second);
        drop(folder);
        assert!(lock(parent.as_fd(), &name).unwrap().is_some());
        let inside = directory.path().join(&name);
        std::fs::create_dir_all(inside.join("a/b")).unwrap();
        std::fs::write(inside.join("a").join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        std::os::unix::fs::symlink(directory.path().join(&second), inside.join("link")).unwrap();
        remove_tree(parent.as_fd(), &name).unwrap();
        assert!(!inside.exists() && directory.path().join(&second).exists());
    }
}
