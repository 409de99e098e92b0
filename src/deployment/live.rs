//! The running system as it differs from the deployment it was booted from.

use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use ostree_ext::ostree;

/// How an overlay over `/usr` behaves; libostree's three states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlock {
    /// Writable until the next reboot.
    Development,
    /// Writable, and kept in this deployment.
    Hotfix,
    /// Read-only until somebody remounts it in a mount namespace of their own; gone with the next reboot.
    Transient,
}

/// Returns the deployment this machine runs from, or the fault that says why `verb` needs it.
pub fn require_booted(host: &Host, verb: &str) -> Result<ostree::Deployment, Fault> {
    host.booted().ok_or_else(|| {
        Fault::new(
            Kind::Usage,
            format!(
                "`{verb}` changes the running system, and this machine did not boot from {}",
                host.path().display()
            ),
        )
        .hint(format!(
            "run `apt-ostree {verb}` without `--sysroot` on the booted host"
        ))
    })
}

/// Lays an overlay over `/usr` where everybody sees it, whatever mount namespace this process is in.
///
/// libostree's command takes the lock of the sysroot, so the caller must not hold it. Fails with `/usr` as it was.
pub fn unlock(how: Unlock) -> Result<()> {
    let mut cmd = Cmd::new("nsenter").args(["--target=1", "--mount", "--", "ostree", "admin", "unlock"]);
    match how {
        Unlock::Development => {}
        Unlock::Hotfix => cmd = cmd.arg("--hotfix"),
        Unlock::Transient => cmd = cmd.arg("--transient"),
    }
    cmd.run().context("Laying an overlay over /usr")?;
    Ok(())
}
