//! `install`, `uninstall`, `override`, `reset` and `initramfs`: other requests on top of the same image.

use crate::deployment::advance;
use crate::deployment::origin::Origin;
use crate::deployment::prune;
use crate::deployment::sysroot::Host;
use crate::layer::assemble::Network;
use crate::ops::layering::Layering;
use crate::ops::{Fetch, Next, Outcome, Target};
use crate::report::Report;
use anyhow::Result;

/// How to change the requests.
#[derive(Clone, Debug)]
pub struct Options {
    /// The verb, for whoever waits for the lock.
    pub verb: &'static str,
    /// Stateroot and patience.
    pub target: Target,
    /// What changes.
    pub layering: Layering,
    /// What the network may be used for.
    pub network: Network,
    /// Cache only, how far to go, locked.
    pub fetch: Fetch,
}

/// Makes a deployment of the same image with other requests on top boot next; the registry is not asked.
///
/// Until the new deployment is published the booted and the pending deployments are untouched.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let lock = host.lock(options.verb, options.target.patience, report)?;
    let stateroot = host.stateroot(options.target.stateroot.as_deref())?;
    let merge = host.require_merge_deployment(&stateroot, "to layer on")?;
    let origin = Origin::of(&merge)?;
    let reference = origin.require_reference()?;
    prune::protect(&lock)?;
    let image = advance::image_of(host, &merge)?;
    options.fetch.conclude(
        &lock,
        Next {
            stateroot: &stateroot,
            origin: &origin,
            merge: Some(&merge),
            reference,
            image,
            network: options.network,
            unchanged: "No changes.".to_owned(),
        },
        &options.layering,
        report,
    )
}
