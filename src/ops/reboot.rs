//! Rebooting after a success, as `--reboot` asks.

use crate::host::runner::Cmd;
use anyhow::Result;

/// Asks the service manager for a reboot; returns as soon as it has accepted.
pub fn run() -> Result<()> {
    Cmd::new("systemctl")
        .args(["reboot", "--message=apt-ostree: booting the new deployment"])
        .run()?;
    Ok(())
}
