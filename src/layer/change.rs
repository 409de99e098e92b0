//! What a verb changes in an [`Intent`]: pure, and every mistake is told at once, by package.

use crate::fault::{Fault, Kind};
use crate::layer::intent::{ConflictMode, Intent, LocalPackage, PackageRequest, ScriptMode};
use crate::layer::packages::Packages;
use std::collections::BTreeSet;

/// The changes, applied in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Forget all packages on top.
    pub uninstall_all: bool,
    /// Forget all overrides.
    pub reset_all: bool,
    /// Make no initramfs on this host any more, and add no files to the image's.
    pub reset_initramfs: bool,
    /// Make an initramfs on this host with these arguments for dracut, or leave that to the image.
    pub initramfs: Option<Initramfs>,
    /// Packages on top to forget, by name or by the id of a local package.
    pub uninstall: Vec<String>,
    /// Overrides to forget, by name or by the id of a local package.
    pub reset: Vec<String>,
    /// Packages to put on top.
    pub install: Vec<PackageRequest>,
    /// The same, from files that this host keeps.
    pub install_local: Vec<LocalPackage>,
    /// Packages of the image to take out.
    pub remove: Vec<PackageRequest>,
    /// Packages of the image to take from a repository.
    pub replace: Vec<PackageRequest>,
    /// Packages of the image to take from files.
    pub replace_local: Vec<LocalPackage>,
    /// A request that is there already, or one to forget that is not, is no mistake.
    pub idempotent: bool,
    /// What to do with scripts from now on.
    pub scripts: Option<ScriptMode>,
    /// What to do with file conflicts from now on.
    pub conflicts: Option<ConflictMode>,
    /// The answers for debconf from now on, by their digest.
    pub debconf: Option<String>,
}

/// Where the initramfs comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initramfs {
    /// It is made on this host, with these arguments for dracut.
    Regenerated(Vec<String>),
    /// It is the image's.
    OfImage,
}

impl Change {
    /// Returns the change that leaves the image alone: no packages, no overrides, no initramfs of this host.
    pub fn forget_everything() -> Self {
        Self {
            uninstall_all: true,
            reset_all: true,
            reset_initramfs: true,
            ..Self::default()
        }
    }

    /// Returns whether nothing is left of an intent, readable or not, once this is applied.
    pub fn forgets_everything(&self) -> bool {
        self.uninstall_all && self.reset_all && self.reset_initramfs
    }

    /// Returns whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        !(self.uninstall_all || self.reset_all || self.reset_initramfs)
            && self.initramfs.is_none()
            && self.uninstall.is_empty()
            && self.reset.is_empty()
            && self.install.is_empty()
            && self.install_local.is_empty()
            && self.remove.is_empty()
            && self.replace.is_empty()
            && self.replace_local.is_empty()
            && self.scripts.is_none()
            && self.conflicts.is_none()
            && self.debconf.is_none()
    }

    /// Returns the changed intent; `base` are the packages of the image.
    ///
    /// Fails with one fault that names every package with its mistake.
    pub fn apply(&self, intent: &Intent, base: &Packages) -> Result<Intent, Fault> {
        let mut edit = Edit {
            intent: intent.clone(),
            mistakes: Vec::new(),
            idempotent: self.idempotent,
        };
        if self.uninstall_all {
            edit.intent.packages.clear();
            edit.intent.local_packages.clear();
        }
        if self.reset_all {
            edit.intent.removals.clear();
            edit.intent.replacements.clear();
            edit.intent.local_replacements.clear();
        }
        if self.reset_initramfs {
            edit.intent.regenerate_initramfs = false;
            edit.intent.initramfs_args.clear();
            edit.intent.initramfs_etc.clear();
        }
        match &self.initramfs {
            Some(Initramfs::Regenerated(arguments)) => {
                edit.intent.regenerate_initramfs = true;
                edit.intent.initramfs_args.clone_from(arguments);
            }
            Some(Initramfs::OfImage) => {
                edit.intent.regenerate_initramfs = false;
                edit.intent.initramfs_args.clear();
            }
            None => {}
        }
        self.uninstall.iter().for_each(|name| edit.uninstall(name));
        self.reset.iter().for_each(|name| edit.reset(name));
        self.install.iter().for_each(|request| edit.install(request));
        self.install_local
            .iter()
            .for_each(|package| edit.install_local(package));
        let in_base = |name: &str| base.keys().any(|(known, _)| known == name);
        for request in &self.remove {
            edit.remove(request, in_base(&request.name));
        }
        for request in &self.replace {
            edit.replace(request, in_base(&request.name));
        }
        for package in &self.replace_local {
            edit.replace_local(package, in_base(&package.name));
        }
        if edit.intent.regenerate_initramfs && !edit.intent.initramfs_etc.is_empty() {
            return Err(Fault::new(
                Kind::Unsupported,
                "The initramfs cannot be made on this host while files of /etc are tracked for the image's own",
            )
            .hint("give them up with `apt-ostree initramfs-etc --untrack-all`"));
        }
        let intent = &mut edit.intent;
        intent.scripts = self.scripts.unwrap_or(intent.scripts);
        intent.conflicts = self.conflicts.unwrap_or(intent.conflicts);
        if self.debconf.is_some() {
            intent.debconf.clone_from(&self.debconf);
        }
        edit.finish()
    }
}

