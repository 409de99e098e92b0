//! `record-boot`: note that the machine was booted, and from which deployment.

use crate::deployment::history;
use crate::deployment::sysroot::Host;
use crate::host::{environment, mounts};
use anyhow::Result;
use std::path::Path;

/// Notes this boot of the deployment the machine runs from, once; returns whether it was not noted yet.
///
/// Waits for nobody: an update that has the lock does not matter. Fails off an OSTree host and without root.
pub fn run(sysroot: Option<&Path>) -> Result<bool> {
    environment::require_root("record-boot")?;
    mounts::enter_private()?;
    let host = Host::open(sysroot, "record-boot", true)?;
    history::record_this_boot(&host)
}
