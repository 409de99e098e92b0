//! `status`: what is deployed, booted and pending. Needs neither root nor the lock, and works while a writer runs
//! and when something is broken.

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
    let (deployments, problems) = match Host::open(path, "status", false) {
        Ok(host) => (model::deployments(&host), Vec::new()),
        Err(error) if Fault::find(&error).is_some() => return Err(error),
        Err(error) => (salvage::deployments(root)?, vec![format!("{error:#}")]),
    };
    Ok(Status {
        deployments,
        transaction,
        cached_update: None,
        update_driver: None,
        problems,
    })
}

impl Status {
    /// Returns whether the next boot is another deployment than the booted one.
    pub fn is_pending(&self) -> bool {
        self.deployments.first().is_some_and(|first| !first.booted)
    }
}
