//! `status`: what is deployed, booted and pending. Needs neither root nor the lock, and works while a writer runs
//! and when something is broken.

use crate::deployment::finalization;
use crate::deployment::journal::{self, Recovered};
use crate::deployment::model::{self, DeploymentState};
use crate::deployment::salvage;
use crate::deployment::sysroot::Host;
use crate::fault::Fault;
use crate::host::lock;
use anyhow::Result;
use serde::Serialize;
use std::path::Path;

/// Everything `status` tells; serializes to rpm-ostree's JSON layout.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// All deployments in boot order.
    pub deployments: Vec<DeploymentState>,
    /// Who changes the sysroot right now, as far as the caller may see it: command, process id, empty.
    pub transaction: Option<Vec<String>>,
    /// An update that is known and not deployed; filled by the service.
    pub cached_update: Option<()>,
    /// What applies updates by itself; filled by the service.
    pub update_driver: Option<()>,
    /// The last transaction that was interrupted, until a later one succeeds; known to root alone.
    pub last_interrupted: Option<Recovered>,
    /// Why the last shutdown could not apply the staged deployment.
    pub finalization_failure: Option<String>,
    /// Sentences about the sysroot as a whole; empty on a sound one.
    pub problems: Vec<String>,
}

/// Reads the status of the sysroot at `path`, or of the booted one.
///
/// Fails where there is no sysroot. A sysroot that libostree cannot load is read as far as its boot entries go.
pub fn run(path: Option<&Path>) -> Result<Status> {
    let root = path.unwrap_or(Path::new("/"));
    let writer = lock::holder_of(&root.join("ostree/lock"));
    let transaction = writer.map(|holder| vec![holder.command, holder.pid.to_string(), String::new()]);
    let mut status = Status {
        deployments: Vec::new(),
        transaction,
        cached_update: None,
        update_driver: None,
        last_interrupted: None,
        finalization_failure: None,
        problems: Vec::new(),
    };
    match Host::open(path, "status", false) {
        Ok(host) => {
            status.deployments = model::deployments(&host);
            status.last_interrupted = known(journal::last_interrupted(&host), &mut status.problems);
            status.finalization_failure = known(finalization::failure(&host), &mut status.problems);
        }
        Err(error) if Fault::find(&error).is_some() => return Err(error),
        Err(error) => {
            status.deployments = salvage::deployments(root)?;
            status.problems.push(format!("{error:#}"));
        }
    }
    Ok(status)
}

/// Returns what was found; what could not be looked for becomes a sentence.
fn known<T>(found: Result<Option<T>>, problems: &mut Vec<String>) -> Option<T> {
    found.unwrap_or_else(|error| {
        problems.push(format!("{error:#}"));
        None
    })
}

impl Status {
    /// Returns whether the next boot is another deployment than the booted one.
    pub fn is_pending(&self) -> bool {
        self.deployments.first().is_some_and(|first| !first.booted)
    }
}
