//! What dpkg tells of itself while it works (`--status-fd`): which package, which script, how far.
//!
//! Lines that scripts write come by another way and belong to the script that runs at that time.

use crate::layer::expected::Scripts;
use crate::report::{Report, Step, Unit};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Instant;

/// Lines of output that are kept for the case that a script fails.
const LAST_LINES: usize = 20;

/// What dpkg does to a package at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    /// The package's name, without architecture.
    pub(crate) package: String,
    /// The maintainer script that runs, as far as there is one.
    pub(crate) script: Option<&'static str>,
    action: Action,
}

/// What dpkg does to a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Install,
    Upgrade,
    Configure,
    Trigger,
    Remove,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.script, self.action) {
            (Some(script), _) => write!(f, "the {script} of {}", self.package),
            (None, Action::Install | Action::Upgrade) => write!(f, "unpacking {}", self.package),
            (None, Action::Configure) => write!(f, "setting up {}", self.package),
            (None, Action::Trigger) => write!(f, "the triggers of {}", self.package),
            (None, Action::Remove) => write!(f, "removing {}", self.package),
        }
    }
}

/// Follows one run.
pub(crate) struct Watch<'a> {
    report: &'a dyn Report,
    progress: &'a Step<'a>,
    scripts: &'a Scripts,
    /// Which step the script is at.
    pub(crate) step: usize,
    phase: Option<Phase>,
    /// When the script of the phase began.
    script_begun: Option<Instant>,
    last_script: Option<Phase>,
    /// The first thing that failed.
    pub(crate) failed: Option<Phase>,
    /// The state that dpkg last told of each package, as it names it: `name` or `name:arch`.
    pub(crate) states: BTreeMap<String, String>,
    /// Packages whose triggers ran, in order.
    pub(crate) triggered: Vec<String>,
    last: VecDeque<String>,
    /// The last lines of the phase that failed first, once another has begun.
    failure_lines: Option<Vec<String>>,
}

impl<'a> Watch<'a> {
    /// Begins a run that is part of the step `progress`, in which these scripts run.
    pub(crate) fn new(report: &'a dyn Report, progress: &'a Step<'a>, scripts: &'a Scripts) -> Self {
        Self {
            report,
            progress,
            scripts,
            step: 0,
            phase: None,
            script_begun: None,
            last_script: None,
            failed: None,
            states: BTreeMap::new(),
            triggered: Vec::new(),
            last: VecDeque::new(),
            failure_lines: None,
        }
    }

    /// Takes a line of `--status-fd`, or `step: N` of the script.
    pub(crate) fn status(&mut self, line: &str) {
        // `status: NAME : error : TEXT`; only these have a blank before the colon.
        if let Some((_, told)) = line.split_once(" : ") {
            if line.starts_with("status:") && told.starts_with("error :") {
                self.fail();
            }
            return;
        }
        match line.split_once(": ") {
            Some(("step", number)) => self.step = number.parse().unwrap_or(self.step),
            Some(("processing", rest)) => {
                if let Some((action, package)) = rest.split_once(": ") {
                    self.begin(action, package);
                }
            }
            // The name may carry an architecture, `name:arch`.
            Some(("status", rest)) => {
                if let Some((package, state)) = rest.rsplit_once(": ") {
                    self.note(package, state);
                }
            }
            _ => tracing::debug!("dpkg told something unknown: {line}"),
        }
    }

    fn begin(&mut self, action: &str, package: &str) {
        let (action, text) = match action {
            "install" => (Action::Install, "Unpacking"),
            "upgrade" => (Action::Upgrade, "Unpacking"),
            "configure" => (Action::Configure, "Setting up"),
            "trigproc" => (Action::Trigger, "Running the triggers of"),
            "remove" | "purge" | "disappear" => (Action::Remove, "Removing"),
            _ => return,
        };
        let package = plain_name(package);
        self.finish();
        if action == Action::Trigger {
            self.triggered.push(package.clone());
            self.script_begun = Some(Instant::now());
        }
        self.progress.doing(&format!("{text} {package}"));
        let lines = self.last.drain(..).collect();
        if self.failed.is_some() && self.failure_lines.is_none() {
            self.failure_lines = Some(lines);
        }
        self.phase = Some(Phase {
            package,
            script: (action == Action::Trigger).then_some("postinst"),
            action,
        });
    }

    /// Counts what the phase that ends now has done; to be called at the end of a run that succeeded, too.
    pub(crate) fn finish(&mut self) {
        self.end_script();
        let Some(phase) = self.phase.as_ref().filter(|_| self.failed.is_none()) else {
            return;
        };
        if phase.action == Action::Trigger {
            return;
        }
        let (package, action) = (&phase.package, phase.action);
        self.progress.advance(Unit::Actions, 1);
        self.progress
            .advance(Unit::Scripts, self.scripts.number(package, action));
        if matches!(action, Action::Configure | Action::Remove) {
            self.progress.advance(Unit::Packages, 1);
        }
    }

