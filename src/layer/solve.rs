//! From an intent to a plan: apt decides, with the image's packages frozen at their versions.
//!
//! The image's packages are pinned to what is installed, except those that an override lets go; preferences of the
//! administrator and holds of the image stay in force. Nothing that the image has is replaced or removed
//! unless the intent names it: such a solution of apt is refused, with what would have to change.

use super::archive::{Archive, write_if_other};
use super::base::{Installed, relation_names};
use super::intent::{Intent, LocalPackage, PackageRequest};
use super::plan::{Dormant, Plan, PlannedPackage};
use super::simulation::{Outcome, Simulation};
use crate::fault::{Fault, Kind};
use crate::report::Report;
use anyhow::{Context, Result};
use deb822_fast::{Deb822, Paragraph};
use fn_error_context::context;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What apt is asked, and what needs no asking.
#[derive(Debug, Default)]
pub(super) struct Question {
    /// Requests of packages on top: what the user wrote, and apt's argument.
    pub(super) requests: Vec<(String, String)>,
    /// Arguments of the overrides.
    pub(super) overrides: Vec<(String, String)>,
    /// Names that are looked up in the repositories.
    pub(super) names: Vec<PackageRequest>,
    dormant: Vec<Dormant>,
}

impl Question {
    /// Returns all arguments.
    pub(super) fn arguments(&self) -> Vec<String> {
        let all = self.requests.iter().chain(&self.overrides);
        all.map(|(_, argument)| argument.clone()).collect()
    }
}

impl Archive {
    /// Solves the intent against the image and the stored indexes.
    ///
    /// Fails with one fault that names every request that cannot be met, and why. Nothing is changed.
    #[context("Resolving dependencies")]
    pub fn solve(&self, intent: &Intent, report: &dyn Report) -> Result<Plan> {
        report.step("Resolving dependencies");
        let question = self.question(intent)?;
        let plan = Plan {
            dormant: question.dormant.clone(),
            foreign_architectures: self.base.foreign.clone(),
            ..Plan::default()
        };
        let arguments = question.arguments();
        if arguments.is_empty() {
            return Ok(plan);
        }
        self.require_known(&question.names)?;
        self.write_pins(intent)?;
        // Both calls solve the same; the second one tells addresses and checksums.
        let (outcome, uris) = std::thread::scope(|scope| {
            let uris = scope.spawn(|| self.uris(&arguments));
            let outcome = self.simulate(&arguments, true);
            (outcome, uris.join())
        });
        let uris = uris.map_err(|_| anyhow::anyhow!("The thread that asks for addresses panicked"))?;
        match outcome? {
            Outcome::Solved(simulation) if self.losses(&simulation, intent).is_empty() => {
                self.finish(plan, intent, simulation, &uris?)
            }
            outcome => Err(self.explain(&question, intent, outcome)?.into()),
        }
    }

    /// Sorts the intent into what is asked of apt and what the image provides already.
    fn question(&self, intent: &Intent) -> Result<Question> {
        let mut question = Question::default();
        let mut wrong = Vec::new();
        let removed = |name: &str| intent.removals.iter().any(|removal| removal.name == name);
        for request in &intent.packages {
            let text = request.to_string();
            if removed(&request.name) {
                wrong.push(format!("`{text}` is requested, and an override removes it"));
                continue;
            }
            match self.provided(request, intent) {
                Some(installed) => match differs(request, installed) {
                    Some(reason) => wrong.push(format!("`{text}`: {reason}")),
                    None => question.dormant.push(dormant(&text, installed)),
                },
                None => {
                    if let Some(architecture) = &request.architecture {
                        self.require_architecture(&text, architecture)?;
                    }
                    question.requests.push((text.clone(), text));
                    question.names.push(request.clone());
                }
            }
        }
        for local in &intent.local_packages {
            let file = self.local_file(local)?;
            if let Some(installed) = self
                .base
                .find(&local.name, None)
                .filter(|_| !removed(&local.name))
            {
                if installed.id.version == local.version {
                    question.dormant.push(dormant(&local.id(), installed));
                } else {
                    wrong.push(format!(
                        "`{}`: the image has {} {}",
                        local.id(),
                        local.name,
                        installed.id.version
                    ));
                }
                continue;
            }
            question.requests.push((local.id(), file));
        }
        if !wrong.is_empty() {
            return Err(Fault::new(Kind::Usage, wrong.join("; "))
                .hint("a package of the image is exchanged with `apt-ostree override replace`")
                .into());
        }
        self.ask_overrides(intent, &mut question)?;
        Ok(question)
    }

