//! `upgrade`: fetch what the followed reference names now, and make it boot next.

use crate::deployment::advance;
use crate::deployment::origin::Origin;
use crate::deployment::sysroot::Host;
use crate::layer::assemble::Network;
use crate::ops::layering::{Packages, SetUp};
use crate::ops::{Fetch, Next, Outcome, Target};
use crate::report::Report;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How to upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
    /// Cache only, download only, locked.
    #[serde(flatten)]
    pub fetch: Fetch,
    /// Packages on top at the same time.
    #[serde(flatten)]
    pub on_top: Packages,
    /// How packages are set up.
    #[serde(flatten)]
    pub set_up: SetUp,
    /// Accept an image that was created before the current one.
    pub allow_downgrade: bool,
    /// Do it though something else drives the updates of this host.
    pub bypass_driver: bool,
    /// Reboot when a new deployment was made.
    pub reboot: bool,
}

/// Makes the newest image of the followed reference boot next, with the requests on top of it met anew.
///
/// A request that can no longer be met fails before anything is staged. Until the new deployment is published the booted and the pending deployments are untouched. A digest that
/// `deploy` fixed is followed no longer.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let layering = options.set_up.layering_with(&options.on_top)?;
    let lock = host.lock("upgrade", options.target.patience(), report)?;
    let stateroot = host.stateroot(options.target.stateroot.as_deref())?;
    let merge = host.require_merge_deployment(&stateroot, "to upgrade")?;
    let origin = Origin::of(&merge)?;
    let reference = origin.require_reference()?;
    origin.refuse_custom()?;
    let image = advance::obtain(&lock, &reference, options.fetch.source(), report)
        .with_context(|| format!("Upgrading to {reference}"))?;
    if !options.allow_downgrade {
        advance::refuse_downgrade(host, &merge, &image, "accept it with `--allow-downgrade`")?;
    }
    origin.set_pinned_digest(None);
    options.fetch.conclude(
        &lock,
        Next {
            stateroot: &stateroot,
            origin: &origin,
            merge: Some(&merge),
            reference,
            image,
            network: Network::Fresh,
            unchanged: "No upgrade available.".to_owned(),
        },
        &layering,
        report,
    )
}
