//! What a disk is written to: a block device or a file, and whether that may be.

use super::SMALLEST;
use crate::fault::{Fault, Kind};
use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use fn_error_context::context;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The place for a disk, checked to be free for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A block device of a known size.
    Device {
        /// Its path.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// A file that does not exist, is empty, or may be replaced.
    File {
        /// Its path.
        path: PathBuf,
    },
}

impl Target {
    /// Looks at `path`; nothing is written.
    ///
    /// Fails when it holds a file system, a partition table or any data and `wipe` is not given, and always when
    /// it is in use.
    #[context("Looking at {}", path.display())]
    pub fn open(path: &Path, wipe: bool) -> Result<Self> {
        let Some(metadata) = std::fs::metadata(path)
            .map(Some)
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(None),
                _ => Err(error),
            })?
        else {
            return Ok(Self::File {
                path: path.to_owned(),
            });
        };
        if metadata.file_type().is_block_device() {
            return Self::device(path, wipe);
        }
        if !metadata.is_file() {
            return Err(Fault::new(
                Kind::Usage,
                format!("{} is neither a block device nor a file", path.display()),
            )
            .hint("give a whole disk such as /dev/vdb, or the name of a disk image to make")
            .into());
        }
        if metadata.len() > 0 && !wipe {
            return Err(occupied(path, "is not empty").into());
        }
        Ok(Self::File {
            path: path.to_owned(),
        })
    }

    fn device(path: &Path, wipe: bool) -> Result<Self> {
        // The kernel gives an exclusive handle only when nobody has mounted or claimed the disk.
        let exclusive = i32::try_from(rustix::fs::OFlags::EXCL.bits())?;
        let mut disk = match File::options()
            .read(true)
            .write(true)
            .custom_flags(exclusive)
            .open(path)
        {
            Ok(disk) => disk,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                return Err(Fault::new(Kind::Busy, format!("{} is in use", path.display()))
                    .hint(format!("unmount what `lsblk {}` shows", path.display()))
                    .into());
            }
            Err(error) => return Err(error.into()),
        };
        let size = disk.seek(SeekFrom::End(0)).context("Finding its size")?;
        drop(disk);
        require_size(size)?;
        let found = Cmd::new("wipefs")
            .args(["--no-act", "--noheadings", "--output", "TYPE"])
            .arg(path)
            .run_text()?;
        let kinds: Vec<_> = found.split_whitespace().collect();
        if !kinds.is_empty() && !wipe {
            return Err(occupied(path, &format!("holds {}", kinds.join(", "))).into());
        }
        Ok(Self::Device {
            path: path.to_owned(),
            size,
        })
    }

    /// The path that was given.
    pub fn path(&self) -> &Path {
        match self {
            Self::Device { path, .. } | Self::File { path } => path,
        }
    }
}

/// Returns the bytes that the files below `tree` take, each hard-linked file once.
pub fn tree_size(tree: &Path) -> Result<u64> {
    let text = Cmd::new("du")
        .args(["--summarize", "--block-size=1"])
        .arg(tree)
        .run_text()?;
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("Reading the size of {}", tree.display()))
}

/// The file system that is mounted at a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Its UUID, where it has one.
    pub uuid: Option<String>,
}

impl Mounted {
    /// Returns what is mounted at `path`; nothing when `path` is no mount point.
    #[context("Looking for a mount at {}", path.display())]
    pub fn at(path: &Path) -> Result<Option<Self>> {
        let found = Cmd::new("findmnt")
            .args([
                "--noheadings",
                "--first-only",
                "--nofsroot",
                "--output",
                "SOURCE",
                "--mountpoint",
            ])
            .arg(path)
            .output()?;
        let source = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        if !found.status.success() || source.is_empty() {
            return Ok(None);
        }
        if !source.starts_with('/') {
            return Ok(Some(Self { uuid: None }));
        }
        // The device is read, because a container may lack udev's data about it.
        let probed = Cmd::new("blkid")
            .args(["--probe", "--match-tag", "UUID", "--output", "value"])
            .arg(&source)
            .output()?;
        let uuid = String::from_utf8_lossy(&probed.stdout).trim().to_owned();
        Ok(Some(Self {
            uuid: Some(uuid).filter(|uuid| !uuid.is_empty()),
        }))
    }
}

/// Fails when a disk of `size` bytes is too small for any image.
pub fn require_size(size: u64) -> Result<(), Fault> {
    if size < SMALLEST {
        Err(too_small(size))
    } else {
        Ok(())
    }
}

fn too_small(size: u64) -> Fault {
    Fault::new(
        Kind::NoSpace,
        format!(
            "A disk of {} MiB is too small; at least {} MiB are needed",
            size >> 20,
            SMALLEST >> 20
        ),
    )
}

fn occupied(path: &Path, what: &str) -> Fault {
    Fault::new(
        Kind::Invalid,
        format!("{} {what}, which would be lost", path.display()),
    )
    .hint("give `--wipe` to overwrite it, or choose another target")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_not_overwritten_unasked() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("disk");
        assert_eq!(
            Target::open(&path, false).unwrap(),
            Target::File { path: path.clone() }
        );
        std::fs::write(&path, "").unwrap();
        Target::open(&path, false).unwrap();
        std::fs::write(&path, "precious").unwrap();
        let error = Target::open(&path, false).unwrap_err();
        assert!(
            Fault::find(&error)
                .unwrap()
                .hint
                .as_ref()
                .unwrap()
                .contains("--wipe")
        );
        Target::open(&path, true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_directory_is_no_disk() {
        let temporary = tempfile::tempdir().unwrap();
        let error = Target::open(temporary.path(), true).unwrap_err();
        assert_eq!(Fault::find(&error).unwrap().kind, Kind::Usage);
    }
}
