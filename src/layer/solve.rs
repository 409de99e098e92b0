//! From an intent to a plan: apt decides, with the image's packages frozen at their versions.
//!
//! The image's packages are pinned to what is installed, except those that an override lets go; preferences of the
//! administrator and holds of the image stay in force. Nothing that the image has is replaced or removed
//! unless the intent names it: such a solution of apt is refused, with what would have to change.

use super::archive::{Archive, write_if_other};
use super::base::relation_names;
use super::intent::{Intent, LocalPackage};
use super::plan::{Plan, PlannedPackage};
use super::simulation::{Outcome, Simulation};
use crate::report::Report;
use anyhow::{Context, Result};
use deb822_fast::{Deb822, Paragraph};
use fn_error_context::context;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

impl Archive {
    /// Solves the intent against the image and the stored indexes.
    ///
    /// Fails with one fault that names every request that cannot be met, and why. Nothing is changed.
    #[context("Resolving dependencies")]
    pub fn solve(&self, intent: &Intent, report: &dyn Report) -> Result<Plan> {
        let step = report.step("Resolving dependencies");
        let question = self.question(intent)?;
        let plan = Plan {
            dormant: question.dormant.clone(),
            foreign_architectures: self.base.foreign.clone(),
            ..Plan::default()
        };
        let arguments = question.arguments();
        if arguments.is_empty() {
            step.done("Every request is met by the image");
            return Ok(plan);
        }
        self.require_known(&question.names)?;
        self.write_pins(intent)?;
        let plan = match self.simulate(&arguments, true)? {
            Outcome::Solved(simulation) if self.losses(&simulation, intent).is_empty() => {
                self.finish(plan, intent, simulation)?
            }
            outcome => return Err(self.explain(&question, intent, outcome)?.into()),
        };
        step.done("Resolved dependencies");
        Ok(plan)
    }

    /// Returns where the file of a local package is kept.
    pub(super) fn local_path(&self, local: &LocalPackage) -> PathBuf {
        super::store::path(&self.state, &local.sha256)
    }

    /// Freezes the image's packages, except those that an override lets go.
    fn write_pins(&self, intent: &Intent) -> Result<()> {
        let let_go = replaced_names(intent);
        let frozen: BTreeSet<&str> = self
            .base
            .iter()
            .map(|installed| installed.id.name.as_str())
            .filter(|name| !let_go.contains(name))
            .collect();
        let names: Vec<&str> = frozen.into_iter().collect();
        let text = if names.is_empty() {
            String::new()
        } else {
            // By name, because that counts before every preference that names no package.
            format!(
                "Package: {}\nPin: release a=now\nPin-Priority: 32767\n",
                names.join(" ")
            )
        };
        write_if_other(&self.folder.join("etc/pins"), text.as_bytes(), 0o644)?;
        Ok(())
    }

    /// Returns what the image would lose, or get in another version, without being asked to.
    pub(super) fn losses(&self, simulation: &Simulation, intent: &Intent) -> Vec<String> {
        let asked = |name: &str| intent.removals.iter().any(|removal| removal.name == name);
        let let_go = replaced_names(intent);
        let mut losses = Vec::new();
        for removed in &simulation.removals {
            if !asked(&removed.name) {
                losses.push(removed.name.clone());
            }
        }
        for install in &simulation.installs {
            let name = install.id.name.as_str();
            if install.replaces.is_some() && !let_go.contains(name) {
                losses.push(name.to_owned());
            }
        }
        losses
    }

