//! The way from an image and the requests on top of it to the next boot entry, shared by the verbs that take it.
//!
//! Obtain the image (registry or store), derive a commit where something is asked for on top, check that it can boot,
//! work out the kernel arguments, publish, clean. A request that cannot be met fails before anything is published.

use crate::deployment::forget;
use crate::deployment::origin::Origin;
use crate::deployment::prune;
use crate::deployment::staging::{self, NewDeployment, Published};
use crate::deployment::sysroot::{Host, WriteLock};
use crate::fault::{Fault, Kind};
use crate::image::content::CommitTree;
use crate::image::gc::Scope;
use crate::image::pull::{self, PullOptions};
use crate::image::reference::ImageReference;
use crate::image::store::{self, StoredImage};
use crate::layer::assemble::{self, Input, Network};
use crate::layer::intent::{Intent, PackageRequest};
use crate::layer::packages::{self, PackageDifference, Packages};
use crate::layer::places::Places;
use crate::layer::plan::Plan;
use crate::layer::record;
use crate::report::{Report, counted, size};
use anyhow::Result;
use ostree_ext::ostree;
use std::path::PathBuf;
use std::time::Duration;

/// Where an image may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The registry (or other transport) is asked; what is stored is not fetched again.
    Network,
    /// Only what the repository holds.
    CacheOnly,
}

/// How far to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// Solve, and tell what would be done.
    Plan,
    /// Fetch everything that is needed.
    Download,
    /// Publish the deployment.
    #[default]
    Publish,
}

/// An image with requests on top, on its way to being the next boot entry.
#[derive(Debug)]
pub struct Advance<'a> {
    /// The stateroot it goes to.
    pub stateroot: &'a str,
    /// The image, already stored.
    pub image: &'a StoredImage,
    /// The intent the new deployment records.
    pub origin: &'a Origin,
    /// The deployment it continues.
    pub merge: Option<&'a ostree::Deployment>,
    /// Requests that must not be dormant.
    pub active: &'a [PackageRequest],
    /// What the network may be used for.
    pub network: Network,
    /// How long one maintainer script may run.
    pub script_timeout: Duration,
    /// How far to go.
    pub extent: Extent,
    /// Stage it locked.
    pub lock_finalization: bool,
}

/// What became of an [`Advance`].
#[derive(Clone, Debug)]
pub enum Advanced {
    /// The deployment it continues is just that already.
    Unchanged,
    /// What would be done on top of the image.
    Planned(Plan),
    /// Everything is here; so many packages on top.
    Downloaded(usize),
    /// It boots next.
    Published {
        /// Staged until shutdown, or written.
        how: Published,
        /// How its packages differ from those of the deployment it continues.
        difference: PackageDifference,
    },
}

/// Returns the image, stored and checked to be bootable.
///
/// Fails with nothing stored under the image's ref unless the whole image is there; layers that were finished
/// before a failure are not fetched again.
pub fn obtain(
    lock: &WriteLock<'_>,
    reference: &ImageReference,
    source: Source,
    report: &dyn Report,
) -> Result<StoredImage> {
    let repo = lock.host().repo();
    // Before anything moves an image ref: what the current deployments run from must survive any collection.
    prune::protect(lock)?;
    let image = match source {
        Source::Network => {
            pull::pull(
                &repo,
                reference,
                &PullOptions {
                    require_bootable: true,
                    require_kernel: true,
                    ..PullOptions::default()
                },
                report,
            )?
            .image
        }
        Source::CacheOnly => store::find(&repo, reference)?.ok_or_else(|| {
            Fault::new(
                Kind::NotFound,
                format!("The image {reference} is not stored on this host"),
            )
            .hint("fetch it without `--cache-only`")
        })?,
    };
    CommitTree::open(&repo, &image.commit)?.require_bootable()?;
    Ok(image)
}

