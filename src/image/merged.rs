//! Merges of the first layers of an image, kept so that the next image need not repeat them.
//!
//! The chain id of the OCI specification names the merge of a layer and all below it. For each image one commit
//! keeps some of those merges: its root holds a directory per chain id. A merge shares all directories that the
//! next layer did not touch, so keeping one costs a few small objects.

use super::commit::{self, Commit};
use super::object::ObjectStore;
use super::store::{self, StoredImage};
use crate::tree::{Directory, Metadata};
use anyhow::{Context, Result};
use ostree_ext::{ostree, refescape};
use sha2::{Digest, Sha256};

/// Prefix of the refs that hold merges.
pub(super) const REF_PREFIX: &str = "apt-ostree/merged";

/// Merges near the top that are all kept; most changes happen there.
const TOP: usize = 8;
/// Below those, one merge in so many.
const EVERY: usize = 8;

/// Returns the ref that holds the merges of the image with this manifest.
pub(super) fn ref_name(manifest_digest: &str) -> Result<String> {
    refescape::prefix_escape_for_ref(REF_PREFIX, manifest_digest)
        .with_context(|| format!("Naming the ref of the merges of {manifest_digest}"))
}

/// Returns the chain id of each layer, without the name of the algorithm.
pub(super) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.trim_start_matches("sha256:").to_owned(),
            Some(below) => hex::encode(Sha256::digest(format!("sha256:{below} {diff_id}"))),
        });
    }
    chain
}

/// Returns whether the merges of an image have their ref, which other software that imports images does not set.
pub(super) fn are_kept(repo: &ostree::Repo, image: &StoredImage) -> Result<bool> {
    let is_ours = Commit::load(repo, &image.commit)?.importer() == Some(super::IMPORTER_VERSION.to_owned());
    Ok(!is_ours
        || repo
            .resolve_rev(&ref_name(&image.manifest_digest)?, true)?
            .is_some())
}

/// Returns whether the merge of the first `count` of `all` layers is worth keeping.
pub(super) fn is_kept(count: usize, all: usize) -> bool {
    count + TOP > all || count % EVERY == 0
}

/// Finds the kept merge of the most first layers, and how many those are.
///
/// Merges by another version of the importer do not count. What cannot be read does not either: merging again is
/// always possible.
pub(super) fn longest(
    repo: &ostree::Repo,
    store: &ObjectStore,
    chain: &[String],
) -> Result<Option<(usize, Directory)>> {
    let mut best: Option<(usize, Directory)> = None;
    for commit in store::refs_below(repo, REF_PREFIX)?.into_values() {
        if !commit::is_whole(repo, &commit)? {
            continue;
        }
        let found = Commit::load(repo, &commit).and_then(|mut commit| {
            if commit.importer() != Some(super::IMPORTER_VERSION.to_owned()) {
                return Ok(None);
            }
            let merges = &mut commit.root.entries(store)?.directories;
            let longest = chain
                .iter()
                .enumerate()
                .rev()
                .find_map(|(index, id)| merges.remove(id.as_str()).map(|merge| (index + 1, merge)));
            Ok(longest)
        });
        match found {
            Ok(Some((count, merge))) if best.as_ref().is_none_or(|(other, _)| count > *other) => {
                best = Some((count, merge));
            }
            Ok(_) => {}
            Err(error) => tracing::debug!("kept merges in {commit}: {error:#}"),
        }
    }
    Ok(best)
}

/// The merges of one image, to be kept.
#[derive(Debug)]
pub(super) struct Merges {
    root: Directory,
}

impl Merges {
    /// Returns an empty collection.
    pub(super) fn new(store: &ObjectStore) -> Result<Self> {
        let metadata = Directory::write_metadata(store, &Metadata::root(0o755))?;
        Ok(Self {
            root: Directory::new(metadata),
        })
    }

    /// Adds a merge; changed directories are written.
    pub(super) fn add(&mut self, chain_id: &str, merge: &mut Directory, store: &ObjectStore) -> Result<()> {
        let tree = merge.store(store)?;
        self.root
            .change(store)?
            .directories
            .insert(chain_id.into(), Directory::stored(tree, merge.metadata()));
        Ok(())
    }

    /// Writes the directory that lists the merges.
    pub(super) fn store(&mut self, store: &ObjectStore) -> Result<()> {
        self.root.store(store).map(drop)
    }

    /// Writes the commit that keeps them, inside the repository's transaction.
    pub(super) fn commit(&self, repo: &ostree::Repo) -> Result<String> {
        commit::write_plain(repo, &self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let diff_ids = ["sha256:aa".to_owned(), "sha256:bb".to_owned()];
        let chain = chain_ids(&diff_ids);
        assert_eq!(chain[0], "aa");
        assert_eq!(chain[1], hex::encode(Sha256::digest("sha256:aa sha256:bb")));
    }

    #[test]
    fn few_merges_are_kept_of_many_layers() {
        assert!((1..=8).all(|count| is_kept(count, 8)));
        assert_eq!((1..=130).filter(|count| is_kept(*count, 130)).count(), 8 + 15);
        assert!(is_kept(130, 130));
    }
}
