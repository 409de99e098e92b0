//! `apply-live`: bring what boots next to the running system already.

use crate::deployment::live::{self, Etc, State, Unlock};
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::host::environment;
use crate::host::runner::Cmd;
use crate::image::content::CommitTree;
use crate::layer::packages::{self, PackageDifference};
use crate::ops::{Outcome, Target};
use crate::report::Report;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use ostree_ext::ostree::{self, DeploymentUnlockedState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Where units are, on a tree whose `/lib` is a link to `/usr/lib`.
const UNITS: &str = "/lib/systemd/system/";

/// What to apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// The commit; what boots next when left out.
    #[serde(rename = "target")]
    pub commit: Option<String>,
    /// Go back to the commit that was booted.
    pub reset: bool,
    /// Accept that packages of the running system are removed or change.
    pub allow_replacement: bool,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
}

/// From where to where the running system goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The commits the system is at: one, or two after an interrupted run.
    pub from: Vec<String>,
    /// The commit it goes to.
    pub to: String,
    /// What differs in packages between the first of `from` and `to`.
    pub packages: PackageDifference,
}

/// What was done to the running system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// What was planned.
    pub plan: Plan,
    /// What became of files of `/etc`.
    pub etc: Etc,
    /// Units that run, of packages that changed.
    pub restart: Vec<String>,
    /// Units that new packages enabled and that do not run.
    pub start: Vec<String>,
}

/// Brings the running system to what boots next, or to the commit that was asked for; nothing when it is there.
///
/// A failure on the way is noted: `status` shows it, and running again completes it or, with `reset`, takes it back.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    environment::require_root("apply-live")?;
    let booted = live::require_booted(host, "apply-live")?;
    let planned = {
        let _lock = host.lock("apply-live", options.target.patience(), report)?;
        plan(host, &booted, options)?
    };
    let Some(plan) = planned else {
        return Ok(Outcome::Applied(None));
    };
    match booted.unlocked() {
        DeploymentUnlockedState::None => {
            let step = report.step("Laying an overlay over /usr");
            // libostree's command takes the lock itself.
            live::unlock(Unlock::Transient)?;
            step.done("Laid an overlay over /usr");
        }
        DeploymentUnlockedState::Hotfix => {
            return Err(Fault::new(
                Kind::Unsupported,
                "/usr has a hotfix overlay, in which changes would outlast the next boot",
            )
            .hint("reboot into what is pending instead")
            .into());
        }
        _ => {}
    }
    let lock = host.lock("apply-live", options.target.patience(), report)?;
    if self::plan(host, &booted, options)?.as_ref() != Some(&plan) {
        return Err(
            Fault::new(Kind::Busy, "Another process changed what would be applied")
                .hint("run the command again")
                .into(),
        );
    }
    live::make_writable()?;
    let step = report.step("Changing /usr and /etc");
    let root = Dir::open_ambient_dir(host.path(), ambient_authority()).context("Opening /")?;
    live::set_state(
        &lock,
        &booted,
        &State {
            commit: plan.from.first().cloned(),
            interrupted: Some(plan.to.clone()),
        },
    )?;
    let from: Vec<&str> = plan.from.iter().map(String::as_str).collect();
    let etc = live::apply(&host.repo(), &root, &from, &plan.to)?;
    step.done("Changed /usr and /etc");
    tell_the_system(&etc, report);
    let (restart, start) = units(host, &plan)?;
    let back = plan.to == booted.csum().as_str();
    let state = State {
        commit: (!back).then(|| plan.to.clone()),
        interrupted: None,
    };
    live::set_state(&lock, &booted, &state)?;
    Ok(Outcome::Applied(Some(Box::new(Applied {
        plan,
        etc,
        restart,
        start,
    }))))
}

/// Works out what has to be done; nothing when the system is there already.
///
/// Fails when there is nothing to apply, and names the packages that would be removed or changed without consent.
pub fn plan(host: &Host, booted: &ostree::Deployment, options: &Options) -> Result<Option<Plan>> {
    let state = live::state(host, booted)?;
    let booted_commit = booted.csum().to_string();
    let to = match (&options.commit, options.reset) {
        (_, true) => booted_commit.clone(),
        (Some(target), _) => host
            .repo()
            .resolve_rev(target, true)
            .with_context(|| format!("Looking for the commit {target}"))?
            .map(|commit| commit.to_string())
            .ok_or_else(|| Fault::new(Kind::NotFound, format!("There is no commit `{target}` here")))?,
        (None, false) => pending(host, booted)?,
    };
    let at = state.commit.unwrap_or(booted_commit);
    let mut from = vec![at];
    from.extend(state.interrupted);
    if from == [to.as_str()] {
        return Ok(None);
    }
    let difference = packages::between(&host.repo(), &from[0], &to)?;
    if !options.allow_replacement && !options.reset {
        refuse_replacement(&difference)?;
    }
    Ok(Some(Plan {
        from,
        to,
        packages: difference,
    }))
}

