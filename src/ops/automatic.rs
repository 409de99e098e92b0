//! Automatic updates: as far as the policy says, at a time the settings allow, and with a note of what came of it.
//!
//! A run decides by what is the case now; the notes of earlier runs only tell which deployment an earlier run staged.

use crate::config::window::{self, Moment};
use crate::config::{AutomaticUpdates, Config, Metered, Policy};
use crate::deployment::advance;
use crate::deployment::automatic::{self, Ending};
use crate::deployment::origin::Origin;
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::host::bus::Bus;
use crate::host::runner::Cmd;
use crate::ops::check::{self, Available};
use crate::ops::{Outcome, Target, reboot, upgrade};
use crate::report::Report;
use anyhow::{Context, Result};
use ostree_ext::{glib, ostree};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;

/// The unit of the timer that starts a run when the maintenance window opens.
const WINDOW_UNIT: &str = "apt-ostreed-automatic-window";

/// What to update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// The stateroot; a run never waits for another writer.
    #[serde(flatten)]
    pub target: Target,
}

/// What a run came to.
struct Run {
    ending: Ending,
    /// The digest of the image it staged.
    staged: Option<String>,
    outcome: Outcome,
}

impl Run {
    fn unchanged(ending: Ending, sentence: impl Into<String>) -> Self {
        Self {
            ending,
            staged: None,
            outcome: Outcome::Unchanged(sentence.into()),
        }
    }

    fn skipped(why: String) -> Self {
        let sentence = format!("Skipped: {why}.");
        Self::unchanged(Ending::Skipped { why }, sentence)
    }
}

/// Does what the policy says, and notes what came of it; the policy `none` notes nothing.
///
/// What cannot be done now is skipped, which is no error. Until a new deployment is published the booted and the
/// pending deployments are untouched. Under `apply` a reboot was asked for when this returns [`Ending::Applied`].
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let stateroot = host.stateroot(options.target.stateroot.as_deref())?;
    let settings = Config::load(&host.settings_root(&stateroot))?.automatic_updates;
    if settings.policy == Policy::None {
        return Ok(Outcome::Unchanged(
            "Automatic updates are off: `automatic-updates.policy` is `none`.".to_owned(),
        ));
    }
    let note = |ending, staged| automatic::note_run(host, &stateroot, settings.policy.name(), ending, staged);
    let run = attempt(host, &stateroot, &settings, report).or_else(|error| match Fault::find(&error) {
        Some(fault) if fault.kind == Kind::Busy => Ok(Run::skipped(fault.message.clone())),
        _ => Err(error),
    });
    match run {
        Ok(run) => {
            let applies = run.ending == Ending::Applied;
            note(run.ending, run.staged)?;
            if applies {
                report.note("Rebooting into the update.");
                reboot::run().or_else(|error| {
                    let message = format!("{error:#}");
                    note(Ending::Failed { message }, None)?;
                    Err(error)
                })?;
            }
            Ok(run.outcome)
        }
        Err(error) => {
            let message = format!("{error:#}");
            note(Ending::Failed { message }, None)?;
            Err(error)
        }
    }
}

/// Notes that a run was skipped before it began, and returns the sentence that tells it.
pub fn skip(sysroot: Option<&Path>, stateroot: Option<&str>, why: &str) -> Result<String> {
    let host = Host::open(sysroot, "upgrade", false)?;
    let stateroot = host.stateroot(stateroot)?;
    let settings = Config::load(&host.settings_root(&stateroot))?.automatic_updates;
    let ending = Ending::Skipped { why: why.to_owned() };
    automatic::note_run(&host, &stateroot, settings.policy.name(), ending, None)?;
    Ok(format!("Skipped: {why}."))
}

/// Returns how long a run under the timer waits: the same on a machine every time, spread over machines.
///
/// Nothing is to be waited for under the policy `none`.
pub fn delay(sysroot: Option<&Path>, stateroot: Option<&str>) -> Result<Duration> {
    let host = Host::open(sysroot, "upgrade", false)?;
    let root = host.settings_root(&host.stateroot(stateroot)?);
    let settings = Config::load(&root)?.automatic_updates;
    if settings.policy == Policy::None {
        return Ok(Duration::ZERO);
    }
    let machine = root.join("etc/machine-id");
    let machine =
        std::fs::read_to_string(&machine).with_context(|| format!("Reading {}", machine.display()))?;
    Ok(share_of(settings.random_delay, machine.trim()))
}

