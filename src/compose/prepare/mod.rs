//! `container prepare`: turns a plain Debian root into one that an OSTree host can boot.
//!
//! The result, as far as it differs from Debian's own layout:
//!
//! ```text
//! /boot                               empty
//! /usr/lib/modules/K/vmlinuz          the one kernel, with initramfs.img beside it
//! /usr/lib/sysimage/dpkg              dpkg's database and apt's extended_states; /var/lib/dpkg is a link to it
//! /usr/lib/sysimage/apt-ostree        what the initramfs was made from
//! /home /root /srv /mnt /opt          links into /var; /media a link to /run/media
//! /usr/lib/opt                        what packages put into /opt
//! /usr/share/factory/var              files that packages ship in /var; tmpfiles.d copies them on the host
//! /var                                directories and links only, all of them declared in tmpfiles.d
//! ```
//!
//! Every step looks before it acts, so a second run changes nothing, and a run after a derived build mends what
//! that build left behind. An interrupted run is completed by the next one.

mod accounts;
mod database;
mod dracut;
mod identity;
mod kernel;
mod keys;
mod layout;
mod modules;
mod secrets;
mod seed;
mod services;
mod var;

pub(crate) use identity::PACKAGE_DEBRIS;
pub(crate) use secrets::{SECRETS, is_host_key};
pub(crate) use services::{APT_UNITS, enablement_links};

use super::rootfs;
use crate::report::Report;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use std::path::{Path, PathBuf};

/// What to prepare.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Where the root directory lies, for the programs that are started in it.
    pub path: PathBuf,
    /// A whole image, or packages over one.
    pub scope: Scope<'a>,
}

/// How much of the root is new.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Everything: a build of an image, whose author is there to see what is reported.
    Image,
    /// Packages that were laid over an image; what nothing touched is not looked at again.
    Layer(Layer<'a>),
}

/// Packages laid over an image.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// The image's tree, with `/etc` at `usr/etc`.
    pub base: &'a Dir,
    /// The upper directory of the overlay in which the packages were unpacked.
    pub upper: &'a Dir,
    /// The package that somebody asked for and that brings a kernel.
    pub kernel_package: Option<&'a str>,
    /// Whether a package asked for a new initramfs.
    pub initramfs_wanted: bool,
    /// More arguments for dracut, when the initramfs is to be made whatever changed.
    pub regenerate: Option<&'a Regenerate>,
}

/// How an initramfs of this host's own is made.
#[derive(Clone, Debug, Default)]
pub struct Regenerate {
    /// More arguments for dracut.
    pub arguments: Vec<String>,
    /// The host's `/etc`, for the settings of dracut in it; without one, the image's.
    pub etc: Option<PathBuf>,
}

impl Layer<'_> {
    /// Returns whether the packages changed anything at or below `path`.
    fn touches(&self, path: impl AsRef<Path>) -> Result<bool> {
        Ok(rootfs::look(self.upper, path)?.is_some())
    }
}

/// What [`run`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Release of the one kernel.
    pub kernel: String,
    /// Whether an initramfs was made; otherwise the one in the image still fits.
    pub initramfs_made: bool,
}

/// Makes the root bootable.
///
/// Fails with a fault when the root is no Debian, or has no kernel, several kernels or no dracut with the ostree
/// module; what was done until then is valid and the next run goes on from there.
#[context("Preparing the image")]
pub fn run(root: &Dir, options: &Options<'_>, report: &dyn Report) -> Result<Prepared> {
    let step = report.step("Laying out the root directory");
    layout::place(root, report)?;
    if let Scope::Layer(layer) = &options.scope {
        layout::tell_additions(root, layer.base, report)?;
    }
    database::relocate(root)?;
    let kernel = kernel::place(root, &options.scope, report)?;
    services::configure(root)?;
    identity::strip(root, &options.scope)?;
    secrets::strip(root)?;
    if let Scope::Layer(layer) = &options.scope {
        keys::strip(root, layer.base, report)?;
    }
    step.done("Laid out the root directory");
    modules::index(root, options, &kernel, report)?;
    let initramfs_made = dracut::make(root, options, &kernel, report)?;
    let step = report.step("Emptying /var into tmpfiles.d and the factory");
    var::empty(root, report)?;
    // Behind it: files of the factory have owners as well.
    accounts::declare(root, &options.scope)?;
    layout::link_etc(root, &options.scope)?;
    layout::clear_scratch(root)?;
    step.done("Emptied /var into tmpfiles.d and the factory");
    Ok(Prepared {
        kernel,
        initramfs_made,
    })
}
