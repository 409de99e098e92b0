//! `search`: packages of the repositories by words. Needs neither root, nor the lock, nor the network.

use crate::deployment::archive::View;
use crate::deployment::sysroot::Host;
use crate::layer::search::Found;
use anyhow::Result;

/// Returns the packages that one of the terms matches, in the repositories of the deployment that boots next.
pub fn run(host: &Host, stateroot: Option<&str>, terms: &[String]) -> Result<Found> {
    View::of(host, stateroot)?.open_to_read()?.search(terms)
}
