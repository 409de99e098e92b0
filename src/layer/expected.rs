//! The maintainer scripts that a run will start, as far as they are known beforehand.
//!
//! Triggers are not: which of them run follows from the files of the packages. Neither is the old `postrm` of a package
//! that is replaced, because dpkg does not tell when it runs.

use super::deb::ControlFiles;
use super::scripts::Packages;
use super::seed::DATABASE;
use super::watch::Action;
use crate::compose::rootfs;
use crate::layer::plan::Plan;
use crate::layer::stage::Stage;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;

/// Which scripts of which package run when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scripts(BTreeMap<(String, Action), Vec<String>>);

impl Scripts {
    /// Looks up the scripts of the plan's packages, whose control files these are, and of those they replace.
    pub(crate) fn of(
        stage: &Stage,
        plan: &Plan,
        packages: &Packages<'_>,
        control: &[ControlFiles],
    ) -> Result<Self> {
        let installed: Vec<String> = rootfs::names(stage.dir(), Path::new(DATABASE).join("info"))?
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect();
        // A file `NAME.postinst`, or `NAME:ARCH.postinst`.
        let had = |package: &str, script: &str| {
            installed.iter().any(|file| {
                let owner = file.strip_suffix(script).and_then(|rest| rest.strip_suffix('.'));
                owner.is_some_and(|owner| owner.split(':').next() == Some(package))
            })
        };
        let mut scripts = Self::default();
        for (fetched, files) in packages.fetched().iter().zip(control) {
            let name = &fetched.id.name;
            let has = |script: &str| files.contains_key(script) && !packages.omits(&fetched.id, script);
            let replaces = plan
                .packages
                .iter()
                .any(|planned| planned.id == fetched.id && planned.replaces.is_some());
            let unpack = if replaces {
                Action::Upgrade
            } else {
                Action::Install
            };
            scripts.add(name, unpack, "prerm", replaces && had(name, "prerm"));
            scripts.add(name, unpack, "preinst", has("preinst"));
            scripts.add(name, Action::Configure, "postinst", has("postinst"));
        }
        for removed in &plan.removals {
            for script in ["prerm", "postrm"] {
                scripts.add(&removed.name, Action::Remove, script, had(&removed.name, script));
            }
        }
        Ok(scripts)
    }

    fn add(&mut self, package: &str, action: Action, script: &str, there: bool) {
        if there {
            let scripts = self.0.entry((package.to_owned(), action)).or_default();
            scripts.push(script.to_owned());
        }
    }

    /// Returns how many there are.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().map(Vec::len).sum::<usize>() as u64
    }

    /// Returns how many run while this is done to a package.
    pub(crate) fn number(&self, package: &str, action: Action) -> u64 {
        self.list(package, action).len() as u64
    }

    /// Returns whether a script of a package runs while this is done to it.
    pub(crate) fn has(&self, package: &str, action: Action, script: &str) -> bool {
        self.list(package, action).iter().any(|known| known == script)
    }

    fn list(&self, package: &str, action: Action) -> &[String] {
        self.0
            .get(&(package.to_owned(), action))
            .map_or(&[], Vec::as_slice)
    }
}
