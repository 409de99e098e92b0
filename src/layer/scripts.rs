//! The package files as the sandbox sees them: as they were fetched, or without scripts and files that are left out.

use super::deb::{self, Omitted};
use super::seed::DATABASE;
use super::steps;
use crate::layer::plan::{FetchedPackage, PackageId};
use crate::layer::stage::Stage;
use anyhow::{Context, Result};
use fn_error_context::context;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A folder with the files of all packages, below the scratch of a stage.
pub(crate) struct Packages<'a> {
    stage: &'a Stage,
    fetched: &'a [FetchedPackage],
    folder: PathBuf,
    omitted: BTreeMap<PackageId, Omitted>,
}

impl<'a> Packages<'a> {
    /// Links, or copies, the files of all packages into a new folder.
    #[context("Collecting the package files")]
    pub(crate) fn collect(stage: &'a Stage, fetched: &'a [FetchedPackage]) -> Result<Self> {
        let folder = stage.scratch().join("packages");
        std::fs::create_dir(&folder)?;
        for package in fetched {
            let target = folder.join(steps::file_name(&package.id));
            // Another file system, or one without links.
            if std::fs::hard_link(&package.path, &target).is_err() {
                std::fs::copy(&package.path, &target)
                    .with_context(|| format!("Copying {}", package.path.display()))?;
            }
        }
        Ok(Self {
            stage,
            fetched,
            folder,
            omitted: BTreeMap::new(),
        })
    }

    /// Returns the folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves a script of a package out: of its file, and of the database where it is unpacked already.
    pub(crate) fn omit_script(&mut self, package: &str, script: &str) -> Result<()> {
        for fetched in self.named(package) {
            if deb::control_files(&fetched.path)?.contains_key(script) {
                self.omit(fetched, |omitted| {
                    omitted.scripts.insert(script.to_owned());
                })?;
            }
        }
        let info = Path::new(DATABASE).join("info");
        let root = self.stage.dir();
        for entry in root.read_dir(&info)? {
            let name = entry?.file_name();
            let is_it = name
                .to_str()
                .and_then(|name| name.strip_suffix(script)?.strip_suffix('.'))
                .is_some_and(|owner| owner.split(':').next() == Some(package));
            if is_it {
                root.remove_file(info.join(&name))
                    .with_context(|| format!("Leaving out the {script} of {package}"))?;
            }
        }
        Ok(())
    }

    /// Leaves a file of a package out.
    pub(crate) fn omit_path(&mut self, package: &str, path: &Path) -> Result<()> {
        for fetched in self.named(package) {
            self.omit(fetched, |omitted| {
                omitted.paths.insert(path.to_owned());
            })?;
        }
        Ok(())
    }

    /// Returns the packages as they were fetched.
    pub(crate) fn fetched(&self) -> &'a [FetchedPackage] {
        self.fetched
    }

    /// Returns whether a script of a package is left out.
    pub(crate) fn omits(&self, package: &PackageId, script: &str) -> bool {
        self.omitted
            .get(package)
            .is_some_and(|omitted| omitted.scripts.contains(script))
    }

    fn named(&self, package: &str) -> Vec<&'a FetchedPackage> {
        let fetched = self.fetched.iter();
        fetched.filter(|fetched| fetched.id.name == package).collect()
    }

    fn omit(&mut self, fetched: &FetchedPackage, add: impl FnOnce(&mut Omitted)) -> Result<()> {
        let omitted = self.omitted.entry(fetched.id.clone()).or_default();
        add(omitted);
        let target = self.folder.join(steps::file_name(&fetched.id));
        // A hard link to the cached file; a new one takes its place.
        std::fs::remove_file(&target)?;
        deb::copy_without(&fetched.path, omitted, &target, self.stage.scratch())
    }
}
