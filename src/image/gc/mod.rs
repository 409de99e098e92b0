//! Collecting what no image and no deployment needs any more.
//!
//! Refs decide: what the commit of a ref holds stays, everything else goes, as with `ostree prune --refs-only --depth=0`.
//! That reads every directory of every commit and lists every object. Here it is done where nothing else is certain,
//! and when somebody asks for it ([`Scope::Everything`]); otherwise a collection costs what came and went since the last
//! one (`changes`), by counts that an index keeps (`index`, `counts`).

mod changes;
mod counts;
mod index;
mod lock;
mod noted;

pub use noted::note;

use super::commit::Commit;
use super::merged;
use super::objects::StoredObjects;
use super::reference::{IMAGE_REF_PREFIX, ImageReference};
use super::store::{self, LAYER_REF_PREFIX};
use crate::host::checkpoint;
use crate::tree::{Checksum, Objects};
use anyhow::Result;
use changes::Known;
use fn_error_context::context;
use lock::RepositoryLock;
use ostree_ext::{gio, ostree};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Refs of deployments, and of the commits that locally derived ones were made from. Other programs keep theirs
/// in the same places.
pub const DEPLOYMENT_REF_PREFIXES: &[&str] = &[
    "ostree/0",
    "ostree/1",
    "ostree/container/baseimage",
    "rpmostree/base",
];

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Image refs.
    pub images: usize,
    /// Layer refs.
    pub layers: usize,
    /// Objects.
    pub objects: u64,
    /// Bytes of those objects.
    pub bytes: u64,
}

/// How far a collection looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// At what commits held that nothing holds any more. Objects that no commit ever held, left by something that was
    /// killed, stay for a full collection.
    Changes,
    /// At every object.
    Everything,
}

/// Forgets images that are not kept, then layers that no kept image has, and removes the objects of both.
///
/// Kept are the images of `keep_references`, of `keep_commits` and of every deployment the repository knows of.
/// When an image that is to be kept cannot be read, no layer goes: nobody knows which ones it needs.
pub fn collect(
    repo: &ostree::Repo,
    keep_references: &[ImageReference],
    keep_commits: &[String],
    scope: Scope,
) -> Result<Collected> {
    let keep = Keep {
        references: keep_references,
        commits: keep_commits,
    };
    Ok(collect_through(repo, &StoredObjects(repo), keep, scope)?.0)
}

/// What a collection keeps beside deployments.
#[derive(Clone, Copy, Debug)]
pub struct Keep<'a> {
    /// Images by their references.
    pub references: &'a [ImageReference],
    /// Commits of images.
    pub commits: &'a [String],
}

/// Collects as [`collect`] does, with directory objects read through `objects`, and returns as well how far it looked in
/// the end.
#[context("Collecting unused images")]
pub fn collect_through(
    repo: &ostree::Repo,
    objects: &dyn Objects,
    keep: Keep<'_>,
    scope: Scope,
) -> Result<(Collected, Scope)> {
    // No transaction runs meanwhile, so nobody relies on an object that no ref holds yet.
    let _lock = RepositoryLock::alone(repo)?;
    let known = match scope {
        Scope::Changes => held(repo).and_then(|held| Known::load(repo, &held)).map(Some),
        Scope::Everything => Ok(None),
    };
    let mut collected = drop_unneeded(repo, keep)?;
    checkpoint::reach("gc-refs-removed")?;
    let mut freed = Freed::default();
    let swept = known.and_then(|known| match known {
        Some(known) => known
            .sweep(repo, objects, &held(repo)?, &mut freed)
            .map(|()| Scope::Changes),
        None => Ok(Scope::Everything),
    });
    let looked = swept.unwrap_or_else(|error| {
        tracing::debug!("every object is looked at: {error:#}");
        Scope::Everything
    });
    if looked == Scope::Everything {
        everything(repo, objects, &mut freed)?;
    }
    collected.objects = freed.objects;
    collected.bytes = freed.bytes;
    Ok((collected, looked))
}

/// What went.
#[derive(Clone, Copy, Debug, Default)]
struct Freed {
    objects: u64,
    bytes: u64,
}

impl Freed {
    /// Counts an object of that size.
    fn count(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// Has libostree remove what no ref reaches, and counts what is left for the next collections.
fn everything(repo: &ostree::Repo, objects: &dyn Objects, freed: &mut Freed) -> Result<()> {
    let (_, count, bytes) = repo.prune(ostree::RepoPruneFlags::REFS_ONLY, 0, gio::Cancellable::NONE)?;
    freed.objects += u64::try_from(count).unwrap_or(0);
    freed.bytes += bytes;
    if let Err(error) = held(repo).and_then(|held| changes::count_all(repo, objects, &held)) {
        tracing::debug!("the next collection looks at every object: {error:#}");
    }
    Ok(())
}

/// Returns the commits that refs name.
fn held(repo: &ostree::Repo) -> Result<BTreeSet<Checksum>> {
    repo.list_refs(None, gio::Cancellable::NONE)?
        .values()
        .map(|commit| commit.parse())
        .collect()
}

/// Removes the refs of images that are not kept and of layers that no kept image has.
fn drop_unneeded(repo: &ostree::Repo, keep: Keep<'_>) -> Result<Collected> {
    let mut collected = Collected::default();
    let kept_refs: BTreeSet<String> = keep
        .references
        .iter()
        .map(ImageReference::store_ref)
        .collect::<Result<_>>()?;
    let mut commits: BTreeSet<String> = keep.commits.iter().cloned().collect();
    for prefix in DEPLOYMENT_REF_PREFIXES {
        commits.extend(store::refs_below(repo, prefix)?.into_values());
    }
    for (name, commit) in store::refs_below(repo, IMAGE_REF_PREFIX)? {
        if kept_refs.contains(&name) {
            commits.insert(commit);
        } else {
            repo.set_ref_immediate(None, &name, None, gio::Cancellable::NONE)?;
            collected.images += 1;
        }
    }
    if let Some(needed) = needed_refs(repo, &commits)? {
        let layers = drop_refs(repo, LAYER_REF_PREFIX, &needed)?;
        collected.layers = layers;
        drop_refs(repo, merged::REF_PREFIX, &needed)?;
    }
    Ok(collected)
}

/// Returns the refs of layers and merges that the commits need, or `None` when an image among them is unreadable.
fn needed_refs(repo: &ostree::Repo, commits: &BTreeSet<String>) -> Result<Option<BTreeSet<String>>> {
    let mut needed = BTreeSet::new();
    for commit in commits {
        match store::query_commit(repo, commit) {
            Ok(image) => {
                for layer in image.manifest.layers() {
                    needed.insert(store::layer_ref(layer.digest().as_ref()));
                }
                needed.insert(merged::ref_name(&image.manifest_digest)?);
            }
            Err(error) => {
                // A commit that was never an image needs no layers.
                let is_image = Commit::load(repo, commit).map_or(true, |commit| commit.is_image());
                if is_image {
                    tracing::warn!("no layer is removed: {error:#}");
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(needed))
}

fn drop_refs(repo: &ostree::Repo, prefix: &str, needed: &BTreeSet<String>) -> Result<usize> {
    let mut dropped = 0;
    for name in store::refs_below(repo, prefix)?.into_keys() {
        if !needed.contains(&name) {
            repo.set_ref_immediate(None, &name, None, gio::Cancellable::NONE)?;
            dropped += 1;
        }
    }
    Ok(dropped)
}