    /// Tells how long the script took that ends now, if one does.
    fn end_script(&mut self) {
        let (Some(begun), Some(phase)) = (self.script_begun.take(), &self.phase) else {
            return;
        };
        let script = match (phase.action, phase.script) {
            (Action::Trigger, _) => "triggers",
            (_, Some(script)) => script,
            (_, None) => return,
        };
        self.report.script(&phase.package, script, begun.elapsed());
    }

    fn note(&mut self, package: &str, state: &str) {
        let name = plain_name(package);
        if self.phase.as_ref().is_some_and(|phase| phase.package == name) {
            self.end_script();
        }
        if let Some(phase) = self.phase.as_mut().filter(|phase| phase.package == name) {
            phase.script = match (phase.action, state) {
                (Action::Install | Action::Upgrade, "half-installed") => Some("preinst"),
                (Action::Upgrade | Action::Remove, "half-configured") => Some("prerm"),
                (Action::Remove, "half-installed") => Some("postrm"),
                (Action::Configure | Action::Trigger, "half-configured") => Some("postinst"),
                (Action::Trigger, _) => phase.script,
                _ => None,
            };
            if let Some(script) = phase.script {
                self.last_script = Some(phase.clone());
                // What dpkg calls the time of the others holds its own work as well.
                let alone = matches!(script, "prerm" | "postinst");
                if alone && self.scripts.has(&phase.package, phase.action, script) {
                    self.script_begun = Some(Instant::now());
                }
            }
        }
        self.states.insert(package.to_owned(), state.to_owned());
    }

    fn fail(&mut self) {
        if self.failed.is_none() {
            self.failed.clone_from(&self.phase);
        }
    }

    /// Takes a line that dpkg or a script wrote.
    pub(crate) fn output(&mut self, line: &str) {
        let (package, script) = match &self.phase {
            Some(phase) => (phase.package.as_str(), phase.script.unwrap_or("dpkg")),
            None => ("", "dpkg"),
        };
        tracing::info!(target: "script", package, script, "{line}");
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    /// Returns what runs now.
    pub(crate) fn phase(&self) -> Option<&Phase> {
        self.phase.as_ref()
    }

    /// Returns when a script ran last.
    pub(crate) fn last_script(&self) -> Option<&Phase> {
        self.last_script.as_ref()
    }

    /// Returns the last lines of what failed first, or of what runs now.
    pub(crate) fn last_lines(&self) -> String {
        match &self.failure_lines {
            Some(lines) => lines.join("\n"),
            None => self
                .last
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join("\n"),
        }
    }
}

/// Returns a package's name without its architecture.
fn plain_name(package: &str) -> String {
    package.split(':').next().unwrap_or(package).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Silent;

    fn watched<T>(look: impl FnOnce(&mut Watch<'_>) -> T) -> T {
        let report: &dyn Report = &Silent;
        let (progress, scripts) = (report.step("Installing"), Scripts::default());
        look(&mut Watch::new(report, &progress, &scripts))
    }

    #[test]
    fn the_running_script_is_told_by_the_states() {
        let lines = [
            ("processing: upgrade: alpha", "unpacking alpha"),
            ("status: alpha: half-configured", "the prerm of alpha"),
            ("status: alpha: unpacked", "unpacking alpha"),
            ("status: alpha: half-installed", "the preinst of alpha"),
            ("status: alpha: unpacked", "unpacking alpha"),
            ("processing: configure: alpha", "setting up alpha"),
            ("status: alpha: half-configured", "the postinst of alpha"),
            ("status: alpha: installed", "setting up alpha"),
        ];
        watched(|watch| {
            for (line, phase) in lines {
                watch.status(line);
                assert_eq!(
                    watch.phase().map(Phase::to_string).as_deref(),
                    Some(phase),
                    "{line}"
                );
            }
        });
    }

    #[test]
    fn the_first_failure_counts_and_carries_its_own_lines() {
        watched(|watch| {
            watch.status("step: 3");
            watch.status("processing: configure: a:amd64");
            watch.status("status: a:amd64: half-configured");
            watch.status("status: a:amd64 : error : a subprocess: returned 3");
            watch.output("no luck");
            watch.status("processing: configure: b");
            watch.status("status: b : error : dependency problems - leaving unconfigured");
            assert_eq!(watch.failed.as_ref().unwrap().to_string(), "the postinst of a");
            assert_eq!((watch.last_lines().as_str(), watch.step), ("no luck", 3));
            assert_eq!(watch.states["a:amd64"], "half-configured");
        });
    }
}
