//! The boot loader of a host: who turns libostree's boot entries into a menu.
//!
//! ```text
//! /boot/loader -> loader.0          swapped by libostree at each deployment
//! /boot/loader.0/entries/*.conf     the boot entries
//! /boot/grub/grub.cfg               `grub`: our static script; `grub2`: -> ../loader/grub.cfg
//! ```
//!
//! Firmware starts Debian's signed shim and GRUB, and a stub on the EFI system partition (see
//! [`crate::compose::disk`]) sends GRUB to that `grub.cfg`. `/boot` never is vfat: libostree swaps links there.

mod entry;
mod grub2;
mod script;

pub use entry::{Entry, entries};
pub use grub2::{check_boot_prefix, check_grub_cfg, check_ready, first_grub_cfg};
pub use script::grub_safe;

use anyhow::{Context, Result};
use cap_std_ext::cap_std::fs::Dir;
use cap_std_ext::dirext::CapStdExtDirExt;
use fn_error_context::context;
use ostree_ext::{glib, ostree};
use std::fmt;
use std::str::FromStr;

use crate::fault::{Fault, Kind};

/// The script that reads the boot entries; the same on every host.
const GRUB_CFG: &str = include_str!("grub.cfg");

/// Where GRUB's configuration is, below `/boot`.
const GRUB_CFG_PATH: &str = "grub/grub.cfg";

/// How each version of the script begins; a file with another beginning is not ours to replace.
const GRUB_CFG_MARK: &str = "# Written by apt-ostree, the same on every host;";

/// The kernel argument by which the script finds the archive that is loaded behind the initramfs.
pub const OVERLAY_ARGUMENT: &str = "apt-ostree.initrd";

/// The file system that holds `/boot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPlace {
    /// Its UUID, by which GRUB finds it.
    pub uuid: String,
    /// Whether it holds `/boot` only, apart from the root file system.
    pub own: bool,
}

impl BootPlace {
    /// Returns the configuration file on the EFI system partition that sends GRUB to `grub.cfg`.
    pub fn stub(&self) -> String {
        let prefix = if self.own { "" } else { "/boot" };
        format!(
            "search.fs_uuid {} root\nset prefix=($root){prefix}/grub\nconfigfile $prefix/grub.cfg\n",
            self.uuid
        )
    }
}

/// What makes the boot menu.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loader {
    /// A static script lets GRUB read the boot entries; nothing is generated when a deployment is written.
    #[default]
    Grub,
    /// libostree's own backend: `grub-mkconfig` writes a new `grub.cfg` with each deployment.
    Grub2,
    /// Somebody else reads the boot entries.
    None,
}

impl Loader {
    /// Returns the boot loader that a sysroot uses, told from what `/boot` holds.
    ///
    /// libostree turns its backend on by the link, so the link decides here, too.
    #[context("Finding the boot loader")]
    pub fn detect(boot: &Dir) -> Result<Self> {
        match boot.symlink_metadata_optional(GRUB_CFG_PATH)? {
            Some(found) if found.is_symlink() => Ok(Self::Grub2),
            Some(found) if found.is_file() => {
                let ours = boot.read_to_string(GRUB_CFG_PATH)?.starts_with(GRUB_CFG_MARK);
                Ok(if ours { Self::Grub } else { Self::None })
            }
            _ => Ok(Self::None),
        }
    }

    /// Writes what this boot loader needs of the repository's configuration; must precede the first deployment.
    #[context("Configuring the repository for the boot loader {self}")]
    pub fn configure(self, repo: &ostree::Repo) -> Result<()> {
        let config = repo.copy_config();
        config.set_boolean("sysroot", "readonly", true);
        config.set_boolean("sysroot", "bootprefix", true);
        match self {
            Self::Grub2 => remove_key(&config, "sysroot", "bootloader")?,
            Self::Grub | Self::None => config.set_string("sysroot", "bootloader", "none"),
        }
        repo.write_config(&config)?;
        Ok(())
    }

