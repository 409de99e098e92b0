//! What stays when deployments go: keep-alive refs, and the cleaning after each success.
//!
//! `ostree/container/baseimage/apt-ostree/<n>` names the commit of each deployment, and of a deployment with packages
//! on top the image's commit as well. libostree's own refs do not cover a staged deployment, an image ref moves on with
//! the next pull, and nothing else names a base; these refs keep a garbage collection, ours or bootc's, from taking
//! what a deployment needs.

use crate::deployment::live;
use crate::deployment::origin::Origin;
use crate::deployment::sysroot::{Host, WriteLock};
use crate::image::gc::{self, Collected, Scope};
use crate::layer::{record, stage};
use anyhow::{Context, Result};
use fn_error_context::context;
use ostree_ext::gio;

/// Prefix of the refs that keep what deployments need.
pub const PREFIX: &str = "ostree/container/baseimage/apt-ostree";

/// Makes the keep-alive refs name exactly the commits of the current deployments and what those were derived from,
/// adding before it removes.
#[context("Writing the refs that keep deployments alive")]
pub fn protect(lock: &WriteLock<'_>) -> Result<()> {
    let repo = lock.host().repo();
    let mut commits = Vec::new();
    for deployment in lock.host().deployments() {
        let commit = deployment.csum().to_string();
        commits.push(record::base_of(&repo, &commit)?);
        commits.push(commit);
    }
    commits.sort();
    commits.dedup();
    let known = repo.list_refs_ext(
        Some(PREFIX),
        ostree_ext::ostree::RepoListRefsExtFlags::NONE,
        gio::Cancellable::NONE,
    )?;
    let mut missing: Vec<&String> = commits
        .iter()
        .filter(|commit| !known.values().any(|held| held == *commit))
        .collect();
    let mut stale: Vec<&String> = known
        .iter()
        .filter(|(_, held)| !commits.contains(held))
        .map(|(name, _)| name)
        .collect();
    stale.sort();
    let mut number = 0;
    while let Some(commit) = missing.pop() {
        let name = loop {
            let name = format!("{PREFIX}/{number}");
            number += 1;
            if !known.contains_key(&name) {
                break name;
            }
        };
        repo.set_ref_immediate(None, &name, Some(commit), gio::Cancellable::NONE)
            .with_context(|| format!("Setting {name}"))?;
    }
    gc::note(&repo, stale.iter().map(|name| known[*name].as_str()));
    for name in stale {
        repo.set_ref_immediate(None, name, None, gio::Cancellable::NONE)
            .with_context(|| format!("Removing {name}"))?;
    }
    Ok(())
}

/// Removes what an interrupted transaction left behind: directories of deployments that are in no boot entry, places to
/// layer in. What it imported stays, for the next one goes on with that.
#[context("Removing what an interruption left behind")]
pub fn sweep(lock: &WriteLock<'_>) -> Result<()> {
    let host = lock.host();
    forget_directories(host)?;
    protect(lock)?;
    stage::remove_stale(&host.repo())
}

/// Removes what no deployment needs any more: directories of former deployments, image and layer refs, objects.
///
/// What an interrupted run left behind goes too. Fails with everything that is still needed in place.
#[context("Removing what is no longer needed")]
pub fn clean(lock: &WriteLock<'_>, scope: Scope) -> Result<Collected> {
    let host = lock.host();
    forget_directories(host)?;
    protect(lock)?;
    live::forget_earlier_boots(lock)?;
    let deployments = host.deployments();
    let mut references = Vec::new();
    let mut commits = Vec::new();
    for deployment in &deployments {
        commits.push(deployment.csum().to_string());
        // An origin that cannot be read names no image; its commit is kept all the same.
        if let Ok(origin) = Origin::of(deployment) {
            if let Ok(Some(reference)) = origin.reference() {
                references.push(reference);
            }
        }
    }
    gc::collect(&host.repo(), &references, &commits, scope)
}

fn forget_directories(host: &Host) -> Result<()> {
    host.sysroot().prepare_cleanup(gio::Cancellable::NONE)?;
    host.sysroot().load_if_changed(gio::Cancellable::NONE)?;
    Ok(())
}
