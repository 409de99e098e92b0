//! Why requests cannot be met: all of them in one fault, each with its reason and the way out.

use super::archive::Archive;
use super::intent::{Intent, PackageRequest};
use super::question::Question;
use super::simulation::{Outcome, Simulation};
use crate::fault::{Fault, Kind};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};

/// Why one request cannot be met.
#[derive(Debug)]
enum Reason {
    /// It needs packages of the image in other versions: `(name, image's version, needed version)`.
    Drift(Vec<(String, String, String)>),
    /// The image would lose packages.
    Loses(Vec<String>),
    /// apt's own words.
    Told(String),
}

impl Archive {
    /// Fails with one fault that names every package that no repository has.
    pub(super) fn require_known(&self, names: &[PackageRequest]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let known = self.known(names)?;
        let (mut unknown, mut about) = (Vec::new(), Vec::new());
        for request in names {
            let before = unknown.len();
            match (known.get(&self.full_name(request)), &request.version) {
                (None, _) => unknown.push(format!("`{request}`")),
                (Some(versions), Some(version)) if !versions.contains(version) => {
                    let there = versions.iter().cloned().collect::<Vec<_>>().join(", ");
                    unknown.push(format!("`{request}` (there is: {there})"));
                }
                _ => {}
            }
            if unknown.len() > before {
                about.push(request.to_string());
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let fault = Fault::new(
            Kind::NotFound,
            format!("No repository has {}", unknown.join(", ")),
        )
        .about(about);
        Err(match (self.repositories.is_empty(), self.has_lists()) {
            (true, _) => fault.hint("add a repository in /etc/apt/sources.list.d"),
            (false, false) => fault.hint("fetch the package lists with `apt-ostree refresh-md`"),
            (false, true) => fault.hint("look for the name with `apt-ostree search TERM`"),
        }
        .into())
    }

    /// Returns the names that apt knows, with their versions; a virtual name has none.
    fn known(&self, names: &[PackageRequest]) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let words: Vec<String> = names.iter().map(|request| self.full_name(request)).collect();
        // Its status only says whether any of them is known.
        let output = self
            .apt("apt-cache")
            .args(["showpkg", "--"])
            .args(words)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let (mut name, mut section) = ("", "");
        for line in text.lines() {
            if let Some(found) = line.strip_prefix("Package: ") {
                (name, section) = (found, "");
            } else if line.ends_with(": ") && !line.starts_with(' ') {
                section = line.trim_end();
            } else if section == "Versions:" && !line.starts_with(' ') {
                if let Some((version, _)) = line.split_once(' ') {
                    let versions = known.entry(name.to_owned()).or_default();
                    versions.insert(version.to_owned());
                }
            } else if section == "Reverse Provides:" && !line.is_empty() {
                known.entry(name.to_owned()).or_default();
            }
        }
        Ok(known)
    }

    /// Returns the name as apt prints it: qualified only when it is of a foreign architecture.
    pub(super) fn full_name(&self, request: &PackageRequest) -> String {
        match &request.architecture {
            Some(architecture) if *architecture != self.base.native => {
                format!("{}:{architecture}", request.name)
            }
            _ => request.name.clone(),
        }
    }

    /// Finds out which requests are at fault, and why.
    pub(super) fn explain(&self, question: &Question, intent: &Intent, whole: Outcome) -> Result<Fault> {
        let overrides: Vec<String> = question
            .overrides
            .iter()
            .map(|(_, argument)| argument.clone())
            .collect();
        let names: Vec<&str> = question.overrides.iter().map(|(text, _)| text.as_str()).collect();
        let mut reasons: Vec<(String, Reason)> = Vec::new();
        if !overrides.is_empty() {
            let outcome = self.simulate(&overrides, true)?;
            if let Some(reason) = self.reason(&overrides, intent, outcome)? {
                reasons.push((names.join("`, `"), reason));
            }
        }
        if reasons.is_empty() {
            for (text, argument) in &question.requests {
                let mut arguments = overrides.clone();
                arguments.push(argument.clone());
                let outcome = self.simulate(&arguments, true)?;
                if let Some(reason) = self.reason(&arguments, intent, outcome)? {
                    reasons.push((text.clone(), reason));
                }
            }
        }
        if reasons.is_empty() {
            // Each is possible alone.
            let all: Vec<&str> = question.requests.iter().map(|(text, _)| text.as_str()).collect();
            let arguments = question.arguments();
            if let Some(reason) = self.reason(&arguments, intent, whole)? {
                reasons.push(([all, names].concat().join("`, `"), reason));
            }
        }
        Ok(fault(&reasons))
    }

    /// Returns why the arguments cannot be met with the image as it is; nothing when they can.
    fn reason(&self, arguments: &[String], intent: &Intent, outcome: Outcome) -> Result<Option<Reason>> {
        let reason = match outcome {
            Outcome::Solved(simulation) => {
                let losses = self.losses(&simulation, intent);
                if losses.is_empty() {
                    return Ok(None);
                }
                Reason::Loses(losses)
            }
            Outcome::Unsolvable(text) => Reason::Told(text),
        };
        // Would it work if the image's packages could be newer?
        if let Outcome::Solved(simulation) = self.simulate(arguments, false)? {
            let drift = self.drift(&simulation, intent);
            let removes = simulation.removals.iter();
            let loses = removes
                .filter(|removed| !intent.removals.iter().any(|removal| removal.name == removed.name))
                .count();
            if !drift.is_empty() && loses == 0 {
                return Ok(Some(Reason::Drift(drift)));
            }
        }
        Ok(Some(reason))
    }

    fn drift(&self, simulation: &Simulation, intent: &Intent) -> Vec<(String, String, String)> {
        let losses = self.losses(simulation, intent);
        let mut drift: Vec<_> = simulation
            .installs
            .iter()
            .filter(|install| losses.contains(&install.id.name))
            .filter_map(|install| {
                let before = install.replaces.clone()?;
                Some((install.id.name.clone(), before, install.id.version.clone()))
            })
            .collect();
        drift.sort();
        drift
    }
}

fn fault(reasons: &[(String, Reason)]) -> Fault {
    let mut exchanged = BTreeSet::new();
    let mut told = Vec::new();
    let mut names = Vec::new();
    let about = reasons.iter().flat_map(|(request, _)| request.split("`, `"));
    for (request, reason) in reasons {
        told.push(match reason {
            Reason::Drift(packages) => {
                let needs: Vec<String> = packages
                    .iter()
                    .map(|(name, before, after)| format!("{name} {after} where the image has {before}"))
                    .collect();
                exchanged.extend(packages.iter().map(|(name, _, _)| name.as_str()));
                format!("`{request}` needs {}", needs.join(", "))
            }
            Reason::Loses(packages) => {
                names.push(request.as_str());
                format!("`{request}` would take {} out of the image", packages.join(", "))
            }
            Reason::Told(text) => {
                names.push(request.as_str());
                format!("`{request}`: {text}")
            }
        });
    }
    let mut ways = Vec::new();
    if !exchanged.is_empty() {
        let exchanged: Vec<&str> = exchanged.into_iter().collect();
        ways.push(format!(
            "upgrade the image with `apt-ostree upgrade`, or exchange its packages with `apt-ostree override replace {}`",
            exchanged.join(" ")
        ));
    }
    if !names.is_empty() {
        let names = names.join(" ").replace("`, `", " ");
        ways.push(format!("go on without them: `apt-ostree uninstall {names}`"));
    }
    Fault::new(
        Kind::Unsupported,
        format!("The packages cannot be put on this image: {}", told.join("; ")),
    )
    .about(about)
    .hint(ways.join("; or "))
}
