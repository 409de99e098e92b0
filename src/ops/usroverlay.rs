//! `usroverlay`: make `/usr` of the running system writable until the next reboot, or for longer as a hotfix.

use crate::deployment::live::{self, Unlock};
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::host::environment;
use crate::ops::Outcome;
use anyhow::Result;
use ostree_ext::ostree::{self, DeploymentUnlockedState};
use serde::{Deserialize, Serialize};

/// How the overlay behaves; with neither it is writable until the next reboot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Keep the changes across reboots, in this deployment only.
    pub hotfix: bool,
    /// Leave `/usr` read-only for everybody who does not remount it.
    pub transient: bool,
}

/// Lays a writable overlay over `/usr` of the running system.
///
/// Fails on a sysroot that this machine did not boot from, and when `/usr` is writable already.
pub fn run(host: &Host, options: &Options) -> Result<Outcome> {
    let how = match (options.hotfix, options.transient) {
        (true, _) => Unlock::Hotfix,
        (_, true) => Unlock::Transient,
        _ => Unlock::Development,
    };
    environment::require_root("usroverlay")?;
    let booted = live::require_booted(host, "usroverlay")?;
    let state = booted.unlocked();
    if state != DeploymentUnlockedState::None {
        let state = ostree::Deployment::unlocked_state_to_string(state);
        return Err(Fault::new(
            Kind::Unsupported,
            format!("/usr of the running system has an overlay already ({state})"),
        )
        .hint("reboot to get rid of it, then run the command again")
        .into());
    }
    live::unlock(how)?;
    Ok(Outcome::Changed(
        match how {
            Unlock::Development => "/usr is writable until the next reboot; all changes are lost then.",
            Unlock::Hotfix => {
                "/usr is writable, and changes stay in this deployment; the next deployment does not have them."
            }
            Unlock::Transient => {
                "/usr has an overlay until the next reboot. It is writable in a mount namespace where it was \
                 remounted: `unshare --mount`, then `mount -o remount,rw /usr`."
            }
        }
        .to_owned(),
    ))
}
