//! `rollback`: boot the previous deployment next.

use crate::deployment::advance;
use crate::deployment::origin;
use crate::deployment::staging;
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::ops::{Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use ostree_ext::ostree;
use serde::{Deserialize, Serialize};

/// How to roll back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
    /// Reboot afterwards.
    pub reboot: bool,
}

/// Puts the previous deployment on top of the boot order; run again, it takes that back.
///
/// Where a pending deployment stands above the booted one, the booted one goes back on top. A staged deployment
/// is an error, because it would be written above whatever is chosen here.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let lock = host.lock("rollback", options.target.patience(), report)?;
    let stateroot = host.stateroot(options.target.stateroot.as_deref())?;
    if host.sysroot().staged_deployment().is_some() {
        return Err(Fault::new(
            Kind::Unsupported,
            "A staged deployment would be applied over the rollback",
        )
        .hint("remove it first with `apt-ostree cleanup -p`")
        .into());
    }
    let deployments = host.deployments();
    let names: Vec<(bool, bool)> = deployments
        .iter()
        .map(|deployment| {
            let booted = host.booted().is_some_and(|booted| booted.equal(deployment));
            (deployment.osname() == stateroot, booted)
        })
        .collect();
    let place = target_place(&names).ok_or_else(|| {
        Fault::new(Kind::NotFound, "There is no deployment to roll back to")
            .hint("see what there is with `apt-ostree status`")
    })?;
    let mut order: Vec<ostree::Deployment> = deployments;
    let chosen = order.remove(place);
    let name = origin::id(&chosen);
    order.insert(0, chosen);
    staging::reorder(&lock, &order)?;
    advance::clean(&lock, report);
    Ok(Outcome::Changed(format!("The deployment {name} boots next.")))
}

/// Returns which deployment goes on top: `(of this stateroot, booted)` of each, in boot order.
fn target_place(deployments: &[(bool, bool)]) -> Option<usize> {
    let booted = deployments.iter().position(|(_, booted)| *booted);
    match booted {
        Some(0) => deployments
            .iter()
            .enumerate()
            .skip(1)
            .find(|(_, (ours, _))| *ours)
            .map(|(place, _)| place),
        Some(place) => Some(place),
        // Nothing is booted from this sysroot: the second of the stateroot is the previous one.
        None => deployments
            .iter()
            .enumerate()
            .filter(|(_, (ours, _))| *ours)
            .nth(1)
            .map(|(place, _)| place),
    }
}

#[cfg(test)]
mod tests {
    use super::target_place;

    #[test]
    fn places() {
        for (deployments, expected) in [
            (&[(true, true), (true, false)][..], Some(1)),
            (&[(true, false), (true, true)], Some(1)),
            (&[(true, true)], None),
            (&[(true, true), (false, false), (true, false)], Some(2)),
            (&[(true, false), (true, false)], Some(1)),
            (&[(true, false)], None),
            (&[(false, false), (true, false), (true, false)], Some(2)),
            (&[], None),
        ] {
            assert_eq!(target_place(deployments), expected, "{deployments:?}");
        }
    }
}
