//! `uninstall`: fewer packages on top of the same image.

use crate::deployment::sysroot::Host;
use crate::layer::assemble::Network;
use crate::ops::layering::{self, Packages, SetUp};
use crate::ops::{Fetch, Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What to take away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Packages on top, by name or by the id of a local package.
    pub packages: Vec<String>,
    /// Take all of them away.
    pub all: bool,
    /// Packages to put on top as well.
    pub install: Vec<String>,
    /// A package that is not requested is no mistake.
    pub idempotent: bool,
    /// A request that the image provides already is no mistake.
    pub allow_inactive: bool,
    /// How packages are set up.
    #[serde(flatten)]
    pub set_up: SetUp,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
    /// How far to go, locked.
    #[serde(flatten)]
    pub fetch: Fetch,
    /// Reboot when a new deployment was made.
    pub reboot: bool,
}

/// Takes packages on top away from the deployment that boots next; the registry is not asked.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let mut layering = options.set_up.layering_with(&Packages {
        install: options.install.clone(),
        uninstall: options.packages.clone(),
    })?;
    layering.change.uninstall_all = options.all;
    layering.change.idempotent = options.idempotent;
    layering.allow_inactive = options.allow_inactive;
    let how = (Network::for_change(!options.install.is_empty()), options.fetch);
    layering::change(host, "uninstall", &options.target, &layering, how, report)
}
