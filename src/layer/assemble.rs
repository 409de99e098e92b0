//! From an intent and a base commit to a derived commit: solve, compare, fetch, run, translate, commit.
//!
//! Nothing of it can be seen outside the scratch folder until the commit is written. Equal input, as the state digest
//! names it, needs no new commit.

use crate::fault::{Fault, Kind};
use crate::host::checkpoint;
use crate::image::commit as stored;
use crate::layer::answers;
use crate::layer::archive::Archive;
use crate::layer::commit;
use crate::layer::etc::EtcView;
use crate::layer::fetch::Vanished;
use crate::layer::ids::Ids;
use crate::layer::intent::{Intent, PackageRequest};
use crate::layer::places::Places;
use crate::layer::plan::{FetchedPackage, PackageId, Plan};
use crate::layer::record::{self, FORMAT, LayeredPackage, Record, ReplacedPackage};
use crate::layer::refresh::Refresh;
use crate::layer::run::{self, RunOptions};
use crate::layer::stage::Stage;
use crate::layer::translate::{self, TranslateOptions};
use crate::report::Report;
use anyhow::Result;
use ostree_ext::ostree;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long one maintainer script may run where nothing else was asked for.
pub const SCRIPT_TIMEOUT: Duration = Duration::from_secs(600);

/// What stands for the repository of a package that came as a file.
const LOCAL: &str = "local";

/// What the network may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Indexes are fetched anew, packages where they are missing.
    Fresh,
    /// Indexes are fetched when they are old, packages where they are missing.
    #[default]
    Usual,
    /// Indexes are used as they are, packages are fetched where they are missing.
    Packages,
    /// Nothing is fetched.
    Off,
}

impl Network {
    /// Returns what a change of the requests needs: indexes only where something new is looked for.
    pub fn for_change(looks: bool) -> Self {
        if looks { Self::Usual } else { Self::Packages }
    }
}

/// What is assembled from what.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The repository that holds the base and takes the derived commit.
    pub repo: &'a ostree::Repo,
    /// The image's commit.
    pub base: &'a str,
    /// What is asked for.
    pub intent: &'a Intent,
    /// Where caches and state are.
    pub places: &'a Places,
    /// The live `/etc` that is continued and what it began as; none for the first deployment of a stateroot.
    pub etc: Option<(PathBuf, PathBuf)>,
    /// What the network may be used for.
    pub network: Network,
    /// How long one maintainer script may run.
    pub script_timeout: Duration,
}

/// A solved transaction, with its place to run in.
pub struct Solved<'a> {
    input: Input<'a>,
    stage: Stage,
    archive: Archive,
    plan: Plan,
    clock: Clock<'a>,
}

/// Asks apt what the intent means on the base.
///
/// Fails with apt's reason when it cannot be met. Where that may come from old indexes, they are fetched and it is
/// asked once more.
pub fn solve<'a>(input: Input<'a>, report: &'a dyn Report) -> Result<Solved<'a>> {
    let mut clock = Clock::start(report);
    let step = report.step("Preparing the image's tree");
    let stage = Stage::open(input.repo, input.base)?;
    step.done("Prepared the image's tree");
    clock.done("checkout");
    checkpoint::reach("layer-staged")?;
    let archive = Archive::open(input.places, stage.base(), &etc_view(&input, &stage))?;
    let refreshed = match input.network {
        Network::Fresh => archive.refresh(Refresh::Always, report)?,
        Network::Usual => archive.refresh(Refresh::IfOld, report)?,
        Network::Packages | Network::Off => false,
    };
    clock.done("refresh");
    let may_refresh = !refreshed && matches!(input.network, Network::Usual | Network::Packages);
    let plan = match archive.solve(input.intent, report) {
        // What apt does not find may have appeared since the indexes were fetched.
        Err(error) if may_refresh => solve_again(&archive, &input, error, report)?,
        plan => plan?,
    };
    clock.done("solve");
    checkpoint::reach("layer-solved")?;
    Ok(Solved {
        input,
        stage,
        archive,
        plan,
        clock,
    })
}