/// An intent being changed.
struct Edit {
    intent: Intent,
    mistakes: Vec<(String, &'static str)>,
    idempotent: bool,
}

/// What helps against the mistakes that [`Edit`] finds; the first one found gives the hint.
const ALREADY: &str = "it is requested already";
const NOT_REQUESTED: &str = "it is not requested";
const TAKEN_OUT: &str = "an override takes it out of the image";
const NOT_IN_IMAGE: &str = "the image has no such package";
const LAYERED: &str = "it is layered, and no package of the image";
const NO_OVERRIDE: &str = "it has no override";

impl Edit {
    fn mistake(&mut self, name: impl ToString, what: &'static str) {
        self.mistakes.push((name.to_string(), what));
    }

    fn uninstall(&mut self, text: &str) {
        let before = self.intent.packages.len() + self.intent.local_packages.len();
        self.intent.packages.retain(|request| !names(text, request));
        self.intent
            .local_packages
            .retain(|package| !names_local(text, package));
        let after = self.intent.packages.len() + self.intent.local_packages.len();
        if before == after && !self.idempotent {
            self.mistake(text, NOT_REQUESTED);
        }
    }

    fn reset(&mut self, text: &str) {
        let intent = &mut self.intent;
        let count = |intent: &Intent| {
            intent.removals.len() + intent.replacements.len() + intent.local_replacements.len()
        };
        let before = count(intent);
        intent.removals.retain(|request| !names(text, request));
        intent.replacements.retain(|request| !names(text, request));
        intent
            .local_replacements
            .retain(|package| !names_local(text, package));
        if before == count(intent) {
            self.mistake(text, NO_OVERRIDE);
        }
    }

    /// A request for another version or suite of the same package takes the place of the former one.
    fn install(&mut self, request: &PackageRequest) {
        if self
            .intent
            .removals
            .iter()
            .any(|other| other.name == request.name)
        {
            return self.mistake(request, TAKEN_OUT);
        }
        let from_file = |package: &LocalPackage| {
            package.name == request.name
                && request
                    .architecture
                    .as_ref()
                    .is_none_or(|wanted| *wanted == package.architecture)
        };
        if self.intent.packages.contains(request) || self.intent.local_packages.iter().any(from_file) {
            if !self.idempotent {
                self.mistake(request, ALREADY);
            }
            return;
        }
        let same = |other: &PackageRequest| {
            (&other.name, &other.architecture) == (&request.name, &request.architecture)
        };
        self.intent.packages.retain(|other| !same(other));
        self.intent.packages.insert(request.clone());
    }

