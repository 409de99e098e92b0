//! `status`: what is deployed, booted and pending. Needs neither root nor the lock, and works while a writer runs
//! and when something is broken.

use crate::config::{Config, Policy};
use crate::deployment::automatic::{self, CachedUpdate, LastRun};
use crate::deployment::driver::Driver;
use crate::deployment::finalization;
use crate::deployment::journal::{self, Recovered};
use crate::deployment::model::{self, DeploymentState};
use crate::deployment::salvage;
use crate::deployment::sysroot::Host;
use crate::fault::Fault;
use crate::host::{lock, units};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Everything `status` tells; serializes to rpm-ostree's JSON layout.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// All deployments in boot order.
    pub deployments: Vec<DeploymentState>,
    /// Who changes the sysroot right now, as far as the caller may see it: command, process id, empty; title,
    /// initiator and address of a transaction of the service.
    pub transaction: Option<Vec<String>>,
    /// An update that is known and not deployed.
    pub cached_update: Option<CachedUpdate>,
    /// What drives updates of this host instead of a person.
    pub update_driver: Option<Driver>,
    /// The last transaction that was interrupted, until a later one succeeds; known to root alone.
    pub last_interrupted: Option<Recovered>,
    /// Why the last shutdown could not apply the staged deployment.
    pub finalization_failure: Option<String>,
    /// What happens without anybody asking for it.
    pub automatic_updates: Automatic,
    /// Sentences about the sysroot as a whole; empty on a sound one.
    pub problems: Vec<String>,
}

/// What happens without anybody asking for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Automatic {
    /// The policy; none when the settings cannot be read.
    pub policy: Option<String>,
    /// The timer of the machine; none under the policy `none`, and for a sysroot that this machine did not boot from.
    pub timer: Option<Timer>,
    /// The last run and what came of it.
    pub last_run: Option<LastRun>,
}

/// The timer that starts automatic updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Timer {
    /// What it does now.
    pub state: TimerState,
    /// When it elapsed last since the boot, in seconds since 1970.
    pub last_trigger: Option<u64>,
}

/// What the timer of automatic updates does, or the service it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimerState {
    /// systemd does not tell.
    Unknown,
    /// It is not started.
    Inactive,
    /// It waits for the next run.
    Waiting,
    /// The service runs.
    Running,
    /// The service failed the last time.
    Failed,
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
        automatic_updates: Automatic::default(),
        problems: Vec::new(),
    };
    match Host::open(path, "status", false) {
        Ok(host) => {
            status.deployments = model::deployments(&host);
            status.last_interrupted = known(journal::last_interrupted(&host), &mut status.problems);
            status.finalization_failure = known(finalization::failure(&host), &mut status.problems);
            if let Err(error) = status.read_automatic(&host) {
                status.problems.push(format!("{error:#}"));
            }
        }
        Err(error) if Fault::find(&error).is_some() => return Err(error),
        Err(error) => {
            status.deployments = salvage::deployments(root)?;
            status.problems.push(format!("{error:#}"));
        }
    }
    status.update_driver = known(Driver::registered(root), &mut status.problems);
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
    /// Takes what was noted for the stateroot that boots next; with broken settings the notes are told all the same.
    fn read_automatic(&mut self, host: &Host) -> Result<()> {
        let Some(stateroot) = self.deployments.first().map(|first| first.stateroot.clone()) else {
            return Ok(());
        };
        let notes = automatic::read(host, &stateroot)?;
        self.cached_update = notes
            .cached_update
            .filter(|update| update.is_news(&self.deployments));
        self.automatic_updates.last_run = notes.last_run;
        let policy = Config::load(&host.settings_root(&stateroot))?
            .automatic_updates
            .policy;
        self.automatic_updates.policy = Some(policy.name().to_owned());
        if policy != Policy::None && host.booted().is_some() {
            self.automatic_updates.timer = Some(Timer::read());
        }
        Ok(())
    }

    /// Returns whether the next boot is another deployment than the booted one.
    pub fn is_pending(&self) -> bool {
        self.deployments.first().is_some_and(|first| !first.booted)
    }
}

impl Timer {
    fn read() -> Self {
        let units = ["apt-ostreed-automatic.timer", "apt-ostreed-automatic.service"];
        let found = units::show(&units, &["ActiveState", "LastTriggerUSec"]);
        let [timer, service] = match found.as_deref() {
            Ok([timer, service]) => [timer, service],
            Ok(_) => return Self::unknown(),
            Err(error) => {
                tracing::debug!("{error:#}");
                return Self::unknown();
            }
        };
        Self::of(timer, service)
    }

    fn unknown() -> Self {
        Self {
            state: TimerState::Unknown,
            last_trigger: None,
        }
    }

    fn of(timer: &units::Properties, service: &units::Properties) -> Self {
        let active = |unit: &units::Properties| unit.get("ActiveState").cloned().unwrap_or_default();
        let state = match (active(timer).as_str(), active(service).as_str()) {
            (_, "active" | "activating" | "reloading" | "deactivating") => TimerState::Running,
            (_, "failed") => TimerState::Failed,
            ("active", _) => TimerState::Waiting,
            ("inactive" | "failed", _) => TimerState::Inactive,
            _ => TimerState::Unknown,
        };
        let last = timer
            .get("LastTriggerUSec")
            .and_then(|time| time.strip_prefix('@'));
        Self {
            state,
            last_trigger: last.and_then(|time| time.parse().ok()).filter(|time| *time > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_is_told_from_both_units() {
        let unit = |state: &str, trigger: &str| {
            let pairs = [("ActiveState", state), ("LastTriggerUSec", trigger)];
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        };
        for (timer, service, state, last_trigger) in [
            (("active", "@17"), "inactive", TimerState::Waiting, Some(17)),
            (("active", ""), "inactive", TimerState::Waiting, None),
            (("active", "n/a"), "inactive", TimerState::Waiting, None),
            (("inactive", ""), "inactive", TimerState::Inactive, None),
            (("active", "@17"), "activating", TimerState::Running, Some(17)),
            (("active", "@17"), "failed", TimerState::Failed, Some(17)),
            (("", ""), "", TimerState::Unknown, None),
        ] {
            let found = Timer::of(&unit(timer.0, timer.1), &unit(service, ""));
            assert_eq!(found, Timer { state, last_trigger }, "{timer:?} {service}");
        }
    }
}
