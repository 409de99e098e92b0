//! The EFI system partition: Debian's signed shim and GRUB, and the stub that sends GRUB to `grub.cfg`.
//!
//! GRUB's signed image looks for its configuration in `EFI/debian`, which Debian's installers use too.

use super::MIB;
use crate::boot::loader::BootPlace;
use crate::fault::{Fault, Kind};
use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The contents of an EFI system partition: paths and bytes.
#[derive(Debug)]
pub struct EfiFiles {
    files: Vec<(String, Vec<u8>)>,
}

impl EfiFiles {
    /// Reads shim and GRUB from the first that has both: the tree `given`, the image's tree, this host.
    ///
    /// Fails with the names of the Debian packages when none has them.
    #[context("Finding the signed boot loader")]
    pub fn find(given: Option<&Path>, image: &Path) -> Result<Self> {
        let open = |path: &Path| {
            Dir::open_ambient_dir(path, ambient_authority())
                .with_context(|| format!("Opening {}", path.display()))
        };
        let mut trees = Vec::new();
        if let Some(given) = given {
            trees.push(open(given)?);
        }
        trees.push(open(image)?);
        trees.push(open(Path::new("/"))?);
        Self::find_in(&trees)
    }

    fn find_in(trees: &[Dir]) -> Result<Self> {
        let (suffix, upper, packages) = match std::env::consts::ARCH {
            "aarch64" => ("aa64", "AA64", "arm64"),
            _ => ("x64", "X64", "amd64"),
        };
        let grub_directory = match std::env::consts::ARCH {
            "aarch64" => "arm64-efi-signed",
            _ => "x86_64-efi-signed",
        };
        for tree in trees {
            let shim = read(tree, &format!("usr/lib/shim/shim{suffix}.efi.signed"))?;
            let grub = read(
                tree,
                &format!("usr/lib/grub/{grub_directory}/grub{suffix}.efi.signed"),
            )?;
            let (Some(shim), Some(grub)) = (shim, grub) else {
                continue;
            };
            let mut files = vec![
                (format!("EFI/BOOT/BOOT{upper}.EFI"), shim),
                (format!("EFI/BOOT/grub{suffix}.efi"), grub),
            ];
            // shim starts it to enrol a machine owner's key; absent on some releases.
            if let Some(manager) = read(tree, &format!("usr/lib/shim/mm{suffix}.efi.signed"))? {
                files.push((format!("EFI/BOOT/mm{suffix}.efi"), manager));
            }
            return Ok(Self { files });
        }
        Err(Fault::new(
            Kind::NotFound,
            "Neither the image nor this host has Debian's signed shim and GRUB",
        )
        .hint(format!("apt-get install shim-signed grub-efi-{packages}-signed"))
        .into())
    }

    /// Adds the stubs that send GRUB to `grub.cfg` on the file system with `/boot`.
    pub fn add_stub(&mut self, place: &BootPlace) {
        for directory in ["debian", "BOOT"] {
            self.files
                .push((format!("EFI/{directory}/grub.cfg"), place.stub().into_bytes()));
        }
    }

    /// Writes the files below `esp`, a mounted EFI system partition.
    #[context("Writing the EFI system partition")]
    pub fn write_to(&self, esp: &Dir) -> Result<()> {
        for (path, bytes) in &self.files {
            if let Some(parent) = Path::new(path).parent() {
                esp.create_dir_all(parent)?;
            }
            esp.write(path, bytes).with_context(|| path.clone())?;
        }
        Ok(())
    }

    /// Makes a FAT file system with the files and copies it into `disk` at `(offset, length)`.
    ///
    /// `scratch` takes the file system before it is copied: made in place it would be taken for a disk of its own.
    #[context("Making the EFI system partition")]
    pub fn write_partition(&self, disk: &Path, (offset, length): (u64, u64), scratch: &Path) -> Result<()> {
        let tree = scratch.join("esp");
        std::fs::create_dir(&tree)?;
        self.write_to(&Dir::open_ambient_dir(&tree, ambient_authority())?)?;
        let image = scratch.join("esp.img");
        Cmd::new("mkfs.vfat")
            .args(["-C", "-F", "32", "-n", "ESP"])
            .arg(&image)
            .arg((length / 1024).to_string())
            .run()?;
        Cmd::new("mcopy")
            .args(["-s", "-i"])
            .arg(&image)
            .arg(tree.join("EFI"))
            .arg("::/")
            .run()?;
        copy_data(&image, disk, offset)?;
        std::fs::remove_file(&image)?;
        std::fs::remove_dir_all(&tree)?;
        Ok(())
    }
}

fn read(tree: &Dir, path: &str) -> Result<Option<Vec<u8>>> {
    match tree.read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("Reading {path}")),
    }
}

/// Copies the file `from` into `to` at `offset`.
fn copy_data(from: &Path, to: &Path, offset: u64) -> Result<()> {
    let mut source = File::open(from)?;
    let length = source.seek(SeekFrom::End(0))?;
    let target = File::options().write(true).open(to)?;
    let sparse = target.metadata()?.is_file();
    let mut buffer = vec![0; usize::try_from(MIB)?];
    let mut done = 0;
    while done < length {
        let count = source.read_at(&mut buffer, done)?;
        if count == 0 {
            break;
        }
        // A disk image was made for this and holds zeros where nothing was written.
        if !sparse || buffer[..count].iter().any(|byte| *byte != 0) {
            target.write_all_at(&buffer[..count], offset + done)?;
        }
        done += u64::try_from(count)?;
    }
    target.sync_data()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_packages_are_named() {
        let temporary = tempfile::tempdir().unwrap();
        let empty = Dir::open_ambient_dir(temporary.path(), ambient_authority()).unwrap();
        let error = EfiFiles::find_in(&[empty]).unwrap_err();
        let fault = Fault::find(&error).unwrap();
        assert!(fault.hint.as_ref().unwrap().contains("shim-signed"), "{fault:?}");
    }

    #[test]
    fn the_image_goes_before_the_host() {
        let temporary = tempfile::tempdir().unwrap();
        let tree = |name: &str| {
            let path = temporary.path().join(name);
            std::fs::create_dir_all(path.join("usr/lib/shim")).unwrap();
            std::fs::create_dir_all(path.join("usr/lib/grub/x86_64-efi-signed")).unwrap();
            std::fs::write(path.join("usr/lib/shim/shimx64.efi.signed"), name).unwrap();
            std::fs::write(
                path.join("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
                name,
            )
            .unwrap();
            Dir::open_ambient_dir(path, ambient_authority()).unwrap()
        };
        if std::env::consts::ARCH != "x86_64" {
            return;
        }
        let mut found = EfiFiles::find_in(&[tree("image"), tree("host")]).unwrap();
        found.add_stub(&BootPlace {
            uuid: "1-2".to_owned(),
            own: true,
        });
        let esp = tree("esp");
        found.write_to(&esp).unwrap();
        assert_eq!(esp.read_to_string("EFI/BOOT/BOOTX64.EFI").unwrap(), "image");
        assert_eq!(
            esp.read_to_string("EFI/debian/grub.cfg").unwrap(),
            "search.fs_uuid 1-2 root\nset prefix=($root)/grub\nconfigfile $prefix/grub.cfg\n"
        );
    }
}
