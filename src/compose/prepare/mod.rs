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
mod layout;
mod services;
mod var;

pub(crate) use identity::{PACKAGE_DEBRIS, SECRETS, is_host_key};
pub(crate) use services::{APT_UNITS, enablement_links};

use super::rootfs;
use crate::report::Report;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use std::path::PathBuf;

/// What to prepare.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the root directory lies, for the programs that are started in it.
    pub path: PathBuf,
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
pub fn run(root: &Dir, options: &Options, report: &dyn Report) -> Result<Prepared> {
    report.step("Laying out the root directory");
    layout::place(root, report)?;
    database::relocate(root)?;
    let kernel = kernel::place(root, report)?;
    services::configure(root)?;
    identity::strip(root)?;
    accounts::declare(root)?;
    dracut::configure(root, &options.path)?;
    let initramfs_made = dracut::make(root, &options.path, &kernel, report)?;
    report.step("Emptying /var into tmpfiles.d and the factory");
    var::empty(root, report)?;
    layout::link_etc(root)?;
    layout::clear_scratch(root)?;
    Ok(Prepared {
        kernel,
        initramfs_made,
    })
}
