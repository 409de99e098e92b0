//! What apt is asked for an intent, and which requests need no asking because the image provides them.

use super::archive::Archive;
use super::base::Installed;
use super::intent::{Intent, LocalPackage, PackageRequest};
use super::plan::Dormant;
use crate::fault::{Fault, Kind};
use anyhow::{Context, Result};

/// What apt is asked, and what needs no asking.
#[derive(Debug, Default)]
pub(super) struct Question {
    /// Requests of packages on top: what the user wrote, and apt's argument.
    pub(super) requests: Vec<(String, String)>,
    /// Arguments of the overrides.
    pub(super) overrides: Vec<(String, String)>,
    /// Names that are looked up in the repositories.
    pub(super) names: Vec<PackageRequest>,
    /// Requests that the image provides.
    pub(super) dormant: Vec<Dormant>,
}

impl Question {
    /// Returns all arguments.
    pub(super) fn arguments(&self) -> Vec<String> {
        let all = self.requests.iter().chain(&self.overrides);
        all.map(|(_, argument)| argument.clone()).collect()
    }
}

impl Archive {
    /// Sorts the intent into what is asked of apt and what the image provides already.
    pub(super) fn question(&self, intent: &Intent) -> Result<Question> {
        let mut question = Question::default();
        let mut wrong = Vec::new();
        let removed = |name: &str| intent.removals.iter().any(|removal| removal.name == name);
        for request in &intent.packages {
            let text = request.to_string();
            if removed(&request.name) {
                let reason = format!("`{text}` is requested, and an override removes it");
                wrong.push((text, reason));
                continue;
            }
            match self.provided(request, intent) {
                Some(installed) => match differs(request, installed) {
                    Some(reason) => wrong.push((text.clone(), format!("`{text}`: {reason}"))),
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
                    let (id, name, version) = (local.id(), &local.name, &installed.id.version);
                    wrong.push((id.clone(), format!("`{id}`: the image has {name} {version}")));
                }
                continue;
            }
            question.requests.push((local.id(), file));
        }
        if !wrong.is_empty() {
            let (about, told): (Vec<String>, Vec<String>) = wrong.into_iter().unzip();
            return Err(Fault::new(Kind::Unsupported, told.join("; "))
                .about(about)
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
                .about([removal.to_string()])
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
                .about([replacement.to_string()])
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
