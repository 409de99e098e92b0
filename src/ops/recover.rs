//! What a service does when it starts: close what interrupted transactions left open, before anybody asks.

use crate::deployment::journal::{self, Recovered};
use crate::deployment::sysroot::Host;
use crate::host::mounts;
use crate::report::Report;
use anyhow::{Result, anyhow};
use std::path::Path;

/// Closes the records of interrupted transactions and removes what those left behind; see [`journal::recover`].
///
/// Works in a thread of its own with mounts of its own, so that the caller's stay as they are. Needs root.
pub fn run(sysroot: Option<&Path>, report: &dyn Report) -> Result<Vec<Recovered>> {
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            mounts::enter_private()?;
            journal::recover(&Host::open(sysroot, "recover", true)?, report)
        });
        work.join()
            .unwrap_or_else(|_| Err(anyhow!("Looking for interrupted transactions panicked")))
    })
}
