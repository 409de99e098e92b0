//! The running system as it differs from the deployment it was booted from.
//!
//! `/usr` gets an overlay that lasts until the next reboot, and what was applied to it is noted in
//! `/run/ostree/deployment-state/COMMIT.SERIAL/apt-ostree-live`, which goes with it. The ref `apt-ostree/live` keeps
//! the commit that was applied.

mod apply;

pub use apply::{Etc, apply, changes};

use crate::deployment::sysroot::{Host, WriteLock};
use crate::fault::{Fault, Kind};
use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use cap_std_ext::dirext::CapStdExtDirExt;
use fn_error_context::context;
use ostree_ext::{gio, ostree};
use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where libostree keeps what is true of a deployment until the next reboot.
const RUN: &str = "run/ostree/deployment-state";

const NOTE: &str = "apt-ostree-live";

const REF: &str = "apt-ostree/live";

/// What the running system is at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The commit that was applied last; none while the system is as it was booted.
    pub commit: Option<String>,
    /// The commit on whose way an earlier run was interrupted.
    pub interrupted: Option<String>,
}

/// How an overlay over `/usr` behaves; libostree's three states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

/// Returns what was applied to a deployment since it was booted. Needs neither root nor the lock.
#[context("Reading what was applied to the running system")]
pub fn state(host: &Host, booted: &ostree::Deployment) -> Result<State> {
    let path = note_folder(host, booted).join(NOTE);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::default()),
        Err(error) => Err(error).with_context(|| format!("Reading {}", path.display())),
    }
}

/// Notes what the running system is at, and keeps the commits that takes.
#[context("Noting what was applied to the running system")]
pub fn set_state(lock: &WriteLock<'_>, booted: &ostree::Deployment, state: &State) -> Result<()> {
    let host = lock.host();
    let path = note_folder(host, booted);
    std::fs::create_dir_all(&path).with_context(|| format!("Making {}", path.display()))?;
    let folder = Dir::open_ambient_dir(&path, ambient_authority())?;
    let is_default = *state == State::default();
    if !is_default {
        folder.atomic_write(NOTE, serde_json::to_vec(state)?)?;
    }
    for (name, commit) in [
        (REF, &state.commit),
        (&format!("{REF}-interrupted"), &state.interrupted),
    ] {
        host.repo()
            .set_ref_immediate(None, name, commit.as_deref(), gio::Cancellable::NONE)
            .with_context(|| format!("Setting {name}"))?;
    }
    if is_default {
        folder.remove_file_optional(NOTE)?;
    }
    Ok(())
}

/// Lets go of the commit that was applied before the machine booted again.
pub fn forget_earlier_boots(lock: &WriteLock<'_>) -> Result<()> {
    match lock.host().booted() {
        Some(booted) if state(lock.host(), &booted)? == State::default() => {
            set_state(lock, &booted, &State::default())
        }
        _ => Ok(()),
    }
}

/// Makes the overlay over `/usr` writable in the mount namespace of this process, which must be a private one.
#[context("Making /usr writable")]
pub fn make_writable() -> Result<()> {
    rustix::mount::mount_remount("/usr", MountFlags::empty(), "")?;
    Ok(())
}

fn note_folder(host: &Host, booted: &ostree::Deployment) -> PathBuf {
    let name = format!("{}.{}", booted.csum(), booted.deployserial());
    host.path().join(RUN).join(name)
}
