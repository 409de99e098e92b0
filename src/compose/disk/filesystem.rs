//! Root file systems and how they are made.

use crate::fault::{Fault, Kind};
use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use fn_error_context::context;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A file system for the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filesystem {
    /// The default; can be made with its content and without a mount.
    #[default]
    Ext4,
    /// Needs a loop device.
    Xfs,
    /// Needs a loop device.
    Btrfs,
}

/// ext4 features that the GRUB of a supported release cannot read, whatever this host's e2fsprogs would choose.
const EXT4_WITHOUT: &str = "^metadata_csum_seed";

impl Filesystem {
    /// The name as the kernel knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Makes an empty file system on `device`.
    #[context("Making the {self} file system")]
    pub fn make(self, device: &Path, uuid: &str) -> Result<()> {
        let command = match self {
            Self::Ext4 => {
                Cmd::new("mkfs.ext4").args(["-q", "-F", "-L", "root", "-O", EXT4_WITHOUT, "-U", uuid])
            }
            Self::Xfs => Cmd::new("mkfs.xfs")
                .args(["-q", "-f", "-L", "root", "-m"])
                .arg(format!("uuid={uuid}")),
            Self::Btrfs => Cmd::new("mkfs.btrfs").args(["-q", "-f", "-L", "root", "-U", uuid]),
        };
        command.arg(device).run()?;
        Ok(())
    }

    /// Makes an ext4 file system in `disk` at `(offset, length)` that holds what the directory `tree` holds.
    ///
    /// Owners, times, hard links and extended attributes are kept; the immutable flag is not.
    #[context("Making the ext4 file system")]
    pub fn make_ext4_from(disk: &Path, (offset, length): (u64, u64), uuid: &str, tree: &Path) -> Result<()> {
        Cmd::new("mkfs.ext4")
            .args(["-q", "-F", "-L", "root", "-O", EXT4_WITHOUT, "-U", uuid, "-E"])
            .arg(format!("offset={offset}"))
            .arg("-d")
            .arg(tree)
            .arg(disk)
            // Without a size the file system would run over the backup of the partition table.
            .arg(format!("{}k", length / 1024))
            .run()?;
        Ok(())
    }
}

impl FromStr for Filesystem {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [Self::Ext4, Self::Xfs, Self::Btrfs]
            .into_iter()
            .find(|known| known.name() == text)
            .ok_or_else(|| {
                Fault::new(Kind::Usage, format!("`{text}` is not a file system for a root"))
                    .hint("use ext4, xfs or btrfs")
            })
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns a new random UUID.
pub fn new_uuid() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("Reading a random UUID")?;
    Ok(text.trim_end().to_owned())
}
