//! `provision` on the command line.

use crate::boot::loader::Loader;
use crate::compose::disk::Filesystem;
use crate::deployment::sysroot::DEFAULT_STATEROOT;
use crate::host::mounts;
use crate::ops::provision::{self, DiskRequest, FilesystemRequest, Format, Installation, Provisioned};
use crate::report::Report;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::PathBuf;

/// What to install an image on.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install an image on a mounted file system
    ///
    /// For installers that partition the disk themselves. The directory must be empty, and nothing outside of
    /// it is touched.
    #[command(after_help = "\
Examples:
  apt-ostree provision to-filesystem --image registry.example/os:13 /mnt
      Install on what is mounted at /mnt
  apt-ostree provision to-filesystem --image local://my-os --karg quiet /mnt
      Install an own image, with a kernel argument")]
    ToFilesystem(ToFilesystem),
    /// Install an image on a whole disk
    ///
    /// Makes the partition table, the boot partition and the root file system. What is on the disk is only
    /// overwritten with `--wipe`.
    #[command(after_help = "\
Examples:
  apt-ostree provision to-disk --image registry.example/os:13 /dev/vda
      Install on a disk
  apt-ostree provision to-disk --image local://my-os --format qcow2 my.qcow2
      Make a disk for a virtual machine")]
    ToDisk(ToDisk),
}

/// What both ways of installing take.
#[derive(Args, Debug)]
pub(crate) struct What {
    /// Install this image
    #[arg(long, value_name = "REF")]
    image: String,
    /// Let the host follow this reference afterwards instead of the one it was installed from
    #[arg(long, value_name = "REF")]
    target_imgref: Option<String>,
    /// Name the directory that keeps the host's deployments and its /var [default: debian]
    #[arg(long, value_name = "NAME")]
    stateroot: Option<String>,
    /// Add a kernel argument; may be given several times
    #[arg(long = "karg", value_name = "K")]
    kernel_arguments: Vec<String>,
    /// How the boot menu is made: grub (reads the boot entries), grub2 (grub-mkconfig at each change) or none
    #[arg(long, value_name = "LOADER", default_value_t = Loader::Grub)]
    bootloader: Loader,
    /// Look for Debian's signed shim and GRUB below DIR before looking in the image and on this host
    #[arg(long, value_name = "DIR")]
    boot_files: Option<PathBuf>,
}

/// Arguments of `provision to-filesystem`.
#[derive(Args, Debug)]
pub(crate) struct ToFilesystem {
    #[command(flatten)]
    what: What,
    /// Let the kernel find the root by this, for example UUID=... or /dev/vda2 [default: the UUID of ROOT]
    #[arg(long, value_name = "S")]
    root_mount_spec: Option<String>,
    /// An empty directory on which the new root file system is mounted
    root: PathBuf,
}

/// Arguments of `provision to-disk`.
#[derive(Args, Debug)]
pub(crate) struct ToDisk {
    #[command(flatten)]
    what: What,
    /// The root file system: ext4, xfs or btrfs
    #[arg(long, value_name = "TYPE", default_value_t = Filesystem::Ext4)]
    filesystem: Filesystem,
    /// The size of a disk image, such as 8G [default: 10G]
    #[arg(long, value_name = "S", value_parser = parse_size)]
    size: Option<u64>,
    /// The format of a disk image: raw or qcow2
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    format: Format,
    /// Overwrite what the target holds
    #[arg(long)]
    wipe: bool,
    /// A block device, or the name of a disk image to make
    target: PathBuf,
}

impl What {
    fn installation(&self, report: &dyn Report) -> Result<Installation> {
        let (image, followed) = provision::resolve(&self.image, self.target_imgref.as_deref(), report)?;
        Ok(Installation {
            image,
            followed,
            stateroot: self
                .stateroot
                .clone()
                .unwrap_or_else(|| DEFAULT_STATEROOT.to_owned()),
            kernel_arguments: self.kernel_arguments.clone(),
            loader: self.bootloader,
            boot_files: self.boot_files.clone(),
        })
    }
}

/// Runs the command and returns the exit status.
pub(crate) fn run(command: &Command, out: &mut dyn Write, report: &dyn Report) -> Result<u8> {
    // Somebody without root fails later, with a clearer error than the kernel's.
    if rustix::process::geteuid().is_root() {
        mounts::enter_private()?;
    }
    let (provisioned, place) = match command {
        Command::ToFilesystem(arguments) => {
            let request = FilesystemRequest {
                root: arguments.root.clone(),
                root_mount_spec: arguments.root_mount_spec.clone(),
            };
            let installation = arguments.what.installation(report)?;
            (
                provision::to_filesystem(&installation, &request, report)?,
                &arguments.root,
            )
        }
        Command::ToDisk(arguments) => {
            let request = DiskRequest {
                target: arguments.target.clone(),
                filesystem: arguments.filesystem,
                size: arguments.size,
                format: arguments.format,
                wipe: arguments.wipe,
            };
            let installation = arguments.what.installation(report)?;
            (
                provision::to_disk(&installation, &request, report)?,
                &arguments.target,
            )
        }
    };
    let Provisioned {
        manifest_digest,
        followed,
        ..
    } = provisioned;
    writeln!(out, "Installed {manifest_digest} on {}", place.display())?;
    writeln!(out, "The host follows {followed}")?;
    Ok(0)
}

/// Reads a number of bytes with an optional K, M, G or T (powers of 1024).
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        unit => return Err(format!("`{unit}` is not a unit; use K, M, G or T")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("`{text}` is not a size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("4096", Some(4096)),
            ("8G", Some(8 << 30)),
            ("512MiB", Some(512 << 20)),
            ("8X", None),
            ("G", None),
            ("99999999999T", None),
        ] {
            assert_eq!(parse_size(text).ok(), expected, "{text}");
        }
    }
}
