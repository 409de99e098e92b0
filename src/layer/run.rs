//! Runs a plan: the target's own dpkg and the maintainer scripts, in the sandbox.
//!
//! One bubblewrap process replays apt's order of steps. dpkg tells by its status descriptor which package and which
//! script it is at; what scripts write goes to the journal, and is shown where one fails. Afterwards the root holds
//! what a plain Debian would after the same steps, or the run has failed and the stage is thrown away.

use super::analysis::{self, Finding};
use super::conflicts::{self, Conflict};
use super::expected::Scripts;
use super::scripts::Packages;
use super::steps::{self, Line as Step};
use super::watch::{Phase, Watch};
use super::{deb, debconf, seed};
use crate::compose::rootfs;
use crate::fault::{Fault, Kind};
use crate::host::interrupt::Interrupt;
use crate::host::runner::{Ending, Line};
use crate::host::sandbox::{PLACE, Sandbox};
use crate::layer::intent::{ConflictMode, ScriptMode};
use crate::layer::plan::{FetchedPackage, Plan};
use crate::layer::stage::Stage;
use crate::report::{Report, Step as Progress, Unit, Work, counted};
use anyhow::Result;
use fn_error_context::context;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::oneshot;

/// Programs that have nothing to do in an image that does not run. `systemctl` is none of them: it enables units.
/// `fc-cache` sleeps two seconds for the sake of time stamps, and its cache is below `/var`, which is not kept.
const STUBS: &[&str] = &[
    "invoke-rc.d",
    "service",
    "deb-systemd-invoke",
    "udevadm",
    "update-initramfs",
    "dracut",
    "update-grub",
    "grub-install",
    "fc-cache",
];

/// Packages whose triggers make an initramfs.
const INITRAMFS_MAKERS: &[&str] = &["dracut", "dracut-core", "initramfs-tools"];

/// How to run a plan.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// What to do with scripts that cannot work offline, or fail.
    pub scripts: ScriptMode,
    /// Whose file stays when two packages ship one.
    pub conflicts: ConflictMode,
    /// Answers for debconf, in the form of debconf-set-selections(1); never shown.
    pub debconf: Option<Vec<u8>>,
    /// How long dpkg may tell nothing, which is how long one script may run.
    pub script_timeout: Duration,
    /// Seconds since 1970 that stand for "now" in what packages generate.
    pub epoch: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            scripts: ScriptMode::default(),
            conflicts: ConflictMode::default(),
            debconf: None,
            script_timeout: Duration::from_secs(600),
            epoch: 0,
        }
    }
}

/// What a run did beside what was planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Sentences for the user; not reported yet.
    pub warnings: Vec<String>,
    /// Scripts that were left out, as `package.script: reason`.
    pub skipped_scripts: Vec<String>,
    /// Whether a package asked for a new initramfs.
    pub initramfs_wanted: bool,
    /// Files that came twice, as `/path: of PACKAGE, not of PACKAGE`.
    pub overwritten: Vec<String>,
}

/// What every program of a run gets.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    root: PathBuf,
    epoch: u64,
}

impl Surroundings {
    pub(crate) fn sandbox(&self) -> Result<Sandbox> {
        Ok(Sandbox::new(&self.root)?.variable("SOURCE_DATE_EPOCH", &self.epoch.to_string()))
    }
}

/// Unpacks and configures what the plan holds in the stage's root.
///
/// Fails before anything is unpacked when scripts or files of packages are refused, and afterwards when a script
/// fails, takes too long or is cancelled by a signal; the fault names package and script. The stage is of no use then.
#[context("Installing the packages")]
pub fn run(
    stage: &Stage,
    plan: &Plan,
    packages: &[FetchedPackage],
    options: &RunOptions,
    report: &dyn Report,
) -> Result<Ran> {
    let mut ran = Ran::default();
    if plan.is_empty() {
        return Ok(ran);
    }
    let surroundings = Surroundings {
        root: stage.root().to_owned(),
        epoch: options.epoch,
    };
    let step = report.step("Looking through the packages");
    let control = deb::all_control_files(packages)?;
    let findings = analysis::analyse(packages, &control);
    if options.scripts == ScriptMode::Strict && !findings.is_empty() {
        return Err(refusal(&findings).into());
    }
    let found = conflicts::find(stage, plan, packages, &control)?;
    if options.conflicts == ConflictMode::Fail && !found.is_empty() {
        return Err(conflicts::fault(&found).into());
    }
    let mut collected = Packages::collect(stage, packages)?;
    settle_findings(&findings, options.scripts, &mut collected, &mut ran)?;
    settle_conflicts(&found, options.conflicts, &mut collected, &mut ran)?;
    step.done(&format!(
        "Looked through {}",
        counted(packages.len() as u64, "package")
    ));
    let step = report.step("Preparing the sandbox");
    seed::fill_var(stage, &surroundings, report)?;
    if let Some(answers) = &options.debconf {
        debconf::answer(surroundings.sandbox()?.command(debconf::PROGRAM), answers)?;
    }
    step.done("Prepared the sandbox");
    let overwrite = options.conflicts == ConflictMode::KeepLatest;
    let scripts = Scripts::of(stage, plan, &collected, &control)?;
    let (installed, removed) = (plan.packages.len() as u64, plan.removals.len() as u64);
    let step = report.begin(
        "Installing packages",
        &[
            // Each is unpacked and configured.
            Work::new(Unit::Actions, installed * 2 + removed),
            Work::new(Unit::Packages, installed + removed),
            Work::new(Unit::Scripts, scripts.total()),
        ],
    );
    let mut run = Run {
        stage,
        surroundings,
        options,
        report,
        packages: collected,
        step: &step,
        scripts: &scripts,
    };
    run.replay(steps::lines(plan, overwrite)?, &mut ran)?;
    mark_automatic(stage, plan, &run.surroundings)?;
    step.done(&what_was_done(installed, removed, scripts.total()));
    Ok(ran)
}

