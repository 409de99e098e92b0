//! Plans made by hand from packages made for a test, and their run in a stage on the real image.

use super::debian::{Debian, in_private_mounts};
use super::package::Package;
use apt_ostree::layer::plan::{FetchedPackage, PackageId, Plan, PlannedPackage, Step};
use apt_ostree::layer::run::{Ran, RunOptions, run};
use apt_ostree::layer::stage::Stage;
use apt_ostree::report::{Report, Silent};
use std::path::Path;
use tempfile::TempDir;

/// Packages with a plan that unpacks all of them and configures them then, in their order.
pub struct Installation {
    pub plan: Plan,
    pub fetched: Vec<FetchedPackage>,
    folder: TempDir,
}

impl Installation {
    /// Builds the packages.
    pub fn of(packages: &[Package]) -> Self {
        let mut installation = Self {
            plan: Plan::default(),
            fetched: Vec::new(),
            folder: tempfile::tempdir().expect("directory"),
        };
        let built = packages
            .iter()
            .map(|package| package.build(installation.folder.path()))
            .collect();
        installation.add(built);
        installation
    }

    /// Returns where the packages are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn add(&mut self, files: Vec<std::path::PathBuf>) {
        let mut ids = Vec::new();
        for path in files {
            let field = |name: &str| {
                let text = path.to_str().expect("UTF-8");
                super::run("dpkg-deb", ["--field", text, name]).trim().to_owned()
            };
            let id = PackageId {
                name: field("Package"),
                architecture: field("Architecture"),
                version: field("Version"),
            };
            self.plan.packages.push(PlannedPackage {
                id: id.clone(),
                replaces: None,
                repository: "local".to_owned(),
                uri: None,
                sha256: String::new(),
                download_size: 0,
                installed_size: 0,
                automatic: false,
            });
            self.fetched.push(FetchedPackage { id: id.clone(), path });
            ids.push(id);
        }
        self.plan.steps = vec![Step::Unpack(ids.clone()), Step::Configure(ids)];
    }

    /// Runs the plan in a stage and lets `look` look at the stage afterwards.
    pub fn run<T: Send>(
        &self,
        debian: &Debian,
        options: &RunOptions,
        look: impl FnOnce(&Stage, anyhow::Result<Ran>) -> T + Send,
    ) -> T {
        self.run_reporting(debian, options, &Silent, look)
    }

    /// Runs as [`Installation::run`] does and reports.
    pub fn run_reporting<T: Send>(
        &self,
        debian: &Debian,
        options: &RunOptions,
        report: &dyn Report,
        look: impl FnOnce(&Stage, anyhow::Result<Ran>) -> T + Send,
    ) -> T {
        in_private_mounts(|| {
            let stage = debian.stage();
            let ran = run(&stage, &self.plan, &self.fetched, options, report);
            let seen = look(&stage, ran);
            stage.close().expect("the stage is taken down");
            seen
        })
    }

    /// Runs what must succeed.
    pub fn ok<T: Send>(&self, debian: &Debian, look: impl FnOnce(&Stage, Ran) -> T + Send) -> T {
        self.run(debian, &RunOptions::default(), |stage, ran| {
            look(stage, ran.unwrap_or_else(|error| panic!("{error:#}")))
        })
    }

    /// Runs what must fail, checks that the repository is sound, and returns the fault's text.
    pub fn refused(&self, debian: &Debian, options: &RunOptions) -> String {
        let error = self.run(debian, options, |_, ran| ran.expect_err("a failure"));
        debian.assert_sound();
        format!("{error:#}")
    }
}

/// Returns the text of a file in a stage's root.
pub fn read(stage: &Stage, path: &str) -> String {
    std::fs::read_to_string(stage.root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