/// Returns the image below a deployment, without what is layered on it.
pub fn image_of(host: &Host, deployment: &ostree::Deployment) -> Result<StoredImage> {
    let repo = host.repo();
    store::query_commit(&repo, &record::base_of(&repo, &deployment.csum())?)
}

/// Goes the way as far as asked, and removes what is no longer needed.
///
/// Fails before anything is published when a request cannot be met. A failure to remove is a warning: the next
/// successful run removes it.
pub fn advance(lock: &WriteLock<'_>, step: &Advance<'_>, report: &dyn Report) -> Result<Advanced> {
    let host = lock.host();
    let repo = host.repo();
    let intent = step.origin.intent()?;
    let places = Places::of(host.path(), step.stateroot);
    let commit = if intent.is_empty() {
        match step.extent {
            Extent::Plan => return Ok(Advanced::Planned(Plan::default())),
            Extent::Download => return Ok(Advanced::Downloaded(0)),
            Extent::Publish => step.image.commit.clone(),
        }
    } else {
        let input = Input {
            repo: &repo,
            base: &step.image.commit,
            intent: &intent,
            places: &places,
            etc: live_etc(host, step),
            network: step.network,
            script_timeout: step.script_timeout,
        };
        let solved = assemble::solve(input, report).map_err(|error| match step.merge {
            Some(merge) if !is_on(&repo, merge, step.image) => with_way_out(error, &intent),
            _ => error,
        })?;
        solved.refuse_dormant(step.active)?;
        let count = solved.plan().packages.len();
        match step.extent {
            Extent::Plan => return Ok(Advanced::Planned(solved.plan().clone())),
            Extent::Download => {
                solved.download()?;
                return Ok(Advanced::Downloaded(count));
            }
            Extent::Publish if solved.is_idle() => step.image.commit.clone(),
            Extent::Publish => solved.build(&deployed_commits(host))?,
        }
    };
    if is_deployed(step, &commit)? {
        return Ok(Advanced::Unchanged);
    }
    if commit != step.image.commit {
        CommitTree::open(&repo, &commit)?.require_bootable()?;
    }
    publish(lock, step, &commit, report)
}

fn is_on(repo: &ostree::Repo, deployment: &ostree::Deployment, image: &StoredImage) -> bool {
    record::base_of(repo, &deployment.csum()).is_ok_and(|base| base == image.commit)
}

/// Says what to do about requests that were met on the former image and cannot be on the new one.
fn with_way_out(error: anyhow::Error, intent: &Intent) -> anyhow::Error {
    let kinds = [Kind::NotFound, Kind::Unsupported];
    let Some(fault) = Fault::find(&error).filter(|fault| kinds.contains(&fault.kind)) else {
        return error;
    };
    let is_package = |name: &&String| {
        intent
            .packages
            .iter()
            .any(|request| request.to_string() == **name)
            || intent.local_packages.iter().any(|local| local.id() == **name)
    };
    let (packages, overrides): (Vec<&String>, Vec<&String>) = fault.names.iter().partition(is_package);
    let ways: Vec<String> = [("uninstall", packages), ("override reset", overrides)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(verb, names)| {
            let names: String = names.into_iter().map(|name| format!(" {name}")).collect();
            format!("`apt-ostree {verb}{names}`")
        })
        .collect();
    let way = match (&fault.hint, ways.is_empty()) {
        (Some(hint), true) => hint.clone(),
        (None, true) => "give a package up with `apt-ostree uninstall PKG`, an override with `apt-ostree override reset PKG`".to_owned(),
        (_, false) => format!("give up what is at fault with {}", ways.join(" and ")),
    };
    Fault::new(
        Kind::Unsupported,
        format!("The requests cannot be met on the new image: {}", fault.message),
    )
    .hint(format!("nothing was changed; {way}"))
    .into()
}