    /// A newer file takes the place of an older one.
    fn install_local(&mut self, package: &LocalPackage) {
        if self
            .intent
            .removals
            .iter()
            .any(|other| other.name == package.name)
        {
            return self.mistake(package.id(), TAKEN_OUT);
        }
        let requested = self.intent.packages.iter().any(|other| {
            other.name == package.name
                && other
                    .architecture
                    .as_ref()
                    .is_none_or(|wanted| *wanted == package.architecture)
        });
        if requested || self.intent.local_packages.contains(package) {
            if !self.idempotent || requested {
                self.mistake(package.id(), ALREADY);
            }
            return;
        }
        replace_local(&mut self.intent.local_packages, package);
    }

    fn remove(&mut self, request: &PackageRequest, in_base: bool) {
        if !self.overridable(&request.name, request, in_base) {
            return;
        }
        drop_overrides(&mut self.intent, &request.name);
        self.intent.removals.insert(request.clone());
    }

    fn replace(&mut self, request: &PackageRequest, in_base: bool) {
        if !self.overridable(&request.name, request, in_base) {
            return;
        }
        drop_overrides(&mut self.intent, &request.name);
        self.intent.replacements.insert(request.clone());
    }

    fn replace_local(&mut self, package: &LocalPackage, in_base: bool) {
        if !self.overridable(&package.name, package.id(), in_base) {
            return;
        }
        drop_overrides(&mut self.intent, &package.name);
        replace_local(&mut self.intent.local_replacements, package);
    }

    fn overridable(&mut self, name: &str, shown: impl ToString, in_base: bool) -> bool {
        let intent = &self.intent;
        let is_layered = intent.packages.iter().any(|other| other.name == name)
            || intent.local_packages.iter().any(|other| other.name == name);
        match (in_base, is_layered) {
            (true, _) => return true,
            (false, true) => self.mistake(shown, LAYERED),
            (false, false) => self.mistake(shown, NOT_IN_IMAGE),
        }
        false
    }