    /// Overrides of packages that the image no longer has are inactive and not asked for.
    fn ask_overrides(&self, intent: &Intent, question: &mut Question) -> Result<()> {
        for removal in &intent.removals {
            let installed = self.base.find(&removal.name, removal.architecture.as_deref());
            let Some(installed) = installed else { continue };
            if installed.essential {
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!(
                        "`{}` is essential: the system does not work without it",
                        removal.name
                    ),
                )
                .into());
            }
            let architecture = removal.architecture.as_ref();
            let qualified = architecture.map_or(String::new(), |architecture| format!(":{architecture}"));
            let argument = format!("{}{qualified}-", removal.name);
            question.overrides.push((removal.to_string(), argument));
        }
        for replacement in &intent.replacements {
            let installed = self
                .base
                .find(&replacement.name, replacement.architecture.as_deref());
            let Some(installed) = installed else { continue };
            if installed.held && replacement.version.is_none() {
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!(
                        "The image holds `{}` at version {}",
                        replacement.name, installed.id.version
                    ),
                )
                .hint(format!("name the version: `{}=VERSION`", replacement.name))
                .into());
            }
            let text = replacement.to_string();
            question.overrides.push((text.clone(), text));
            question.names.push(replacement.clone());
        }
        for local in &intent.local_replacements {
            let file = self.local_file(local)?;
            let installed = self.base.find(&local.name, None);
            if installed.is_some_and(|installed| installed.id.version != local.version) {
                question.overrides.push((local.id(), file));
            }
        }
        Ok(())
    }

    /// Returns the package of the image that satisfies a request.
    fn provided(&self, request: &PackageRequest, intent: &Intent) -> Option<&Installed> {
        let found = self.base.find(&request.name, request.architecture.as_deref());
        let stays = |installed: &&Installed| {
            let name = &installed.id.name;
            !intent.removals.iter().any(|removal| removal.name == *name)
        };
        let virtual_only =
            request.version.is_none() && request.suite.is_none() && request.architecture.is_none();
        found
            .or_else(|| self.base.provider(&request.name).filter(|_| virtual_only))
            .filter(stays)
    }

    /// Returns the argument by which apt takes a stored package.
    fn local_file(&self, local: &LocalPackage) -> Result<String> {
        self.require_architecture(&local.id(), &local.architecture)?;
        let file = self.local_path(local);
        if !file.is_file() {
            return Err(Fault::new(
                Kind::NotFound,
                format!(
                    "The file of the local package `{}` is gone from this host",
                    local.id()
                ),
            )
            .hint(format!(
                "take it out with `apt-ostree uninstall {}` and install it again from a file",
                local.name
            ))
            .into());
        }
        Ok(file.to_str().context("A path is not UTF-8")?.to_owned())
    }

    fn require_architecture(&self, what: &str, architecture: &str) -> Result<()> {
        if self.base.accepts(architecture) {
            return Ok(());
        }
        let known = [std::slice::from_ref(&self.base.native), &self.base.foreign].concat();
        Err(Fault::new(
            Kind::Unsupported,
            format!(
                "`{what}` is for {architecture}, and the image takes {}",
                known.join(", ")
            ),
        )
        .hint(format!(
            "allow it with `APT::Architectures:: \"{architecture}\";` in /etc/apt/apt.conf.d"
        ))
        .into())
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

    /// Asks for address and checksum of everything that is fetched: checksum to address.
    fn uris(&self, arguments: &[String]) -> Result<BTreeMap<String, String>> {
        let output = self
            .apt("apt-get")
            // `-qq` means yes to everything, and then apt wants these to be said; what may be changed is checked here.
            .args([
                "--print-uris",
                "-qq",
                "--allow-downgrades",
                "--allow-change-held-packages",
            ])
            .args(["install", "--"])
            .args(arguments)
            .output()?;
        // A request that cannot be met is told by the simulation.
        let text = String::from_utf8_lossy(&output.stdout);
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
    fn finish(
        &self,
        mut plan: Plan,
        intent: &Intent,
        simulation: Simulation,
        uris: &BTreeMap<String, String>,
    ) -> Result<Plan> {
        let locals = || intent.local_packages.iter().chain(&intent.local_replacements);
        let remote: Vec<String> = simulation
            .installs
            .iter()
            .filter(|install| !locals().any(|local| local.is(&install.id)))
            .map(|install| self.exact_name(&install.id))
            .collect();
        let records = self.records(&remote)?;
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

/// Returns why a package of the image is not what was asked for.
fn differs(request: &PackageRequest, installed: &Installed) -> Option<String> {
    let has = format!("the image has {} {}", installed.id.name, installed.id.version);
    match (&request.version, &request.suite) {
        (Some(version), _) if *version != installed.id.version => Some(has),
        (_, Some(_)) => Some(has),
        _ => None,
    }
}

fn dormant(request: &str, installed: &Installed) -> Dormant {
    Dormant {
        request: request.to_owned(),
        provided_by: format!("{} {}", installed.id.name, installed.id.version),
    }
}

impl LocalPackage {
    /// Returns whether this is that package.
    pub(super) fn is(&self, id: &super::plan::PackageId) -> bool {
        self.name == id.name && self.version == id.version && self.architecture == id.architecture
    }
}
