//! `provision`: make a host out of an empty file system or a whole disk.
//!
//! Both ways end in `sysroot::write`: a new sysroot with one deployment of the image and the files of its boot
//! loader. They differ in where the sysroot lies meanwhile and in who makes the partitions.

mod disk;
mod filesystem;
mod scratch;
mod sysroot;

pub use disk::{DiskRequest, Format, to_disk};
pub use filesystem::{FilesystemRequest, to_filesystem};

use crate::boot::loader::Loader;
use crate::image::policy::Policy;
use crate::image::reference::{self, ImageReference};
use crate::report::Report;
use anyhow::Result;
use std::path::PathBuf;

/// What is installed, wherever it goes.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Where the image is read from now.
    pub image: ImageReference,
    /// What the host follows afterwards.
    pub followed: ImageReference,
    /// The stateroot to make.
    pub stateroot: String,
    /// Kernel arguments besides those for the root file system and the image's own.
    pub kernel_arguments: Vec<String>,
    /// What makes the boot menu.
    pub loader: Loader,
    /// A tree with Debian's signed shim and GRUB, looked at before the image and this host.
    pub boot_files: Option<PathBuf>,
}

/// What was installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioned {
    /// The commit that boots.
    pub commit: String,
    /// The digest of the image's manifest.
    pub manifest_digest: String,
    /// What the host follows.
    pub followed: ImageReference,
}

/// Reads the references that a user typed: where the image is read from and, where given, what is followed later.
pub fn resolve(
    image: &str,
    followed: Option<&str>,
    report: &dyn Report,
) -> Result<(ImageReference, ImageReference)> {
    let policy = Policy::load()?;
    let read = |text: &str| -> Result<ImageReference> {
        let resolved = reference::resolve(text, &policy)?;
        if let Some(note) = &resolved.chosen_form_note {
            report.note(note);
        }
        Ok(resolved.reference)
    };
    let image = read(image)?;
    let followed = match followed {
        Some(text) => read(text)?,
        None => image.clone(),
    };
    Ok((image, followed))
}
