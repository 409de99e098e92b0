//! A whole disk that firmware boots.
//!
//! ```text
//! GPT   1 MiB  ESP   64 MiB   EFI/BOOT/{BOOTX64.EFI,grubx64.efi,mmx64.efi}  EFI/{BOOT,debian}/grub.cfg
//!      65 MiB  root  the rest ext4, xfs or btrfs; holds /boot too
//! ```
//!
//! The EFI system partition is written with mtools and ext4 with `mkfs.ext4 -d`, so that the usual disk image needs
//! neither a mount nor a loop device. Only sizes and places are decided here; what the root holds is the caller's.

mod efi;
mod filesystem;
mod target;

pub use efi::EfiFiles;
pub use filesystem::{Filesystem, new_uuid};
pub use target::{Mounted, Target, require_size, tree_size};

use crate::host::runner::Cmd;
use anyhow::Result;
use fn_error_context::context;
use std::path::Path;

/// Bytes of a mebibyte.
const MIB: u64 = 1 << 20;

/// The smallest disk worth partitioning.
pub const SMALLEST: u64 = 1024 * MIB;

/// Where the partitions of a disk are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// First byte and length of the EFI system partition.
    pub esp: (u64, u64),
    /// First byte and length of the root partition.
    pub root: (u64, u64),
}

impl Layout {
    /// Returns the layout of a disk of `size` bytes.
    pub fn of(size: u64) -> Self {
        let esp = (MIB, 64 * MIB);
        let start = esp.0 + esp.1;
        // The backup of the partition table takes the last 33 sectors.
        let end = size / MIB * MIB - MIB;
        Self {
            esp,
            root: (start, end - start),
        }
    }

    /// Writes the partition table to `disk`, whatever was there.
    #[context("Partitioning {}", disk.display())]
    pub fn write(&self, disk: &Path) -> Result<()> {
        let root_type = match std::env::consts::ARCH {
            "aarch64" => "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
            _ => "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
        };
        let sectors = |bytes: u64| bytes / 512;
        let table = format!(
            "label: gpt\nsector-size: 512\nstart={}, size={}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=ESP\n\
             start={}, size={}, type={root_type}, name=root\n",
            sectors(self.esp.0),
            sectors(self.esp.1),
            sectors(self.root.0),
            sectors(self.root.1),
        );
        Cmd::new("sfdisk")
            .args(["--quiet", "--wipe", "always", "--wipe-partitions", "always"])
            .arg(disk)
            .input(table)
            .run()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_leave_room_for_both_tables() {
        for size in [SMALLEST, 4096 * MIB, 4096 * MIB + 12345] {
            let layout = Layout::of(size);
            assert_eq!(layout.esp.0 + layout.esp.1, layout.root.0);
            assert!(layout.root.0 + layout.root.1 + 33 * 512 <= size);
            assert_eq!(layout.root.0 % MIB, 0);
        }
    }
}