/// Returns the machine's share of `longest`; its id cannot be told from it.
fn share_of(longest: Duration, machine: &str) -> Duration {
    let digest = Sha256::digest(format!("apt-ostree automatic update\n{machine}"));
    let number = digest
        .iter()
        .take(8)
        .fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    Duration::from_secs(number % longest.as_secs().max(1))
}

fn attempt(host: &Host, stateroot: &str, settings: &AutomaticUpdates, report: &dyn Report) -> Result<Run> {
    let current = host.require_merge_deployment(stateroot, "to upgrade")?;
    if let Some(digest) = Origin::of(&current)?.pinned_digest() {
        return Ok(Run::skipped(format!(
            "`deploy` fixed the image {digest}; `upgrade` follows its name again"
        )));
    }
    if settings.metered == Metered::Skip && Bus::default().is_metered()? {
        return Ok(Run::skipped("the connection is metered".to_owned()));
    }
    let found = check::check(host, Some(stateroot))?;
    let found = found.filter(|found| advance::later_than(host, &current, found.created.as_deref()).is_none());
    check::remember(host, Some(stateroot), found.as_ref())?;
    match (found, settings.policy) {
        (None, policy) => nothing_new(host, stateroot, &current, policy, settings, report),
        (Some(found), Policy::Check | Policy::None) => Ok(Run::unchanged(
            Ending::Available,
            format!("An update is available: {}.", named(&found)),
        )),
        (Some(_), policy) => match closed(&settings.download_window, now()?) {
            Some(opens) => Ok(Run::skipped(format!("the download window opens {opens}"))),
            None => stage(host, stateroot, policy, settings, report),
        },
    }
}

/// An update that an earlier run staged may still wait for its reboot.
fn nothing_new(
    host: &Host,
    stateroot: &str,
    current: &ostree::Deployment,
    policy: Policy,
    settings: &AutomaticUpdates,
    report: &dyn Report,
) -> Result<Run> {
    let booted = host.booted();
    if booted.is_none_or(|booted| booted.equal(current)) {
        return Ok(Run::unchanged(Ending::NothingNew, "No upgrade available."));
    }
    let ours = automatic::read(host, stateroot)?.staged;
    let digest = advance::image_of(host, current)?.manifest_digest;
    if policy != Policy::Apply || ours.as_ref() != Some(&digest) {
        return Ok(Run::skipped(format!("the image {digest} boots next already")));
    }
    Ok(match hold(host, settings, report)? {
        None => Run::unchanged(Ending::Applied, "The update that was staged is applied."),
        Some(waits) => Run::unchanged(
            Ending::Staged {
                waits: Some(waits.clone()),
            },
            format!("An update is staged: {waits}."),
        ),
    })
}

fn stage(
    host: &Host,
    stateroot: &str,
    policy: Policy,
    settings: &AutomaticUpdates,
    report: &dyn Report,
) -> Result<Run> {
    let options = upgrade::Options {
        target: Target {
            stateroot: Some(stateroot.to_owned()),
            no_wait: true,
        },
        ..upgrade::Options::default()
    };
    let outcome = upgrade::run(host, &options, report)?;
    let Outcome::Published { image, .. } = &outcome else {
        return Ok(Run {
            ending: Ending::NothingNew,
            staged: None,
            outcome,
        });
    };
    let staged = Some(image.manifest_digest.clone());
    let waits = match policy {
        Policy::Apply => hold(host, settings, report)?,
        _ => {
            return Ok(Run {
                ending: Ending::Staged { waits: None },
                staged,
                outcome,
            });
        }
    };
    if let Some(waits) = &waits {
        report.note(&format!("No reboot yet: {waits}."));
    }
    let ending = match waits {
        None => Ending::Applied,
        waits => Ending::Staged { waits },
    };
    Ok(Run {
        ending,
        staged,
        outcome,
    })
}

/// Returns what the reboot waits for; nothing when it may happen now. The opening of a window starts another run.
fn hold(host: &Host, settings: &AutomaticUpdates, report: &dyn Report) -> Result<Option<String>> {
    if host.booted().is_none() {
        return Ok(Some("this machine did not boot from this sysroot".to_owned()));
    }
    let held = held_by(settings, now()?, || Bus::default().users_logged_in())?;
    if let Some(Held::Window(opens)) = &held {
        if let Err(error) = run_when_window_opens(opens) {
            report.warning(&format!(
                "No run is planned for that time, the next one is the timer's: {error:#}."
            ));
        }
    }
    Ok(held.map(|held| match held {
        Held::Window(opens) => format!("the maintenance window opens {opens}"),
        Held::Users(users) => format!("logged in: {}", users.join(", ")),
    }))
}

