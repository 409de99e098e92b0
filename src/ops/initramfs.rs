//! `initramfs`: where the initramfs of the next boot comes from.

use crate::deployment::origin::Origin;
use crate::deployment::sysroot::Host;
use crate::layer::assemble::Network;
use crate::layer::change::{Change, Initramfs};
use crate::ops::layering::{self, Layering};
use crate::ops::{Fetch, Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// dracut on this host; otherwise the image.
    pub enable: bool,
    /// The image; says so where `enable` is not set, and nothing else.
    pub disable: bool,
    /// Arguments for dracut.
    pub arg: Vec<String>,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
    /// Stage it locked.
    pub lock_finalization: bool,
    /// Reboot when a new deployment was made.
    pub reboot: bool,
}

/// Returns the arguments for dracut when the initramfs is made on this host. Needs neither root nor the lock.
pub fn show(host: &Host, stateroot: Option<&str>) -> Result<Option<Vec<String>>> {
    let stateroot = host.stateroot(stateroot)?;
    let Some(merge) = host.merge_deployment(&stateroot) else {
        return Ok(None);
    };
    let intent = Origin::of(&merge)?.intent()?;
    Ok(intent.regenerate_initramfs.then_some(intent.initramfs_args))
}

/// Makes a deployment with the other initramfs boot next.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let initramfs = if options.enable {
        Initramfs::Regenerated(options.arg.clone())
    } else {
        Initramfs::OfImage
    };
    let layering = Layering {
        change: Change {
            initramfs: Some(initramfs),
            ..Change::default()
        },
        ..Layering::default()
    };
    let fetch = Fetch {
        lock_finalization: options.lock_finalization,
        ..Fetch::default()
    };
    let how = (Network::Packages, fetch);
    layering::change(host, "initramfs", &options.target, &layering, how, report)
}
