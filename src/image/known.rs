//! Which layers of an image are here already, and which have to be fetched.

use super::chunked::Annotated;
use super::commit::Commit;
use super::encapsulated;
use super::fetch::Wanted;
use super::inflate::Expected;
use super::object::ObjectStore;
use super::proxy::ImageSource;
use super::scratch::{LayerRecord, LayerTraits};
use super::store;
use crate::tree::{Directory, MetadataKind};
use anyhow::Result;
use oci_spec::image::ImageConfiguration;
use ostree_ext::ostree;
use std::collections::{HashMap, HashSet};

/// The layers of an image: what is here, and what is to come.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// Commits of stored layers by diff id.
    pub(super) commits: HashMap<String, String>,
    /// Finished layers that no commit holds yet, by diff id.
    pub(super) records: HashMap<String, LayerRecord>,
    /// Trees by diff id.
    pub(super) trees: HashMap<String, (Directory, LayerTraits)>,
    /// Layers to be fetched.
    pub(super) wanted: Vec<Wanted>,
    /// How many of the first layers carry OSTree objects.
    pub(super) ostree_layers: usize,
    /// The commit object in them, when it was fetched now.
    pub(super) base_commit: Option<Vec<u8>>,
}

impl Layers {
    /// Looks up each layer by its digest, by the digest of its archive, and in the journal of a killed import.
    pub(super) fn look_up(
        repo: &ostree::Repo,
        source: &ImageSource,
        config: &ImageConfiguration,
        records: &[LayerRecord],
        store: &ObjectStore,
    ) -> Result<Self> {
        let mut layers = Self {
            ostree_layers: encapsulated::layer_count(config)?,
            ..Self::default()
        };
        let mut elsewhere = None;
        let mut seen = HashSet::new();
        let manifest = source.manifest();
        for ((layer, diff_id), offered) in manifest
            .layers()
            .iter()
            .zip(config.rootfs().diff_ids())
            .zip(source.layers())
        {
            let is_ostree = seen.len() < layers.ostree_layers;
            if !seen.insert(diff_id) {
                continue;
            }
            let digest = layer.digest().to_string();
            let mut commit = store::whole_layer(repo, &digest)?;
            if commit.is_none() {
                let elsewhere = match &elsewhere {
                    Some(known) => known,
                    None => elsewhere.insert(stored_diff_ids(repo)?),
                };
                commit = elsewhere.get(diff_id).cloned();
            }
            if let Some(commit) = commit {
                let stored = Commit::load(repo, &commit)?;
                let traits = stored.layer_traits();
                layers.trees.insert(diff_id.clone(), (stored.root, traits));
                layers.commits.insert(diff_id.clone(), commit);
                continue;
            }
            if let Some(record) = records.iter().find(|record| record.diff_id == *diff_id) {
                let mut root = Directory::stored(record.tree.parse()?, record.metadata.parse()?);
                if is_complete(&mut root, store).unwrap_or(false) {
                    layers
                        .trees
                        .insert(diff_id.clone(), (root, record.traits.clone()));
                    layers.records.insert(diff_id.clone(), record.clone());
                    continue;
                }
            }
            // Annotations are of the blob in the registry, and podman's storage hands out another one.
            let annotated = (offered.digest == *layer.digest())
                .then(|| Annotated::of(layer))
                .flatten();
            layers.wanted.push(Wanted {
                annotated,
                expected: Expected {
                    digest,
                    diff_id: diff_id.clone(),
                    is_ostree,
                },
                source: offered.clone(),
            });
        }
        Ok(layers)
    }
}

/// Returns the commits of all layers that stored images have, by the digest of their archives.
fn stored_diff_ids(repo: &ostree::Repo) -> Result<HashMap<String, String>> {
    let mut known = HashMap::new();
    for (_, image) in store::list(repo)? {
        let Ok(image) = image else { continue };
        for (layer, diff_id) in image
            .manifest
            .layers()
            .iter()
            .zip(image.config.rootfs().diff_ids())
        {
            if known.contains_key(diff_id) {
                continue;
            }
            if let Some(commit) = store::whole_layer(repo, layer.digest().as_ref())? {
                known.insert(diff_id.clone(), commit);
            }
        }
    }
    Ok(known)
}

/// Returns whether every object below a directory exists; a prune may have come between a killed import and this one.
pub(super) fn is_complete(directory: &mut Directory, store: &ObjectStore) -> Result<bool> {
    if !store.has_metadata(MetadataKind::DirMeta, &directory.metadata())? {
        return Ok(false);
    }
    let entries = directory.entries(store)?;
    for object in entries.files.values() {
        if !store.has_file(object)? {
            return Ok(false);
        }
    }
    for below in entries.directories.values_mut() {
        if !is_complete(below, store)? {
            return Ok(false);
        }
    }
    Ok(true)
}