/// What keeps a reboot from happening.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    /// No maintenance window is open; when one opens.
    Window(Moment),
    /// These users are logged in.
    Users(Vec<String>),
}

fn held_by(
    settings: &AutomaticUpdates,
    now: Moment,
    users: impl FnOnce() -> Result<Vec<String>>,
) -> Result<Option<Held>> {
    if let Some(opens) = closed(&settings.maintenance_window, now) {
        return Ok(Some(Held::Window(opens)));
    }
    if settings.reboot_when_users_are_logged_in {
        return Ok(None);
    }
    let users = users()?;
    Ok((!users.is_empty()).then_some(Held::Users(users)))
}

/// Returns when one of the windows opens, if none is open.
fn closed(windows: &[window::Window], now: Moment) -> Option<Moment> {
    if window::is_open(windows, now) {
        return None;
    }
    window::next_opening(windows, now).map(|(_, opens)| opens)
}

/// Returns the minute of the week by the machine's local time.
fn now() -> Result<Moment> {
    let now = glib::DateTime::now_local().context("Reading the local time")?;
    let field = |value: i32| u16::try_from(value).unwrap_or(0);
    Ok(Moment::new(
        field(now.day_of_week() - 1),
        field(now.hour()),
        field(now.minute()),
    ))
}

/// Starts a timer that is gone once it has elapsed; one that runs already stays.
fn run_when_window_opens(opens: &Moment) -> Result<()> {
    let timer = format!("{WINDOW_UNIT}.timer");
    let active = Cmd::new("systemctl")
        .args(["is-active", "--quiet", &timer])
        .output()?;
    if active.status.success() {
        return Ok(());
    }
    Cmd::new("systemd-run")
        .args(["--quiet", "--collect"])
        .arg(format!("--unit={WINDOW_UNIT}"))
        .arg(format!("--on-calendar={opens}"))
        .args([
            "--timer-property=RemainAfterElapse=no",
            "--timer-property=AccuracySec=1min",
        ])
        .args(["--", "apt-ostree", "upgrade", "--trigger-automatic-update-policy"])
        .run()?;
    Ok(())
}

fn named(found: &Available) -> String {
    match &found.version {
        Some(version) => format!("version {version}, {}", found.manifest_digest),
        None => found.manifest_digest.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns settings as a fragment in `/etc` would make them.
    fn settings(text: &str) -> AutomaticUpdates {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/apt-ostree/config.d");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("50.toml"), format!("[automatic-updates]\n{text}\n")).unwrap();
        Config::load(root.path()).unwrap().automatic_updates
    }

    #[test]
    fn a_reboot_waits_for_its_window_and_for_users() {
        let (saturday, sunday) = (Moment::new(5, 3, 0), Moment::new(6, 3, 0));
        let window = "maintenance-window = [\"Sat 02:00-05:00\"]";
        let nobody = || Ok(Vec::new());
        let held = |text: &str, now, users: &[&str]| {
            let users = users.iter().map(|user| (*user).to_owned()).collect();
            held_by(&settings(text), now, || Ok(users)).unwrap()
        };
        assert_eq!(held("", sunday, &[]), None);
        assert_eq!(held(window, saturday, &[]), None);
        assert_eq!(
            held(window, sunday, &[]),
            Some(Held::Window(Moment::new(5, 2, 0)))
        );
        assert_eq!(
            held(window, saturday, &["ada"]),
            Some(Held::Users(vec!["ada".to_owned()]))
        );
        let forced = format!("{window}\nreboot-when-users-are-logged-in = true");
        assert_eq!(held(&forced, saturday, &["ada"]), None);
        assert_eq!(
            held(&forced, sunday, &["ada"]),
            Some(Held::Window(Moment::new(5, 2, 0)))
        );
        assert!(held_by(&settings(""), sunday, nobody).unwrap().is_none());
    }

    #[test]
    fn each_machine_has_its_share_of_the_delay() {
        let hour = Duration::from_secs(3600);
        let machines: Vec<String> = (0..64).map(|number| format!("{number:032x}")).collect();
        let shares: Vec<Duration> = machines.iter().map(|machine| share_of(hour, machine)).collect();
        assert_eq!(shares[7], share_of(hour, &machines[7]));
        assert!(shares.iter().all(|share| *share < hour));
        for quarter in 0..4u32 {
            let within = shares
                .iter()
                .filter(|share| share.as_secs() / 900 == u64::from(quarter))
                .count();
            assert!(within > 5, "{within} of 64 in quarter {quarter}");
        }
        assert_eq!(share_of(Duration::ZERO, "x"), Duration::ZERO);
    }
}
