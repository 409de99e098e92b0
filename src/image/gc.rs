//! Collecting what no image and no deployment needs any more.

use super::commit::Commit;
use super::merged;
use super::reference::{IMAGE_REF_PREFIX, ImageReference};
use super::store::{self, LAYER_REF_PREFIX};
use anyhow::Result;
use fn_error_context::context;
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

/// Forgets images that are not kept, then layers that no kept image has, and removes the objects of both.
///
/// Kept are the images of `keep_references`, of `keep_commits` and of every deployment the repository knows of.
/// When an image that is to be kept cannot be read, no layer goes: nobody knows which ones it needs.
#[context("Collecting unused images")]
pub fn collect(
    repo: &ostree::Repo,
    keep_references: &[ImageReference],
    keep_commits: &[String],
) -> Result<Collected> {
    let mut collected = Collected::default();
    let kept_refs: BTreeSet<String> = keep_references
        .iter()
        .map(ImageReference::store_ref)
        .collect::<Result<_>>()?;
    let mut commits: BTreeSet<String> = keep_commits.iter().cloned().collect();
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
    let (_, objects, bytes) = repo.prune(ostree::RepoPruneFlags::REFS_ONLY, 0, gio::Cancellable::NONE)?;
    collected.objects = u64::try_from(objects).unwrap_or(0);
    collected.bytes = bytes;
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