fn publish(lock: &WriteLock<'_>, step: &Advance<'_>, commit: &str, report: &dyn Report) -> Result<Advanced> {
    let repo = lock.host().repo();
    let kernel_arguments = staging::kernel_arguments(lock.host(), step.merge, commit)?;
    let before = match step.merge {
        Some(merge) => packages::of_commit(&repo, &merge.csum())?,
        None => Packages::new(),
    };
    let difference = packages::difference(&before, &packages::of_commit(&repo, commit)?);
    let writing = report.step("Writing the deployment");
    let how = staging::publish(
        lock,
        &NewDeployment {
            stateroot: step.stateroot,
            commit,
            origin: step.origin,
            merge: step.merge,
            kernel_arguments: &kernel_arguments,
            lock_finalization: step.lock_finalization,
        },
        report,
    )?;
    writing.done(match how {
        Published::Staged => "Staged the deployment",
        Published::Written => "Wrote the deployment",
    });
    clean(lock, report);
    Ok(Advanced::Published { how, difference })
}

/// Returns whether the deployment that is continued is this commit with this origin already.
fn is_deployed(step: &Advance<'_>, commit: &str) -> Result<bool> {
    let Some(merge) = step.merge.filter(|merge| merge.csum() == commit) else {
        return Ok(false);
    };
    // An origin that cannot be read is replaced.
    Ok(Origin::of(merge).is_ok_and(|origin| origin.is_same(step.origin)))
}

fn deployed_commits(host: &Host) -> Vec<String> {
    let deployments = host.deployments();
    deployments
        .iter()
        .map(|deployment| deployment.csum().to_string())
        .collect()
}

/// Returns the `/etc` that libostree will merge from, and what it began as.
fn live_etc(host: &Host, step: &Advance<'_>) -> Option<(PathBuf, PathBuf)> {
    step.merge?;
    let merge = host.sysroot().merge_deployment(Some(step.stateroot))?;
    let root = host.root_of(&merge);
    let current = match host.booted() {
        Some(booted) if booted.equal(&merge) => host.path().join("etc"),
        _ => root.join("etc"),
    };
    Some((current, root.join("usr/etc")))
}

/// Fails when `new` was created before the image of `current`; images that do not say when they were made pass.
pub fn refuse_downgrade(
    host: &Host,
    current: &ostree::Deployment,
    new: &StoredImage,
    hint: &str,
) -> Result<()> {
    let created = new.created();
    match later_than(host, current, created.as_deref()) {
        Some(before) => Err(Fault::new(
            Kind::Unsupported,
            format!(
                "The image {} is older ({}) than the current one ({before})",
                new.manifest_digest,
                created.unwrap_or_default()
            ),
        )
        .hint(hint)
        .into()),
        None => Ok(()),
    }
}

/// Returns when the image of `current` was created, if that was later than `created`.
///
/// A deployment that is no readable image says nothing about its age.
pub fn later_than(host: &Host, current: &ostree::Deployment, created: Option<&str>) -> Option<String> {
    let before = store::query_commit(&host.repo(), &current.csum())
        .ok()?
        .created()?;
    (created? < before.as_str()).then_some(before)
}

/// Removes what is no longer needed after a success that a failure here must not turn into an error.
pub fn clean(lock: &WriteLock<'_>, report: &dyn Report) {
    let step = report.step("Removing what is no longer needed");
    match prune::clean(lock, Scope::Changes) {
        Ok(freed) if freed.images > 0 || freed.layers > 0 => step.done(&format!(
            "Removed {} and {}, {} in {}",
            counted(freed.images as u64, "image"),
            counted(freed.layers as u64, "layer"),
            size(freed.bytes),
            counted(freed.objects, "object"),
        )),
        Ok(_) => step.done("Nothing had to be removed"),
        Err(error) => report.warning(&format!(
            "What is no longer needed could not be removed: {error:#}."
        )),
    }
    if let Err(error) = forget::forget_unused(lock) {
        report.warning(&format!("{error:#}."));
    }
}
