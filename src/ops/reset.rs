//! `reset`: drop what stands on top of the image.

use crate::deployment::sysroot::Host;
use crate::layer::assemble::Network;
use crate::ops::layering::{self, Packages, SetUp};
use crate::ops::{Fetch, Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What to drop; all of it where nothing is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Packages on top.
    pub overlays: bool,
    /// Overrides.
    pub overrides: bool,
    /// The initramfs made on this host, and the files of `/etc` in it.
    pub initramfs: bool,
    /// Packages on top at the same time.
    #[serde(flatten)]
    pub on_top: Packages,
    /// How packages are set up.
    #[serde(flatten)]
    pub set_up: SetUp,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
    /// Stage it locked.
    pub lock_finalization: bool,
    /// Reboot when a new deployment was made.
    pub reboot: bool,
}

/// Drops what was asked for; the registry is not asked.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let all = !(options.overlays || options.overrides || options.initramfs);
    let mut layering = options.set_up.layering_with(&options.on_top)?;
    layering.change.uninstall_all = all || options.overlays;
    layering.change.reset_all = all || options.overrides;
    layering.change.reset_initramfs = all || options.initramfs;
    let fetch = Fetch {
        lock_finalization: options.lock_finalization,
        ..Fetch::default()
    };
    let how = (Network::for_change(!options.on_top.install.is_empty()), fetch);
    layering::change(host, "reset", &options.target, &layering, how, report)
}
