//! `provision to-disk`: a whole disk, on a block device or as a file.

use super::scratch::Scratch;
use super::sysroot::{self, Place, Written};
use super::{Installation, Provisioned};
use crate::boot::loader::{BootPlace, Loader};
use crate::compose::disk::{self, EfiFiles, Filesystem, Layout, Target};
use crate::fault::{Fault, Kind};
use crate::host::loop_device::{LoopDevice, Mount};
use crate::host::runner::Cmd;
use crate::host::{checkpoint, environment};
use crate::report::Report;
use anyhow::{Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Size of a disk image for which none was given; the file takes only what is written.
const DEFAULT_SIZE: u64 = 10 << 30;

/// Which disk to make.
#[derive(Clone, Debug)]
pub struct DiskRequest {
    /// A block device, or the name of a file.
    pub target: PathBuf,
    /// The root file system.
    pub filesystem: Filesystem,
    /// The size of a file in bytes; a block device has its own.
    pub size: Option<u64>,
    /// The format of a file.
    pub format: Format,
    /// Whether what the target holds may be lost.
    pub wipe: bool,
}

/// The format of a disk image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The disk byte for byte, sparse.
    #[default]
    Raw,
    /// QEMU's own.
    Qcow2,
}

impl FromStr for Format {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            _ => Err(
                Fault::new(Kind::Usage, format!("`{text}` is not a format of a disk image"))
                    .hint("use raw or qcow2"),
            ),
        }
    }
}

/// Makes a disk that firmware boots.
///
/// A file appears under its name when it is complete, and not before. Must run in a mount namespace of its own when
/// a file system is to be mounted, so that an interrupted run leaves nothing mounted.
pub fn to_disk(
    installation: &Installation,
    request: &DiskRequest,
    report: &dyn Report,
) -> Result<Provisioned> {
    environment::require_root("provision")?;
    let target = Target::open(&request.target, request.wipe)?;
    require_programs(request)?;
    match &target {
        Target::Device { path, size } => {
            if request.size.is_some() || request.format != Format::Raw {
                return Err(Fault::new(
                    Kind::Usage,
                    format!(
                        "{} is a block device, which has its own size and no format",
                        path.display()
                    ),
                )
                .hint("leave out `--size` and `--format`")
                .into());
            }
            // The name only says where to work and what to lock; nothing of the sysroot lies there.
            let scratch = Scratch::new(&std::env::temp_dir().join(path.file_name().unwrap_or_default()))?;
            make_mounted(installation, request.filesystem, path, *size, &scratch, report)
        }
        Target::File { path } => {
            let scratch = Scratch::new(path)?;
            let disk = scratch.path().join("disk.raw");
            let size = request.size.unwrap_or(DEFAULT_SIZE);
            disk::require_size(size)?;
            File::create(&disk)?
                .set_len(size)
                .with_context(|| format!("Making a file of {size} bytes"))?;
            let provisioned = match request.filesystem {
                Filesystem::Ext4 => make_unmounted(installation, &disk, size, &scratch, report)?,
                other => make_mounted(installation, other, &disk, size, &scratch, report)?,
            };
            checkpoint::reach("provision-made")?;
            finish(&disk, path, request.format, report)?;
            Ok(provisioned)
        }
    }
}

/// Makes the sysroot in a directory and the file system from it: neither a mount nor a loop device is needed.
fn make_unmounted(
    installation: &Installation,
    disk: &Path,
    size: u64,
    scratch: &Scratch,
    report: &dyn Report,
) -> Result<Provisioned> {
    let layout = Layout::of(size);
    let boot = new_boot_place()?;
    let root = scratch.path().join("sysroot");
    std::fs::create_dir(&root)?;
    let written = sysroot::write(installation, &root, &place(&boot), report)?;
    let efi = efi_files(installation, &written, &boot)?;
    let needed = disk::tree_size(&root)?;
    if needed > layout.root.1 / 10 * 9 {
        return Err(Fault::new(
            Kind::NoSpace,
            format!(
                "The image needs {} MiB, which do not fit into a root of {} MiB",
                needed >> 20,
                layout.root.1 >> 20
            ),
        )
        .hint("give a larger `--size`")
        .into());
    }
    let step = report.step("Making the disk");
    layout.write(disk)?;
    Filesystem::make_ext4_from(disk, layout.root, &boot.uuid, &root)?;
    write_efi(efi.as_ref(), disk, layout, scratch)?;
    step.done("Made the disk");
    Ok(written.provisioned)
}