fn pending(host: &Host, booted: &ostree::Deployment) -> Result<String> {
    let first = host.deployments().into_iter().next();
    match first.filter(|first| !first.equal(booted)) {
        Some(first) => Ok(first.csum().to_string()),
        None => Err(Fault::new(
            Kind::NotFound,
            "No other deployment boots next: there is nothing to apply",
        )
        .hint("layer a package first with `apt-ostree install PACKAGE`, or name a commit with `--target`")
        .into()),
    }
}

fn refuse_replacement(difference: &PackageDifference) -> Result<(), Fault> {
    let removed: Vec<&str> = difference.removed.iter().map(|id| id.name.as_str()).collect();
    let changed: Vec<&str> = difference
        .upgraded
        .iter()
        .chain(&difference.downgraded)
        .map(|pair| pair.after.name.as_str())
        .collect();
    let parts: Vec<String> = [("removed", removed), ("changed", changed)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what}: {}", names.join(" ")))
        .collect();
    if parts.is_empty() {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Unsupported,
        format!("Packages of the running system would be {}", parts.join("; ")),
    )
    .hint("reboot instead, or accept it with `--allow-replacement`"))
}

/// Lets the system's own programs take in what came: users, files below `/var` and `/run`, units, libraries.
///
/// Their failures are warnings: the files are in place, and a reboot does the same again.
fn tell_the_system(etc: &Etc, report: &dyn Report) {
    let step = report.step("Making users and files, reloading units");
    let mut commands = vec![
        Cmd::new("systemd-sysusers"),
        Cmd::new("systemd-tmpfiles").args(["--create", "--prefix=/var", "--prefix=/run"]),
        Cmd::new("systemctl").arg("daemon-reload"),
    ];
    // A cache that was made on this host does not know the new libraries.
    if etc.kept.contains("ld.so.cache") {
        commands.push(Cmd::new("ldconfig"));
    }
    for command in commands {
        if let Err(error) = command.run() {
            report.warning(&format!("The files are in place, and this failed: {error:#}."));
        }
    }
    step.done("Made users and files, reloaded units");
    for path in &etc.kept {
        report.note(&format!("/etc/{path} stays as it was changed here."));
    }
}

/// Returns the running units of changed packages, and the enabled ones of new packages that do not run.
fn units(host: &Host, plan: &Plan) -> Result<(Vec<String>, Vec<String>)> {
    let tree = CommitTree::open(&host.repo(), &plan.to)?;
    let changed = plan.packages.upgraded.iter().chain(&plan.packages.downgraded);
    let changed: BTreeSet<String> = units_of(&tree, changed.map(|pair| &pair.after.name))?;
    let added = units_of(&tree, plan.packages.added.iter().map(|id| &id.name))?;
    let restart = changed
        .into_iter()
        .filter(|unit| tells("is-active", unit))
        .collect();
    let start = added
        .into_iter()
        .filter(|unit| tells("is-enabled", unit) && !tells("is-active", unit))
        .collect();
    Ok((restart, start))
}

fn units_of<'a>(tree: &CommitTree, names: impl Iterator<Item = &'a String>) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for name in names {
        for path in packages::files_of(tree, name)? {
            let unit = path.strip_prefix("/usr").unwrap_or(&path).strip_prefix(UNITS);
            // A template is no unit; its instances are the administrator's.
            if let Some(unit) = unit.filter(|unit| {
                let kind = unit.rsplit_once('.').map(|(_, kind)| kind);
                matches!(kind, Some("service" | "socket" | "timer" | "path")) && !unit.contains(['/', '@'])
            }) {
                found.insert(unit.to_owned());
            }
        }
    }
    Ok(found)
}

fn tells(question: &str, unit: &str) -> bool {
    let answer = Cmd::new("systemctl")
        .args([question, "--quiet", "--", unit])
        .output();
    answer.is_ok_and(|output| output.status.success())
}