    fn finish(self) -> Result<Intent, Fault> {
        let Some((first, what)) = self.mistakes.first() else {
            return Ok(self.intent);
        };
        let list: Vec<String> = self
            .mistakes
            .iter()
            .map(|(name, what)| format!("{name}: {what}"))
            .collect();
        let hint = match *what {
            ALREADY => "accept what is there with `--idempotent`, see it with `apt-ostree status`".to_owned(),
            TAKEN_OUT => format!("take the override back with `apt-ostree override reset {first}`"),
            LAYERED => format!("drop it with `apt-ostree uninstall {first}`"),
            _ => "see what is requested with `apt-ostree status`".to_owned(),
        };
        Err(Fault::new(
            Kind::NotFound,
            format!("The requests cannot be changed ({})", list.join("; ")),
        )
        .hint(hint))
    }
}

/// Returns whether a user's word means the request: its own text, or its name with or without architecture.
fn names(text: &str, request: &PackageRequest) -> bool {
    let plain = PackageRequest {
        version: None,
        suite: None,
        ..request.clone()
    };
    text == request.to_string() || text == plain.to_string() || text == request.name
}

fn names_local(text: &str, package: &LocalPackage) -> bool {
    text == package.name
        || text == package.id()
        || text == package.to_string()
        || text == format!("{}:{}", package.name, package.architecture)
}

fn drop_overrides(intent: &mut Intent, name: &str) {
    intent.removals.retain(|other| other.name != name);
    intent.replacements.retain(|other| other.name != name);
    intent.local_replacements.retain(|other| other.name != name);
}

fn replace_local(packages: &mut BTreeSet<LocalPackage>, package: &LocalPackage) {
    packages.retain(|other| (&other.name, &other.architecture) != (&package.name, &package.architecture));
    packages.insert(package.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(list: &[&str]) -> Vec<PackageRequest> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn local(id: &str) -> LocalPackage {
        format!("{}:{id}", "a".repeat(64)).parse().unwrap()
    }

    fn base() -> Packages {
        let package = |name: &str| ((name.to_owned(), "amd64".to_owned()), "1".to_owned());
        Packages::from_iter([package("bash"), package("nano")])
    }

    fn shown(intent: &Intent) -> Vec<String> {
        let packages = intent.packages.iter().map(ToString::to_string);
        packages
            .chain(intent.local_packages.iter().map(LocalPackage::id))
            .collect()
    }

    fn install(list: &[&str]) -> Change {
        Change {
            install: requests(list),
            ..Change::default()
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let intent = install(&["htop"]).apply(&Intent::default(), &base()).unwrap();
        let change = Change {
            install: requests(&["htop", "nano"]),
            uninstall: vec!["joe".to_owned(), "vim".to_owned()],
            remove: requests(&["joe"]),
            replace: requests(&["htop"]),
            reset: vec!["sed".to_owned()],
            ..Change::default()
        };
        let fault = change.apply(&intent, &base()).unwrap_err();
        for part in [
            "joe: it is not requested",
            "vim: it is not requested",
            "sed: it has no override",
            "htop: it is requested already",
            "joe: the image has no such package",
            "htop: it is layered",
        ] {
            assert!(fault.message.contains(part), "{part}: {fault}");
        }
        assert!(!fault.message.contains("nano"), "{fault}");
    }

    #[test]
    fn installing_and_uninstalling() {
        let intent = install(&["htop", "libc6:i386"])
            .apply(&Intent::default(), &base())
            .unwrap();
        let again = Change {
            idempotent: true,
            uninstall: vec!["joe".to_owned()],
            ..install(&["htop"])
        };
        assert_eq!(again.apply(&intent, &base()).unwrap(), intent);
        let pinned = install(&["htop=3"]).apply(&intent, &base()).unwrap();
        assert_eq!(shown(&pinned), ["htop=3", "libc6:i386"]);
        let change = Change {
            uninstall: vec!["htop".to_owned()],
            install_local: vec![local("htop_4_amd64")],
            ..Change::default()
        };
        let from_file = change.apply(&pinned, &base()).unwrap();
        assert_eq!(shown(&from_file), ["libc6:i386", "htop_4_amd64"]);
        let newer = Change {
            install_local: vec![local("htop_5_amd64")],
            ..Change::default()
        };
        let newer = newer.apply(&from_file, &base()).unwrap();
        assert_eq!(shown(&newer), ["libc6:i386", "htop_5_amd64"]);
        assert!(install(&["htop"]).apply(&newer, &base()).is_err());
        for text in ["htop", "htop_5_amd64", "htop:amd64"] {
            let change = Change {
                uninstall: vec![text.to_owned()],
                ..Change::default()
            };
            assert_eq!(
                shown(&change.apply(&newer, &base()).unwrap()),
                ["libc6:i386"],
                "{text}"
            );
        }
        let all = Change {
            uninstall_all: true,
            ..install(&["joe"])
        };
        assert_eq!(shown(&all.apply(&newer, &base()).unwrap()), ["joe"]);
    }

    #[test]
    fn a_later_override_takes_the_place_of_an_earlier_one() {
        let change = Change {
            remove: requests(&["nano"]),
            replace: requests(&["bash=2"]),
            ..Change::default()
        };
        let intent = change.apply(&Intent::default(), &base()).unwrap();
        let fault = install(&["nano"]).apply(&intent, &base()).unwrap_err();
        assert!(fault.hint.unwrap().contains("override reset nano"));
        let change = Change {
            replace_local: vec![local("nano_2_amd64"), local("bash_3_amd64")],
            ..Change::default()
        };
        let intent = change.apply(&intent, &base()).unwrap();
        assert!(intent.removals.is_empty() && intent.replacements.is_empty());
        assert_eq!(intent.local_replacements.len(), 2);
        let change = Change {
            reset: vec!["nano".to_owned(), "bash_3_amd64".to_owned()],
            ..Change::default()
        };
        assert!(change.apply(&intent, &base()).unwrap().is_empty());
    }
}
