//! What every verb that deploys may change on top of the image: `--install`, `--uninstall` and their kin.
//!
//! [`Packages`] and [`SetUp`] are what a person or a program asks for; [`Layering`] is what comes of it.

use crate::config::Config;
use crate::deployment::advance;
use crate::deployment::origin::Origin;
use crate::deployment::prune;
use crate::deployment::sysroot::{Host, WriteLock};
use crate::fault::{Fault, Kind};
use crate::layer::answers;
use crate::layer::assemble::{Network, SCRIPT_TIMEOUT};
use crate::layer::change::Change;
use crate::layer::intent::{ConflictMode, Intent, LocalPackage, PackageRequest, ScriptMode};
use crate::layer::packages;
use crate::layer::places::Places;
use crate::layer::store;
use crate::ops::{Fetch, Next, Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Packages on top, for a verb that does something else in the first place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Packages {
    /// Packages to put on top, by name, path or address.
    pub install: Vec<String>,
    /// Packages on top to take away.
    pub uninstall: Vec<String>,
}

/// How packages are set up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct SetUp {
    /// What to do with maintainer scripts that cannot work here, from now on.
    pub scripts: Option<ScriptMode>,
    /// Whose file stays when two packages ship the same path, from now on.
    pub conflicts: Option<ConflictMode>,
    /// A file with answers for debconf.
    pub debconf: Option<PathBuf>,
    /// How long one maintainer script may run, in seconds.
    pub script_timeout: Option<u64>,
}

/// What changes on top of the image.
#[derive(Clone, Debug)]
pub struct Layering {
    /// Requests by name, and what is forgotten.
    pub change: Change,
    /// Packages to put on top: paths of files, and `https://` addresses.
    pub install_files: Vec<String>,
    /// The same, for packages of the image that they replace.
    pub replace_files: Vec<String>,
    /// Requests that the image provides already are no mistake.
    pub allow_inactive: bool,
    /// A file with answers for debconf.
    pub debconf: Option<PathBuf>,
    /// How long one maintainer script may run.
    pub script_timeout: Duration,
}

impl Default for Layering {
    fn default() -> Self {
        Self {
            change: Change::default(),
            install_files: Vec::new(),
            replace_files: Vec::new(),
            allow_inactive: false,
            debconf: None,
            script_timeout: SCRIPT_TIMEOUT,
        }
    }
}

impl SetUp {
    /// Returns changed settings and no requests.
    pub fn layering(&self) -> Layering {
        Layering {
            change: Change {
                scripts: self.scripts,
                conflicts: self.conflicts,
                ..Change::default()
            },
            debconf: self.debconf.clone(),
            script_timeout: self.script_timeout.map_or(SCRIPT_TIMEOUT, Duration::from_secs),
            ..Layering::default()
        }
    }

    /// Returns changed settings and the requests of `packages`; fails for a word that is no package.
    pub fn layering_with(&self, packages: &Packages) -> Result<Layering, Fault> {
        let mut layering = self.layering();
        let wanted = Wanted::parse(&packages.install)?;
        layering.change.install = wanted.requests;
        layering.install_files = wanted.files;
        layering.change.uninstall.clone_from(&packages.uninstall);
        Ok(layering)
    }
}

/// What a user named, told apart.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Packages from repositories.
    pub requests: Vec<PackageRequest>,
    /// Paths and addresses of package files.
    pub files: Vec<String>,
}

impl Wanted {
    /// Tells names from files: a file's name ends with `.deb`, or begins as a path or an address does.
    ///
    /// Fails for what is neither, and for an address that anybody on the way could answer.
    pub fn parse(words: &[String]) -> Result<Self, Fault> {
        let mut wanted = Self::default();
        for word in words {
            let is_file = word.ends_with(".deb")
                || ["/", "./", "../", "https://"]
                    .iter()
                    .any(|start| word.starts_with(start));
            if word.starts_with("http://") {
                return Err(Fault::new(
                    Kind::Usage,
                    format!("{word} is refused: nothing proves who answers there"),
                )
                .hint("use https://, or fetch the file, check it and name its path"));
            }
            if is_file {
                wanted
                    .files
                    .push(word.strip_prefix("file://").unwrap_or(word).to_owned());
            } else {
                wanted.requests.push(word.parse()?);
            }
        }
        Ok(wanted)
    }

    /// Returns the requests, where files make no sense.
    pub fn only_requests(self, verb: &str) -> Result<Vec<PackageRequest>, Fault> {
        match self.files.first() {
            None => Ok(self.requests),
            Some(file) => Err(Fault::new(
                Kind::Usage,
                format!("`{verb}` takes names of packages, and {file} is a file"),
            )),
        }
    }
}

/// What came of a change of the requests.
pub(super) struct Requested {
    /// Requests that must not be dormant.
    pub(super) active: Vec<PackageRequest>,
}

