//! `install`: other packages on top of the same image.

use crate::deployment::sysroot::Host;
use crate::layer::assemble::Network;
use crate::layer::intent::ConflictMode;
use crate::ops::layering::{self, SetUp, Wanted};
use crate::ops::{Fetch, Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What to put on top.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Packages by name, path or address.
    pub packages: Vec<String>,
    /// Packages on top to take away as well.
    pub uninstall: Vec<String>,
    /// A request that is there already is no mistake.
    pub idempotent: bool,
    /// A request that the image provides already is no mistake.
    pub allow_inactive: bool,
    /// Files of packages may take the place of other packages' files, as with the mode `keep-latest`.
    pub force_replacefiles: bool,
    /// How packages are set up.
    #[serde(flatten)]
    pub set_up: SetUp,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
    /// Cache only, how far to go, locked.
    #[serde(flatten)]
    pub fetch: Fetch,
    /// Reboot when a new deployment was made.
    pub reboot: bool,
}

/// Puts packages on top of the image of the deployment that boots next; the registry is not asked.
///
/// Fails before anything is published when a request cannot be met.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let wanted = Wanted::parse(&options.packages)?;
    let mut layering = options.set_up.layering();
    layering.change.install = wanted.requests;
    layering.install_files = wanted.files;
    layering.change.uninstall.clone_from(&options.uninstall);
    if options.force_replacefiles {
        layering.change.conflicts = Some(ConflictMode::KeepLatest);
    }
    layering.change.idempotent = options.idempotent;
    layering.allow_inactive = options.allow_inactive;
    let how = (Network::Usual, options.fetch);
    layering::change(host, "install", &options.target, &layering, how, report)
}