    /// Asks for the address of packages (`name=version`): SHA-256 to address. Unlike `install --print-uris` this does
    /// not solve once more.
    fn uris(&self, names: &[String]) -> Result<BTreeMap<String, String>> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let text = self
            .apt("apt-get")
            .args(["download", "--print-uris", "-q", "--"])
            .args(names)
            .run_text()?;
        let mut found = BTreeMap::new();
        for line in text.lines() {
            let Some((uri, rest)) = line.strip_prefix('\'').and_then(|line| line.split_once("' ")) else {
                continue;
            };
            if let Some(sha256) = rest
                .rsplit(' ')
                .next()
                .and_then(|word| word.strip_prefix("SHA256:"))
            {
                found.insert(sha256.to_owned(), uri.to_owned());
            }
        }
        Ok(found)
    }

    /// Adds sizes, checksums and addresses to what apt will do.
    fn finish(&self, mut plan: Plan, intent: &Intent, simulation: Simulation) -> Result<Plan> {
        let locals = || intent.local_packages.iter().chain(&intent.local_replacements);
        let remote: Vec<String> = simulation
            .installs
            .iter()
            .filter(|install| !locals().any(|local| local.is(&install.id)))
            .map(|install| self.exact_name(&install.id))
            .collect();
        let (records, uris) = std::thread::scope(|scope| {
            let uris = scope.spawn(|| self.uris(&remote));
            (self.records(&remote), uris.join())
        });
        let uris = uris.map_err(|_| anyhow::anyhow!("The thread that asks for addresses panicked"))??;
        let records = records?;
        for install in simulation.installs {
            let id = install.id;
            let local = locals().find(|local| local.is(&id));
            let (record, uri, repository) = match local {
                Some(local) => (
                    super::store::describe(&self.local_path(local))?,
                    None,
                    "local".to_owned(),
                ),
                None => {
                    let record = records.iter().find(|record| {
                        let of_package = record.get("Package") == Some(&id.name)
                            && record.get("Version") == Some(&id.version)
                            && record.get("Architecture") == Some(&id.architecture);
                        of_package
                            && record
                                .get("SHA256")
                                .is_some_and(|sha256| uris.contains_key(sha256))
                    });
                    let record = record
                        .with_context(|| format!("apt tells no address and SHA-256 of {}", id.name))?
                        .clone();
                    let uri = uris.get(record.get("SHA256").unwrap_or_default()).cloned();
                    (record, uri, install.repository)
                }
            };
            let field = |name: &str| record.get(name).unwrap_or_default();
            let kilobytes: u64 = field("Installed-Size").parse().unwrap_or(0);
            let provides = relation_names(field("Provides"));
            let requested = local.is_some()
                || intent.packages.iter().chain(&intent.replacements).any(|request| {
                    let named = request.name == id.name
                        && request
                            .architecture
                            .as_ref()
                            .is_none_or(|wanted| *wanted == id.architecture);
                    named || provides.contains(&request.name)
                });
            plan.packages.push(PlannedPackage {
                replaces: install.replaces,
                repository,
                uri,
                sha256: local.map_or(field("SHA256"), |local| &local.sha256).to_owned(),
                download_size: field("Size").parse().unwrap_or(0),
                installed_size: kilobytes * 1024,
                automatic: !requested,
                id,
            });
        }
        plan.packages.sort_by(|a, b| a.id.cmp(&b.id));
        plan.removals = simulation.removals;
        plan.removals.sort();
        plan.steps = simulation.steps;
        Ok(plan)
    }

    /// Returns the records that the indexes have for these packages (`name=version`).
    fn records(&self, names: &[String]) -> Result<Vec<Paragraph>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let text = self.apt("apt-cache").args(["show", "--"]).args(names).run()?;
        parse_records(&text)
    }

    /// Returns `name=version`, with the architecture where it is a foreign one.
    fn exact_name(&self, id: &super::plan::PackageId) -> String {
        if self.base.foreign.contains(&id.architecture) {
            format!("{}:{}={}", id.name, id.architecture, id.version)
        } else {
            format!("{}={}", id.name, id.version)
        }
    }
}

/// Reads the paragraphs that `apt-cache show` prints.
pub(super) fn parse_records(text: &[u8]) -> Result<Vec<Paragraph>> {
    let parsed: Deb822 = String::from_utf8_lossy(text)
        .parse()
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("Reading the records of packages")?;
    Ok(parsed.into_iter().collect())
}

/// Returns the names of the packages that overrides exchange.
fn replaced_names(intent: &Intent) -> BTreeSet<&str> {
    let remote = intent.replacements.iter().map(|request| request.name.as_str());
    remote
        .chain(intent.local_replacements.iter().map(|local| local.name.as_str()))
        .collect()
}

impl LocalPackage {
    /// Returns whether this is that package.
    pub(super) fn is(&self, id: &super::plan::PackageId) -> bool {
        self.name == id.name && self.version == id.version && self.architecture == id.architecture
    }
}
