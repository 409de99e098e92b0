//! From the trees of the layers to the tree of the image.

use super::commit::{self, Commit};
use super::known::{Layers, is_complete};
use super::merged::{self, Merges};
use super::object::ObjectStore;
use super::reference::ImageReference;
use super::requirements;
use super::scratch::LayerTraits;
use crate::fault::{Fault, Kind};
use crate::tree::{Directory, Metadata, OPAQUE};
use anyhow::{Context, Result};
use fn_error_context::context;
use oci_spec::image::ImageConfiguration;
use ostree_ext::ostree;

/// Where an image's `/etc` is kept in the tree.
const ETC: &str = "usr/etc";

/// What the one transaction makes visible.
#[derive(Debug)]
pub(super) struct Publication {
    /// The merged tree.
    pub(super) root: Directory,
    /// Merges of the first layers, for the next image.
    pub(super) merges: Merges,
}

/// Makes the tree of one image.
pub(super) struct Assembly<'a> {
    /// The repository with the commits of stored layers.
    pub(super) repo: &'a ostree::Repo,
    /// The objects.
    pub(super) store: &'a ObjectStore,
    /// The image, for messages.
    pub(super) reference: &'a ImageReference,
    /// Refuse a tree without exactly one kernel.
    pub(super) require_kernel: bool,
}

impl Assembly<'_> {
    #[context("Merging the layers")]
    pub(super) fn merge(&self, config: &ImageConfiguration, layers: &mut Layers) -> Result<Publication> {
        let store = self.store;
        let diff_ids = config.rootfs().diff_ids();
        let has = |has: fn(&LayerTraits) -> bool| {
            diff_ids
                .iter()
                .any(|diff_id| layers.trees.get(diff_id).is_some_and(|(_, traits)| has(traits)))
        };
        requirements::check_etc(
            self.reference,
            has(|traits| traits.etc),
            has(|traits| traits.usr_etc),
        )?;

        let chain = merged::chain_ids(diff_ids);
        let mut merges = Merges::new(store)?;
        let (begin, mut root) = match merged::longest(self.repo, store, &chain)? {
            Some(found) => found,
            None if layers.ostree_layers > 0 => (layers.ostree_layers, self.base_tree(diff_ids, layers)?),
            None => {
                let metadata = Directory::write_metadata(store, &Metadata::root(0o755))?;
                (0, Directory::new(metadata))
            }
        };
        if begin > 0 {
            merges.add(&chain[begin - 1], &mut root, store)?;
        }
        for index in begin..diff_ids.len() {
            let diff_id = &diff_ids[index];
            let is_last_use = !diff_ids[index + 1..].contains(diff_id);
            let tree = match is_last_use {
                true => layers.trees.remove(diff_id),
                false => layers.trees.get(diff_id).cloned(),
            };
            let (mut tree, traits) = tree.context("A layer has no tree")?;
            for path in &traits.implicit {
                if let Some(directory) = tree.find_directory(store, path)? {
                    directory.set_implicit();
                }
            }
            apply_layer(&mut root, tree, traits.whiteouts, store)?;
            if merged::is_kept(index + 1, diff_ids.len()) {
                merges.add(&chain[index], &mut root, store)?;
            }
        }
        remove_build_leftovers(&mut root, store)?;
        if self.require_kernel {
            requirements::check_kernel(self.reference, &mut root, store)?;
        }
        root.store(store)?;
        merges.store(store)?;
        Ok(Publication { root, merges })
    }

    /// Returns the tree of the commit that the OSTree part of the image carries.
    fn base_tree(&self, diff_ids: &[String], layers: &Layers) -> Result<Directory> {
        let store = self.store;
        let stored = diff_ids.first().and_then(|diff_id| layers.commits.get(diff_id));
        let mut root = match (&layers.base_commit, stored) {
            (Some(bytes), _) => commit::parse(bytes)?.root,
            (None, Some(commit)) => Commit::load(self.repo, commit)?.root,
            (None, None) => return Err(self.no_commit("its first layer carries no commit")),
        };
        match is_complete(&mut root, store) {
            Ok(true) => Ok(root),
            _ => Err(self.no_commit("its layers lack objects of the commit they carry")),
        }
    }

    fn no_commit(&self, reason: &str) -> anyhow::Error {
        Fault::new(
            Kind::Invalid,
            format!("{} is no whole encapsulated image: {reason}", self.reference),
        )
        .into()
    }
}

/// Folds a layer over the tree.
///
/// The image's `/etc` stands below `/usr` in the tree only, so a layer that removes or empties `/usr` must not take
/// it along.
fn apply_layer(
    root: &mut Directory,
    mut layer: Directory,
    whiteouts: bool,
    store: &ObjectStore,
) -> Result<()> {
    if !(whiteouts && clears_usr(&mut layer, store)?) {
        return root.apply(layer, whiteouts, store);
    }
    let below = root.find_directory(store, ETC)?.cloned();
    let above = match layer.find_directory(store, "usr")? {
        Some(usr) => usr.change(store)?.directories.remove("etc"),
        None => None,
    };
    root.apply(layer, whiteouts, store)?;
    let etc = match (below, above) {
        (Some(mut below), Some(above)) => {
            below.apply(above, whiteouts, store)?;
            Some(below)
        }
        (below, above) => below.or(above),
    };
    if let Some(etc) = etc {
        let metadata = Directory::write_metadata(store, &Metadata::root(0o755))?;
        let usr = root.change(store)?.directories.entry("usr".into());
        let usr = usr.or_insert_with(|| Directory::new(metadata));
        usr.change(store)?.directories.insert("etc".into(), etc);
    }
    Ok(())
}

fn clears_usr(layer: &mut Directory, store: &ObjectStore) -> Result<bool> {
    let entries = layer.entries(store)?;
    if entries.files.contains_key(".wh.usr") {
        return Ok(true);
    }
    match entries.directories.get_mut("usr") {
        Some(usr) => Ok(usr.entries(store)?.files.contains_key(OPAQUE)),
        None => Ok(false),
    }
}

/// Removes the empty files that build tools mount over and leave behind; as defaults they would blank the host's.
fn remove_build_leftovers(root: &mut Directory, store: &ObjectStore) -> Result<()> {
    for name in ["hostname", "resolv.conf"] {
        let Some(etc) = root.find_directory(store, ETC)? else {
            return Ok(());
        };
        let Some(object) = etc.entries(store)?.files.get(name).copied() else {
            continue;
        };
        if store.is_empty_file(&object)? {
            etc.change(store)?.files.remove(name);
        }
    }
    Ok(())
}