fn what_was_done(installed: u64, removed: u64, scripts: u64) -> String {
    let packages = match (installed, removed) {
        (installed, 0) => format!("Installed {}", counted(installed, "package")),
        (0, removed) => format!("Removed {}", counted(removed, "package")),
        (installed, removed) => format!("Installed {}, removed {removed}", counted(installed, "package")),
    };
    match scripts {
        0 => packages,
        scripts => format!("{packages}, ran {}", counted(scripts, "script")),
    }
}

fn refusal(findings: &[Finding]) -> Fault {
    let list: Vec<_> = findings.iter().map(ToString::to_string).collect();
    Fault::new(
        Kind::Invalid,
        format!(
            "Maintainer scripts do what cannot work in an image: {}",
            list.join("; ")
        ),
    )
    .hint("`--scripts=warn` runs them nevertheless, `--scripts=skip` installs the packages without them")
}

fn settle_findings(
    findings: &[Finding],
    mode: ScriptMode,
    packages: &mut Packages<'_>,
    ran: &mut Ran,
) -> Result<()> {
    if mode != ScriptMode::Skip {
        ran.warnings.extend(findings.iter().map(ToString::to_string));
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    for finding in findings {
        if seen.insert((&finding.package, &finding.script)) {
            packages.omit_script(&finding.package, &finding.script)?;
            ran.skipped_scripts.push(format!(
                "{}.{}: line {} {}",
                finding.package, finding.script, finding.line, finding.explanation
            ));
        }
    }
    Ok(())
}

fn settle_conflicts(
    found: &[Conflict],
    mode: ConflictMode,
    packages: &mut Packages<'_>,
    ran: &mut Ran,
) -> Result<()> {
    for conflict in found {
        let (kept, lost) = if mode == ConflictMode::KeepLatest {
            (&conflict.package, &conflict.owner)
        } else {
            packages.omit_path(&conflict.package, &conflict.path)?;
            (&conflict.owner, &conflict.package)
        };
        let text = format!("/{}: of {kept}, not of {lost}", conflict.path.display());
        ran.warnings.push(format!("Two packages ship one file; {text}"));
        ran.overwritten.push(text);
    }
    Ok(())
}

struct Run<'a> {
    stage: &'a Stage,
    surroundings: Surroundings,
    options: &'a RunOptions,
    report: &'a dyn Report,
    packages: Packages<'a>,
    step: &'a Progress<'a>,
    scripts: &'a Scripts,
}

impl Run<'_> {
    /// Runs all steps; in the mode that skips, once more without each script that fails.
    fn replay(&mut self, mut lines: Vec<Step>, ran: &mut Ran) -> Result<()> {
        loop {
            let log = self.stage.scratch().join("stubs.log");
            let sandbox = self
                .surroundings
                .sandbox()?
                .show(self.packages.folder(), &format!("{PLACE}/packages"))
                .file(steps::text(&lines).as_bytes(), &format!("{PLACE}/steps"), 0o644)?
                .file(steps::SCRIPT, &format!("{PLACE}/replay"), 0o755)?
                .stubs(STUBS, &log)?;
            let cmd = sandbox.command("/bin/sh").arg(format!("{PLACE}/replay"));
            let mut watch = Watch::new(self.report, self.step, self.scripts);
            let (sender, stop) = oneshot::channel();
            let interrupt = Interrupt::stopping(move || {
                if sender.send(()).is_err() {
                    tracing::debug!("the run ended before the signal reached it");
                }
            })?;
            let ending = cmd.follow(Some(self.options.script_timeout), stop, |line| match line {
                Line::Output(line) => watch.status(line),
                Line::Error(line) => watch.output(line),
            })?;
            drop(interrupt);
            ran.initramfs_wanted |= wants_initramfs(&watch, &log)?;
            let status = match ending {
                Ending::Exited(status) if status.success() => {
                    watch.finish();
                    return self.check(&watch);
                }
                Ending::Exited(status) => status,
                Ending::Overdue => return Err(overdue(&watch, self.options.script_timeout).into()),
                Ending::Stopped => return Err(cancelled(&watch).into()),
            };
            if !self.works()? {
                return Err(destroyed(&watch).into());
            }
            let failed = watch.failed.as_ref();
            let skipped = failed.and_then(|phase| Some((&phase.package, phase.script?)));
            let (ScriptMode::Skip, Some((package, script))) = (self.options.scripts, skipped) else {
                return Err(failure(&watch, &status.to_string()).into());
            };
            let told = format!("{package}.{script}: it failed");
            // The same script cannot fail twice: it is gone.
            anyhow::ensure!(
                !ran.skipped_scripts.contains(&told),
                failure(&watch, &status.to_string())
            );
            self.packages.omit_script(package, script)?;
            ran.skipped_scripts.push(told);
            let text = format!("The {script} of {package} failed and was left out");
            ran.warnings.push(with_lines(text, &watch));
            let mut left = lines.split_off(watch.step.min(lines.len()));
            if let Some(first) = left.first().cloned() {
                left.splice(..1, first.left(&watch.states)?);
            }
            lines = left;
        }
    }

    /// Returns whether programs of the root still run.
    fn works(&self) -> Result<bool> {
        let cmd = self.surroundings.sandbox()?.command("/usr/bin/true");
        Ok(cmd.output()?.status.success())
    }

    /// Fails unless the root still works and dpkg finds every package in order.
    fn check(&self, watch: &Watch<'_>) -> Result<()> {
        if !self.works()? {
            return Err(destroyed(watch).into());
        }
        let output = self
            .surroundings
            .sandbox()?
            .command("dpkg")
            .arg("--audit")
            .output()?;
        let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && told.is_empty() {
            return Ok(());
        }
        Err(Fault::new(
            Kind::Invalid,
            format!("dpkg finds packages that are not in order: {told}"),
        )
        .into())
    }
}