/// Makes the file system first, mounts it and makes the sysroot in there.
fn make_mounted(
    installation: &Installation,
    filesystem: Filesystem,
    disk: &Path,
    size: u64,
    scratch: &Scratch,
    report: &dyn Report,
) -> Result<Provisioned> {
    let layout = Layout::of(size);
    let boot = new_boot_place()?;
    let step = report.step("Partitioning the disk");
    layout.write(disk)?;
    let device = LoopDevice::attach(disk, layout.root.0, layout.root.1)?;
    filesystem.make(device.path(), &boot.uuid)?;
    step.done("Partitioned the disk");
    let root = scratch.path().join("sysroot");
    std::fs::create_dir(&root)?;
    let mount = Mount::new(device.path(), &root, filesystem.name())?;
    let written = sysroot::write(installation, &root, &place(&boot), report)?;
    let efi = efi_files(installation, &written, &boot)?;
    mount.unmount()?;
    std::fs::remove_dir(&root)?;
    drop(device);
    write_efi(efi.as_ref(), disk, layout, scratch)?;
    Ok(written.provisioned)
}

fn new_boot_place() -> Result<BootPlace> {
    Ok(BootPlace {
        uuid: disk::new_uuid()?,
        own: false,
    })
}

fn place(boot: &BootPlace) -> Place {
    Place {
        root: Some(format!("UUID={}", boot.uuid)),
        boot: Some(boot.clone()),
    }
}

/// Reads the files for the EFI system partition; none where somebody else brings the boot loader.
fn efi_files(installation: &Installation, written: &Written, boot: &BootPlace) -> Result<Option<EfiFiles>> {
    if installation.loader == Loader::None {
        return Ok(None);
    }
    let mut files = EfiFiles::find(installation.boot_files.as_deref(), &written.deployment)?;
    files.add_stub(boot);
    Ok(Some(files))
}

fn write_efi(files: Option<&EfiFiles>, disk: &Path, layout: Layout, scratch: &Scratch) -> Result<()> {
    match files {
        Some(files) => files.write_partition(disk, layout.esp, scratch.path()),
        None => Ok(()),
    }
}

/// Gives the finished disk its format and its name.
fn finish(disk: &Path, target: &Path, format: Format, report: &dyn Report) -> Result<()> {
    let finished = match format {
        Format::Raw => disk.to_owned(),
        Format::Qcow2 => {
            let step = report.step("Converting the disk");
            let converted = disk.with_extension("qcow2");
            Cmd::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "qcow2"])
                .arg(disk)
                .arg(&converted)
                .run()?;
            step.done("Converted the disk");
            converted
        }
    };
    File::open(&finished)?.sync_all()?;
    std::fs::rename(&finished, target).with_context(|| format!("Naming the disk {}", target.display()))
}

/// Fails when a program that comes into play late is missing, before anything is fetched.
fn require_programs(request: &DiskRequest) -> Result<()> {
    let mut programs = vec![
        ("sfdisk", "fdisk"),
        ("mkfs.vfat", "dosfstools"),
        ("mcopy", "mtools"),
    ];
    programs.push(match request.filesystem {
        Filesystem::Ext4 => ("mkfs.ext4", "e2fsprogs"),
        Filesystem::Xfs => ("mkfs.xfs", "xfsprogs"),
        Filesystem::Btrfs => ("mkfs.btrfs", "btrfs-progs"),
    });
    if request.format == Format::Qcow2 {
        programs.push(("qemu-img", "qemu-utils"));
    }
    for (program, package) in programs {
        if !environment::has_program(program) {
            return Err(Fault::new(
                Kind::NotFound,
                format!("The program `{program}` is not installed"),
            )
            .hint(format!("apt-get install {package}"))
            .into());
        }
    }
    Ok(())
}
