//! `upgrade`: fetch what the followed reference names now, and make it boot next.

use crate::deployment::advance;
use crate::deployment::origin::Origin;
use crate::deployment::sysroot::Host;
use crate::layer::assemble::Network;
use crate::ops::layering::Layering;
use crate::ops::{Fetch, Next, Outcome, Target};
use crate::report::Report;
use anyhow::{Context, Result};

/// How to upgrade.
#[derive(Clone, Debug)]
pub struct Options {
    /// Stateroot and patience.
    pub target: Target,
    /// Cache only, download only, locked.
    pub fetch: Fetch,
    /// What changes on top of the image at the same time.
    pub layering: Layering,
    /// Accept an image that was created before the current one.
    pub allow_downgrade: bool,
}

/// Makes the newest image of the followed reference boot next, with the requests on top of it met anew.
///
/// A request that can no longer be met fails before anything is staged. Until the new deployment is published the booted and the pending deployments are untouched. A digest that
/// `deploy` fixed is followed no longer.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let lock = host.lock("upgrade", options.target.patience, report)?;
    let stateroot = host.stateroot(options.target.stateroot.as_deref())?;
    let merge = host.require_merge_deployment(&stateroot, "to upgrade")?;
    let origin = Origin::of(&merge)?;
    let reference = origin.require_reference()?;
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
        &options.layering,
        report,
    )
}
