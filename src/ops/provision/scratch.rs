//! The directory in which a disk image is made, next to the image so that the last step is one rename.
//!
//! It is `.NAME.apt-ostree`. It goes when the work ends, also by SIGINT or SIGTERM; what a killed run left behind
//! goes at the next run for the same image. A lock on it keeps two runs apart.

use crate::fault::{Fault, Kind};
use crate::host::interrupt::Interrupt;
use anyhow::{Context, Result};
use fn_error_context::context;
use rustix::fs::{FlockOperation, IFlags};
use rustix::mount::UnmountFlags;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    // Held until the directory is gone.
    _lock: File,
    _interrupt: Interrupt,
}

impl Scratch {
    /// Makes the directory for the file that `target` will be.
    #[context("Making a directory to work in")]
    pub(super) fn new(target: &Path) -> Result<Self> {
        let name = target
            .file_name()
            .with_context(|| format!("{} has no file name", target.display()))?;
        let parent = target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let path = parent
            .canonicalize()
            .with_context(|| format!("Opening {}", parent.display()))?
            .join(format!(".{}.apt-ostree", name.to_string_lossy()));
        std::fs::create_dir_all(&path)?;
        let lock = File::open(&path)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Fault::new(
                Kind::Busy,
                format!("Another process is making {}", target.display()),
            )
            .hint("wait for it to end")
            .into());
        }
        clear(&path)?;
        let doomed = path.clone();
        let interrupt = Interrupt::cleaning_up(move || {
            // Other threads may still write; what they add meanwhile goes in the next round.
            for _ in 0..5 {
                if clear(&doomed)
                    .and_then(|()| Ok(std::fs::remove_dir(&doomed)?))
                    .is_ok()
                {
                    break;
                }
            }
        })?;
        Ok(Self {
            path,
            _lock: lock,
            _interrupt: interrupt,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.path).and_then(|()| Ok(std::fs::remove_dir(&self.path)?)) {
            tracing::warn!("{} stays behind: {error:#}", self.path.display());
        }
    }
}

/// Removes what is in `path`, after unmounting what an interrupted thread has mounted there.
fn clear(path: &Path) -> Result<()> {
    let device = std::fs::metadata(path)?.dev();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?.path();
        if std::fs::symlink_metadata(&entry)?.dev() != device {
            rustix::mount::unmount(&entry, UnmountFlags::DETACH)
                .with_context(|| format!("Unmounting {}", entry.display()))?;
        }
        if entry.is_dir() && !entry.is_symlink() {
            make_mutable(&entry)?;
            std::fs::remove_dir_all(&entry).with_context(|| format!("Removing {}", entry.display()))?;
        } else {
            std::fs::remove_file(&entry).with_context(|| format!("Removing {}", entry.display()))?;
        }
    }
    Ok(())
}

/// Clears the immutable flag that libostree sets on each deployment's top directory.
fn make_mutable(sysroot: &Path) -> Result<()> {
    let Ok(stateroots) = std::fs::read_dir(sysroot.join("ostree/deploy")) else {
        return Ok(());
    };
    for stateroot in stateroots {
        let Ok(deployments) = std::fs::read_dir(stateroot?.path().join("deploy")) else {
            continue;
        };
        for deployment in deployments {
            let deployment = deployment?;
            if !deployment.file_type()?.is_dir() {
                continue;
            }
            let directory = File::open(deployment.path())?;
            // A file system without such flags cannot have set this one.
            if let Ok(flags) = rustix::fs::ioctl_getflags(&directory) {
                if flags.contains(IFlags::IMMUTABLE) {
                    rustix::fs::ioctl_setflags(&directory, flags - IFlags::IMMUTABLE)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_a_second_run_waits() {
        let temporary = tempfile::tempdir().unwrap();
        let left = temporary.path().join(".disk.apt-ostree/old");
        std::fs::create_dir_all(&left).unwrap();
        let target = temporary.path().join("disk");
        let scratch = Scratch::new(&target).unwrap();
        assert!(!left.exists());
        let error = Scratch::new(&target).unwrap_err();
        assert_eq!(Fault::find(&error).unwrap().kind, Kind::Busy);
        drop(scratch);
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}
