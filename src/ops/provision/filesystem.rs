//! `provision to-filesystem`: into an empty directory, normally a mounted file system.

use super::sysroot::{self, Place, no_uuid};
use super::{Installation, Provisioned};
use crate::boot::loader::{BootPlace, Loader};
use crate::compose::disk::{EfiFiles, Mounted};
use crate::fault::{Fault, Kind};
use crate::host::environment;
use crate::report::Report;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// `f_type` of FAT.
const MSDOS_MAGIC: u32 = 0x4d44;

/// Where to install to.
#[derive(Clone, Debug)]
pub struct FilesystemRequest {
    /// An empty directory.
    pub root: PathBuf,
    /// What `root=` shall say, for example `UUID=...` or `/dev/vda2`; the file system's UUID where not given.
    pub root_mount_spec: Option<String>,
}

/// Makes an empty directory into a bootable sysroot.
///
/// `lost+found` and an empty `boot/efi` may be there. Where `boot/efi` is a mounted EFI system partition it gets
/// Debian's signed shim and GRUB. Fails before anything is written when the directory holds something else.
pub fn to_filesystem(
    installation: &Installation,
    request: &FilesystemRequest,
    report: &dyn Report,
) -> Result<Provisioned> {
    environment::require_root("provision")?;
    let root = request
        .root
        .canonicalize()
        .with_context(|| format!("Opening {}", request.root.display()))?;
    require_empty(&root)?;
    let boot = root.join("boot");
    if boot.is_dir() {
        require_links(&boot, filesystem_type(&boot)?)?;
    }
    let place = place(&root, request)?;
    let efi = Mounted::at(&root.join("boot/efi"))?;
    if efi.is_some() && place.boot.is_none() && installation.loader != Loader::None {
        return Err(no_uuid(&root).into());
    }
    let written = sysroot::write(installation, &root, &place, report)?;
    match (installation.loader, efi, &place.boot) {
        (Loader::None, ..) => {}
        (_, Some(_), Some(boot)) => {
            let mut files = EfiFiles::find(installation.boot_files.as_deref(), &written.deployment)?;
            files.add_stub(boot);
            files.write_to(&Dir::open_ambient_dir(
                root.join("boot/efi"),
                ambient_authority(),
            )?)?;
        }
        _ => report.note(&format!(
            "No EFI system partition is mounted at {}, so firmware does not find the boot loader by itself.",
            root.join("boot/efi").display()
        )),
    }
    Ok(written.provisioned)
}

fn place(root: &Path, request: &FilesystemRequest) -> Result<Place> {
    let own_root = Mounted::at(root)?.and_then(|mounted| mounted.uuid);
    let spec = match (&request.root_mount_spec, &own_root) {
        (Some(spec), _) => spec.clone(),
        (None, Some(uuid)) => format!("UUID={uuid}"),
        (None, None) => return Err(no_uuid(root).into()),
    };
    let boot = root.join("boot");
    let own = boot.is_dir() && std::fs::metadata(&boot)?.dev() != std::fs::metadata(root)?.dev();
    let uuid = if own {
        Mounted::at(&boot)?.and_then(|mounted| mounted.uuid)
    } else {
        own_root.or_else(|| spec.strip_prefix("UUID=").map(str::to_owned))
    };
    Ok(Place {
        root: Some(spec),
        boot: uuid.map(|uuid| BootPlace { uuid, own }),
    })
}

/// Fails when the directory holds anything that is not part of making it.
fn require_empty(root: &Path) -> Result<()> {
    for (folder, allowed) in [
        ("", &["lost+found", "boot"][..]),
        ("boot", &["lost+found", "efi"][..]),
        ("boot/efi", &[][..]),
    ] {
        let path = root.join(folder);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !folder.is_empty() => continue,
            Err(error) => return Err(error).with_context(|| format!("Reading {}", path.display())),
        };
        for entry in entries {
            let name = entry?.file_name();
            if !allowed.iter().any(|allowed| name == *allowed) {
                let found = path.join(name);
                return Err(Fault::new(
                    Kind::Invalid,
                    format!("{} is not empty: it holds {}", root.display(), found.display()),
                )
                .hint("make and mount a new file system, or empty this one")
                .into());
            }
        }
    }
    Ok(())
}

/// Fails when `/boot` is on FAT: libostree swaps links there.
fn require_links(boot: &Path, kind: u32) -> Result<(), Fault> {
    if kind != MSDOS_MAGIC {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Unsupported,
        format!(
            "{} is a FAT file system, on which libostree cannot swap boot entries",
            boot.display()
        ),
    )
    .hint("mount the EFI system partition at boot/efi and use ext4, xfs or btrfs for /boot"))
}

fn filesystem_type(path: &Path) -> Result<u32> {
    let found = rustix::fs::statfs(path).with_context(|| format!("Looking at {}", path.display()))?;
    // The kernel's magic numbers have 32 bits; only the width of the field differs between architectures.
    Ok(u32::try_from(found.f_type).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fat_cannot_hold_the_boot_entries() {
        let error = require_links(Path::new("/x/boot"), MSDOS_MAGIC).unwrap_err();
        assert!(error.message.contains("/x/boot"), "{error}");
        let temporary = tempfile::tempdir().unwrap();
        require_links(temporary.path(), filesystem_type(temporary.path()).unwrap()).unwrap();
    }

    #[test]
    fn only_an_empty_directory_is_taken() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        require_empty(root).unwrap();
        std::fs::create_dir_all(root.join("boot/efi")).unwrap();
        std::fs::create_dir(root.join("lost+found")).unwrap();
        require_empty(root).unwrap();
        for name in ["boot/efi/EFI", "boot/grub", "home"] {
            std::fs::create_dir(root.join(name)).unwrap();
            let error = require_empty(root).unwrap_err();
            assert!(Fault::find(&error).unwrap().message.contains(name), "{error:#}");
            std::fs::remove_dir(root.join(name)).unwrap();
        }
    }
}