/// Solves with fresh indexes after `error`, which is what holds when they cannot be fetched.
fn solve_again(
    archive: &Archive,
    input: &Input<'_>,
    error: anyhow::Error,
    report: &dyn Report,
) -> Result<Plan> {
    tracing::info!("trying again with fresh indexes: {error:#}");
    if let Err(unreachable) = archive.refresh(Refresh::Always, report) {
        report.warning(&format!("The package lists are old: {unreachable:#}."));
        return Err(error);
    }
    archive.solve(input.intent, report)
}

fn etc_view(input: &Input<'_>, stage: &Stage) -> EtcView {
    let after = stage.base().join("usr/etc");
    match &input.etc {
        None => EtcView::pristine(after),
        Some((current, before)) => EtcView {
            current: Some(current.clone()),
            before: Some(before.clone()),
            after,
        },
    }
}

impl Solved<'_> {
    /// Returns what is to be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns whether the image can be deployed as it is: every request is dormant.
    pub fn is_idle(&self) -> bool {
        self.plan.is_empty() && !self.input.intent.regenerate_initramfs
    }

    /// Fails when the image provides one of these requests already.
    pub fn refuse_dormant(&self, requests: &[PackageRequest]) -> Result<()> {
        let provided: Vec<String> = self
            .plan
            .dormant
            .iter()
            .filter(|dormant| {
                requests
                    .iter()
                    .any(|request| request.to_string() == dormant.request)
            })
            .map(|dormant| format!("{} (by {})", dormant.request, dormant.provided_by))
            .collect();
        if provided.is_empty() {
            return Ok(());
        }
        Err(Fault::new(
            Kind::Unsupported,
            format!("The image provides already: {}", provided.join(", ")),
        )
        .hint("keep the request for an image that drops it with `--allow-inactive`")
        .into())
    }

    /// Fetches the packages and stops.
    pub fn download(mut self) -> Result<()> {
        self.fetch()?;
        self.stage.close()
    }

    fn fetch(&mut self) -> Result<Vec<FetchedPackage>> {
        let (network, report) = (self.input.network, self.clock.report);
        let fetched = match self.archive.fetch(&self.plan, network == Network::Off, report) {
            // Archives drop what they replaced; fresh indexes name what is there now.
            Err(error)
                if matches!(network, Network::Usual | Network::Packages)
                    && error.chain().any(|cause| cause.is::<Vanished>()) =>
            {
                self.plan = solve_again(&self.archive, &self.input, error, report)?;
                self.archive.fetch(&self.plan, false, report)
            }
            fetched => fetched,
        }?;
        self.clock.done("fetch");
        Ok(fetched)
    }

    /// Bounds the package cache; what this commit and the deployed ones were made from stays.
    fn trim(&self, deployed: &[String]) -> Result<()> {
        let mut keep: Vec<PackageId> = self
            .plan
            .packages
            .iter()
            .map(|package| package.id.clone())
            .collect();
        for commit in deployed {
            let Some(known) = record::read(self.input.repo, commit)? else {
                continue;
            };
            keep.extend(known.packages.into_iter().map(|package| package.id));
            keep.extend(known.replaced.into_iter().map(|package| package.id));
        }
        self.archive.trim(&keep)
    }

    /// Returns the time that stands in what scripts make: that of the image.
    fn epoch(&self) -> Result<u64> {
        let (commit, _) = self.input.repo.load_commit(self.input.base)?;
        Ok(ostree::commit_get_timestamp(&commit).max(1))
    }

    /// Returns the derived commit: one of `previous` where it was made from the same, else a new one.
    ///
    /// Fails with nothing but scratch left behind, which the next run removes.
    pub fn build(mut self, previous: &[String]) -> Result<String> {
        let wanted = state(&self.input, &self.plan);
        for commit in previous {
            let known = record::read(self.input.repo, commit)?;
            // One that was found to lack objects is made again.
            if known.is_some_and(|known| known.state == wanted) && stored::is_whole(self.input.repo, commit)?
            {
                self.stage.close()?;
                return Ok(commit.clone());
            }
        }
        let packages = self.fetch()?;
        checkpoint::reach("layer-fetched")?;
        let intent = self.input.intent;
        let options = RunOptions {
            scripts: intent.scripts,
            conflicts: intent.conflicts,
            debconf: intent
                .debconf
                .as_ref()
                .map(|digest| answers::load(self.input.places, digest))
                .transpose()?,
            script_timeout: self.input.script_timeout,
            epoch: self.epoch()?,
        };
        let report = self.clock.report;
        let ran = run::run(&self.stage, &self.plan, &packages, &options, report)?;
        for warning in &ran.warnings {
            report.warning(warning);
        }
        self.clock.done("run");
        checkpoint::reach("layer-run")?;
        let etc = self.input.etc.as_ref().map(|(current, _)| current.clone());
        let mut ids = Ids::load(self.input.places, etc.as_deref())?;
        let translated = translate::translate(
            &self.stage,
            &self.plan,
            &mut ids,
            &TranslateOptions {
                initramfs_wanted: ran.initramfs_wanted,
                initramfs: intent.regenerate_initramfs.then(|| intent.initramfs_args.clone()),
                etc,
            },
            report,
        )?;
        self.clock.done("translate");
        checkpoint::reach("layer-translated")?;
        let record = Record {
            skipped_scripts: ran.skipped_scripts,
            warnings: [ran.warnings, translated.warnings].concat(),
            initramfs: translated.initramfs_made,
            ..record(state(&self.input, &self.plan), &self.plan)
        };
        let step = report.step("Writing the derived commit");
        let commit = commit::commit(self.input.repo, self.input.base, &self.stage, &record)?;
        step.done("Wrote the derived commit");
        self.clock.done("commit");
        checkpoint::reach("layer-committed")?;
        if let Err(error) = self.trim(previous) {
            report.warning(&format!("{error:#}."));
        }
        self.stage.close()?;
        Ok(commit)
    }
}

