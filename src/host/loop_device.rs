//! Loop devices, and the file systems on them, that cannot outlive the process.
//!
//! A loop device that is marked to detach goes with its last user, and a mount in the private mount namespace that
//! the command line enters goes with its last process. So even `SIGKILL` leaves nothing attached and nothing mounted.

use crate::fault::{Fault, Kind};
use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use fn_error_context::context;
use rustix::mount::{MountFlags, UnmountFlags};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A loop device over a part of a file or block device; detached when dropped.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    // The kernel detaches the device when its last user goes, and this is one.
    _user: File,
}

impl LoopDevice {
    /// Attaches `length` bytes of `file` from `offset` on.
    #[context("Attaching {} to a loop device", file.display())]
    pub fn attach(file: &Path, offset: u64, length: u64) -> Result<Self> {
        let path = Cmd::new("losetup")
            .args(["--find", "--show", "--offset"])
            .arg(offset.to_string())
            .arg("--sizelimit")
            .arg(length.to_string())
            .arg(file)
            .run_text()
            .map_err(|error| {
                error.context(
                    Fault::new(Kind::Unsupported, "No loop device can be attached here")
                        .hint("run as root with /dev/loop-control at hand, or use `--filesystem ext4`, which needs none"),
                )
            })?;
        let path = PathBuf::from(path.trim_end());
        let user = File::options().read(true).write(true).open(&path);
        // Detaching a device that is in use marks it to go with its last user.
        Cmd::new("losetup").arg("--detach").arg(&path).run()?;
        Ok(Self {
            _user: user.with_context(|| format!("Opening {}", path.display()))?,
            path,
        })
    }

    /// The device's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    target: Option<PathBuf>,
}

impl Mount {
    /// Mounts the file system of type `kind` on `device` at `target`.
    #[context("Mounting {} at {}", device.display(), target.display())]
    pub fn new(device: &Path, target: &Path, kind: &str) -> Result<Self> {
        rustix::mount::mount(device, target, kind, MountFlags::empty(), None)?;
        Ok(Self {
            target: Some(target.to_owned()),
        })
    }

    /// Unmounts, and fails when data could not be written or somebody still uses the file system.
    #[context("Unmounting")]
    pub fn unmount(mut self) -> Result<()> {
        if let Some(target) = self.target.take() {
            rustix::mount::unmount(&target, UnmountFlags::empty())
                .with_context(|| target.display().to_string())?;
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            if let Err(error) = rustix::mount::unmount(&target, UnmountFlags::DETACH) {
                tracing::debug!("Unmounting {}: {error}", target.display());
            }
        }
    }
}
