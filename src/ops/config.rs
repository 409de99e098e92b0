//! `config`: the settings that are in force, and where each comes from.

use crate::config::Effective;
use crate::deployment::sysroot::Host;
use anyhow::Result;
use std::path::Path;

/// Reads the settings of this machine, or of the deployment that boots next in the sysroot at `sysroot`.
pub fn run(sysroot: Option<&Path>, stateroot: Option<&str>) -> Result<Effective> {
    let Some(path) = sysroot else {
        return Ok(Effective::load(Path::new("/"))?);
    };
    let host = Host::open(Some(path), "config", false)?;
    let stateroot = host.stateroot(stateroot)?;
    Ok(Effective::load(&host.settings_root(&stateroot))?)
}