    /// Writes the boot loader's files to `boot` once the first deployment stands there.
    ///
    /// Called outside a booted host only, where libostree's backend cannot work.
    #[context("Installing the boot loader {self}")]
    pub fn install(self, boot: &Dir, place: Option<&BootPlace>) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Grub => {
                entry::check_safe(boot)?;
                boot.create_dir_all("grub")?;
                boot.atomic_write(GRUB_CFG_PATH, GRUB_CFG)?;
                Ok(())
            }
            Self::Grub2 => {
                let place = place.ok_or_else(|| {
                    Fault::new(
                        Kind::Unsupported,
                        "GRUB cannot find /boot: its file system has no UUID",
                    )
                    .hint("use `--bootloader grub`")
                })?;
                let loader = boot.open_dir("loader").context("Opening the boot entries")?;
                loader.atomic_write("grub.cfg", first_grub_cfg(boot, place)?)?;
                check_grub_cfg(boot)?;
                // Even a dangling link turns libostree's backend on, so it comes last.
                boot.create_dir_all("grub")?;
                boot.symlink("../loader/grub.cfg", GRUB_CFG_PATH)?;
                Ok(())
            }
        }
    }
}

/// Returns whether the script is this version's; also where another boot loader is, which has none.
pub fn is_current(boot: &Dir) -> Result<bool> {
    Ok(Loader::detect(boot)? != Loader::Grub || boot.read_to_string(GRUB_CFG_PATH)? == GRUB_CFG)
}

/// Replaces the script of an earlier version of this program; does nothing where another boot loader is.
#[context("Bringing the boot loader's script up to date")]
pub fn refresh(boot: &Dir) -> Result<()> {
    if !is_current(boot)? {
        boot.atomic_write(GRUB_CFG_PATH, GRUB_CFG)?;
    }
    Ok(())
}

impl FromStr for Loader {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text {
            "grub" => Ok(Self::Grub),
            "grub2" => Ok(Self::Grub2),
            "none" => Ok(Self::None),
            _ => Err(Fault::new(Kind::Usage, format!("`{text}` is not a boot loader"))
                .hint("use grub, grub2 or none")),
        }
    }
}

impl fmt::Display for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grub => "grub",
            Self::Grub2 => "grub2",
            Self::None => "none",
        })
    }
}

fn remove_key(config: &glib::KeyFile, group: &str, key: &str) -> Result<()> {
    match config.remove_key(group, key) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind::<glib::KeyFileError>(),
                Some(glib::KeyFileError::KeyNotFound | glib::KeyFileError::GroupNotFound)
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std_ext::cap_std::ambient_authority;

    fn boot() -> (tempfile::TempDir, Dir) {
        let temporary = tempfile::tempdir().unwrap();
        let boot = Dir::open_ambient_dir(temporary.path(), ambient_authority()).unwrap();
        boot.create_dir_all("loader.1/entries").unwrap();
        boot.symlink("loader.1", "loader").unwrap();
        boot.write(
            "loader.1/entries/ostree-1-debian.conf",
            "title Debian GNU/Linux 13 (trixie) (ostree:0)\nversion 1\noptions root=UUID=u rw ostree=/ostree/boot.1/debian/aa/0\n\
             linux /boot/ostree/debian-aa/vmlinuz-6.1\ninitrd /boot/ostree/debian-aa/initramfs-6.1.img\n",
        )
        .unwrap();
        (temporary, boot)
    }

    #[test]
    fn installed_loader_is_detected() {
        let place = BootPlace {
            uuid: "u".to_owned(),
            own: false,
        };
        for loader in [Loader::Grub, Loader::Grub2, Loader::None] {
            let (_temporary, boot) = boot();
            loader.install(&boot, Some(&place)).unwrap();
            assert_eq!(Loader::detect(&boot).unwrap(), loader);
            assert_eq!(loader.to_string().parse::<Loader>().unwrap(), loader);
        }
    }

    #[test]
    fn an_earlier_script_is_replaced_and_a_strange_one_is_not() {
        let (_temporary, boot) = boot();
        boot.create_dir("grub").unwrap();
        for (text, ours) in [("# mine\n", false), (&format!("{GRUB_CFG_MARK} x\n"), true)] {
            boot.write(GRUB_CFG_PATH, text).unwrap();
            refresh(&boot).unwrap();
            let expected = if ours { GRUB_CFG } else { text };
            assert_eq!(boot.read_to_string(GRUB_CFG_PATH).unwrap(), expected);
        }
        assert!(GRUB_CFG.starts_with(GRUB_CFG_MARK) && GRUB_CFG.contains("apt-ostree\\.initrd="));
    }

    #[test]
    fn static_script_knows_more_than_nine_entries() {
        for name in [" 99 ", " 10 9 ", " 2 1;"] {
            assert!(GRUB_CFG.contains(name), "{name}");
        }
    }
}