impl Layering {
    /// Returns whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.change.is_empty()
            && self.install_files.is_empty()
            && self.replace_files.is_empty()
            && self.debconf.is_none()
    }

    /// Fails where the settings forbid changes; going back to the image alone is none.
    fn require_unlocked(&self, host: &Host, stateroot: &str) -> Result<()> {
        let locked = Config::load(&host.settings_root(stateroot))?.layering.locked;
        if !locked || self.change.forgets_everything() && self.adds_nothing() {
            return Ok(());
        }
        Err(Fault::new(
            Kind::Denied,
            "Nothing may be changed on top of the image: `layering.locked` is set",
        )
        .hint("see where it is set with `apt-ostree config`; `apt-ostree reset` brings the image alone back")
        .into())
    }

    fn adds_nothing(&self) -> bool {
        let change = &self.change;
        self.install_files.is_empty()
            && self.replace_files.is_empty()
            && change.install.is_empty()
            && change.remove.is_empty()
            && change.replace.is_empty()
            && change.initramfs.is_none()
    }

    /// Changes the requests of the next deployment's origin; files are taken into the host's store.
    ///
    /// Fails with every mistake by package. What was taken into the store goes with the next success.
    pub(super) fn request(
        &self,
        lock: &WriteLock<'_>,
        next: &Next<'_>,
        network: Network,
    ) -> Result<Requested> {
        if self.is_empty() {
            return Ok(Requested { active: Vec::new() });
        }
        let host = lock.host();
        self.require_unlocked(host, next.stateroot)?;
        let before = match next.origin.intent() {
            Err(_) if self.change.forgets_everything() => {
                // What cannot be read is forgotten with the rest.
                next.origin.set_intent(&Intent::default());
                Intent::default()
            }
            intent => intent?,
        };
        let places = Places::of(host.path(), next.stateroot);
        let take = |files: &[String]| -> Result<Vec<LocalPackage>> {
            files
                .iter()
                .map(|file| take_file(&places, file, network))
                .collect()
        };
        let mut change = self.change.clone();
        change.install_local.extend(take(&self.install_files)?);
        change.replace_local.extend(take(&self.replace_files)?);
        if let Some(path) = &self.debconf {
            change.debconf = Some(answers::store(&places, path)?);
        }
        let base = packages::of_commit(&host.repo(), &next.image.commit)?;
        let intent = change.apply(&before, &base)?;
        if intent != before {
            next.origin.set_intent(&intent);
        }
        let wanted = change.install.into_iter();
        let active = wanted.filter(|request| !self.allow_inactive && !before.packages.contains(request));
        Ok(Requested {
            active: active.collect(),
        })
    }
}

/// Makes a deployment of the same image with other requests on top boot next; the registry is not asked.
///
/// Until the new deployment is published the booted and the pending deployments are untouched.
pub(super) fn change(
    host: &Host,
    verb: &str,
    target: &Target,
    layering: &Layering,
    (network, fetch): (Network, Fetch),
    report: &dyn Report,
) -> Result<Outcome> {
    let lock = host.lock(verb, target.patience(), report)?;
    let stateroot = host.stateroot(target.stateroot.as_deref())?;
    let merge = host.require_merge_deployment(&stateroot, "to layer on")?;
    let origin = Origin::of(&merge)?;
    let reference = origin.require_reference()?;
    prune::protect(&lock)?;
    let image = advance::image_of(host, &merge)?;
    fetch.conclude(
        &lock,
        Next {
            stateroot: &stateroot,
            origin: &origin,
            merge: Some(&merge),
            reference,
            image,
            network,
            unchanged: "No changes.".to_owned(),
        },
        layering,
        report,
    )
}

fn take_file(places: &Places, file: &str, network: Network) -> Result<LocalPackage> {
    if !file.starts_with("https://") {
        return store::add_local(places, file.as_ref());
    }
    if network == Network::Off {
        return Err(Fault::new(
            Kind::Usage,
            format!("{file} cannot be fetched with `--cache-only`"),
        )
        .hint("download it first and name the file")
        .into());
    }
    store::download_url(places, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files() {
        let words = [
            "htop",
            "git/sid",
            "./a.deb",
            "/x/b",
            "c_1_all.deb",
            "https://h/d.deb",
        ];
        let wanted = Wanted::parse(&words.map(str::to_owned)).unwrap();
        assert_eq!(wanted.requests.len(), 2);
        assert_eq!(
            wanted.files,
            ["./a.deb", "/x/b", "c_1_all.deb", "https://h/d.deb"]
        );
        for word in ["http://h/d.deb", "--force", "A"] {
            assert!(Wanted::parse(&[word.to_owned()]).is_err(), "{word}");
        }
    }
}
