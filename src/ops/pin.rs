//! `pin` and `unpin`: keep a deployment from being removed by later ones.

use crate::deployment::origin;
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::ops::{Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use ostree_ext::ostree;
use serde::{Deserialize, Serialize};

/// What to pin or unpin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// The deployment's place in the boot order; the booted one when left out.
    pub index: Option<usize>,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
}

/// Pins or unpins the deployment with this index, or the booted one (the first one of a sysroot nobody booted).
///
/// A staged deployment cannot be pinned, because libostree keeps the mark in a file that only exists later.
pub fn run(host: &Host, options: &Options, pinned: bool, report: &dyn Report) -> Result<Outcome> {
    let verb = if pinned { "pin" } else { "unpin" };
    let _lock = host.lock(verb, options.target.patience(), report)?;
    let deployment = find(host, options.index)?;
    if deployment.is_staged() {
        return Err(
            Fault::new(Kind::Unsupported, "A staged deployment cannot be pinned")
                .hint("reboot into it first")
                .into(),
        );
    }
    let name = origin::id(&deployment);
    if deployment.is_pinned() == pinned {
        return Ok(Outcome::Unchanged(format!(
            "The deployment {name} is {verb}ned already."
        )));
    }
    host.sysroot().deployment_set_pinned(&deployment, pinned)?;
    Ok(Outcome::Changed(format!("The deployment {name} is {verb}ned.")))
}

fn find(host: &Host, index: Option<usize>) -> Result<ostree::Deployment> {
    let deployments = host.deployments();
    let found = match index {
        Some(index) => deployments.get(index).cloned(),
        None => host.booted().or_else(|| deployments.first().cloned()),
    };
    found.ok_or_else(|| {
        let asked = index.map_or("no deployment".to_owned(), |index| {
            format!("no deployment with the index {index}")
        });
        Fault::new(Kind::NotFound, format!("There is {asked}"))
            .hint("the indexes are those of `apt-ostree status --verbose`")
            .into()
    })
}