/// Returns the digest over everything that decides what the derived commit holds.
fn state(input: &Input<'_>, plan: &Plan) -> String {
    let intent = input.intent;
    let mut lines = vec![
        format!("format {FORMAT}"),
        format!("base {}", input.base),
        format!("scripts {} conflicts {}", intent.scripts, intent.conflicts),
        format!("debconf {}", intent.debconf.as_deref().unwrap_or("none")),
        format!(
            "initramfs {} {:?}",
            intent.regenerate_initramfs, intent.initramfs_args
        ),
        format!("architectures {:?}", plan.foreign_architectures),
    ];
    lines.extend(intent.packages.iter().map(|request| format!("request {request}")));
    lines.extend(
        intent
            .local_packages
            .iter()
            .map(|package| format!("local {package}")),
    );
    lines.extend(intent.removals.iter().map(|request| format!("remove {request}")));
    lines.extend(
        intent
            .replacements
            .iter()
            .map(|request| format!("replace {request}")),
    );
    lines.extend(
        intent
            .local_replacements
            .iter()
            .map(|package| format!("replace-local {package}")),
    );
    lines.extend(
        plan.packages
            .iter()
            .map(|package| format!("package {:?} {}", package.id, package.sha256)),
    );
    lines.extend(plan.removals.iter().map(|package| format!("removal {package:?}")));
    hex::encode(Sha256::digest(lines.join("\n")))
}

/// Returns what the commit says of itself.
fn record(state: String, plan: &Plan) -> Record {
    let mut record = Record {
        format: FORMAT,
        state,
        removed: plan.removals.clone(),
        dormant: plan.dormant.clone(),
        ..Record::default()
    };
    for package in &plan.packages {
        let (id, local) = (package.id.clone(), package.repository == LOCAL);
        let repository = package.repository.clone();
        match &package.replaces {
            Some(before) => record.replaced.push(ReplacedPackage {
                id,
                before: before.clone(),
                local,
                repository,
            }),
            None => record.packages.push(LayeredPackage {
                id,
                requested: !package.automatic,
                local,
                repository,
            }),
        }
    }
    record
}

/// Measures the steps one after the other.
struct Clock<'a> {
    report: &'a dyn Report,
    begun: Instant,
}

impl<'a> Clock<'a> {
    fn start(report: &'a dyn Report) -> Self {
        Self {
            report,
            begun: Instant::now(),
        }
    }

    /// Tells how long the step took that ends now.
    fn done(&mut self, step: &str) {
        let took = self.begun.elapsed();
        tracing::debug!("{step} took {took:?}");
        self.report.timing(step, took);
        self.begun = Instant::now();
    }
}