/// Returns whether something asked for a new initramfs.
fn wants_initramfs(watch: &Watch<'_>, log: &std::path::Path) -> Result<bool> {
    let called = std::fs::read(log)?;
    let called = String::from_utf8_lossy(&called);
    Ok(called
        .lines()
        .filter_map(|line| line.split(' ').next())
        .any(|program| program == "update-initramfs" || program == "dracut")
        || watch
            .triggered
            .iter()
            .any(|package| INITRAMFS_MAKERS.contains(&package.as_str())))
}

fn what(phase: Option<&Phase>) -> String {
    phase.map_or_else(|| "dpkg".to_owned(), ToString::to_string)
}

fn with_lines(text: String, watch: &Watch<'_>) -> String {
    let lines = watch.last_lines();
    if lines.is_empty() {
        return text;
    }
    format!("{text}; its last lines:\n{lines}")
}

fn failure(watch: &Watch<'_>, status: &str) -> Fault {
    let phase = watch.failed.as_ref().or_else(|| watch.phase());
    let text = with_lines(format!("Failed ({status}): {}", what(phase)), watch);
    let fault = Fault::new(Kind::Invalid, text);
    match phase.filter(|phase| phase.script.is_some()) {
        Some(phase) => fault.hint(format!(
            "`journalctl APT_OSTREE_PACKAGE={}` shows all it wrote; `--scripts=skip` installs the package without it",
            phase.package
        )),
        None => fault,
    }
}

fn destroyed(watch: &Watch<'_>) -> Fault {
    let phase = watch.last_script().or_else(|| watch.phase());
    let text = format!(
        "No program starts any more in the root of the new deployment, destroyed by {}",
        what(phase)
    );
    Fault::new(Kind::Invalid, with_lines(text, watch))
        .hint("this system is not harmed; leave the package out")
}

fn overdue(watch: &Watch<'_>, limit: Duration) -> Fault {
    let text = format!(
        "Took longer than {} s and was ended: {}",
        limit.as_secs(),
        what(watch.phase())
    );
    Fault::new(Kind::Invalid, with_lines(text, watch)).hint("give it more time with `--script-timeout`")
}

fn cancelled(watch: &Watch<'_>) -> Fault {
    Fault::new(
        Kind::Cancelled,
        format!(
            "Cancelled by a signal, and nothing was changed; running was: {}",
            what(watch.phase())
        ),
    )
}

/// Notes for apt which packages were pulled in by others.
#[context("Noting which packages were pulled in")]
fn mark_automatic(stage: &Stage, plan: &Plan, surroundings: &Surroundings) -> Result<()> {
    let automatic: Vec<_> = plan.packages.iter().filter(|package| package.automatic).collect();
    if automatic.is_empty() {
        return Ok(());
    }
    let native = surroundings
        .sandbox()?
        .command("dpkg")
        .arg("--print-architecture")
        .run_text()?;
    let path = format!("{}/extended_states", seed::DATABASE);
    let mut text = rootfs::read_text(stage.dir(), &path)?.unwrap_or_default();
    for package in automatic {
        let architecture = match package.id.architecture.as_str() {
            "all" => native.trim(),
            architecture => architecture,
        };
        let head = format!("Package: {}\nArchitecture: {architecture}\n", package.id.name);
        if !text.contains(&head) {
            text += &format!("{head}Auto-Installed: 1\n\n");
        }
    }
    rootfs::write(stage.dir(), &path, &text, 0o644)?;
    Ok(())
}
