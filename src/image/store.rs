//! What the repository knows of imported images.
//!
//! Names and metadata are those of ostree-ext, so that `ostree container`, bootc and this program read each
//! other's images: a ref for each image and for each layer, and manifest and configuration in the image's commit.

use super::commit::{self, Commit, KEY_CONFIG, KEY_MANIFEST, KEY_MANIFEST_DIGEST};
use super::gc;
use super::merged;
use super::reference::{IMAGE_REF_PREFIX, ImageReference};
use anyhow::{Context, Result};
use fn_error_context::context;
use oci_spec::image::{Descriptor, History, ImageConfiguration, ImageManifest};
use ostree_ext::refescape;
use ostree_ext::{gio, glib, ostree};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Prefix of the refs that hold layers.
pub const LAYER_REF_PREFIX: &str = "ostree/container/blob";

const LABEL_VERSION: &str = "org.opencontainers.image.version";
const LABEL_OLD_VERSION: &str = "version";
const ANNOTATION_CREATED: &str = "org.opencontainers.image.created";

/// An image commit (or a commit derived from one) and what its metadata tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredImage {
    /// The commit's checksum.
    pub commit: String,
    /// The digest of the manifest it was imported from, `sha256:...`.
    pub manifest_digest: String,
    /// The manifest itself.
    pub manifest: ImageManifest,
    /// The image configuration; default where the commit has none.
    pub config: ImageConfiguration,
}

impl StoredImage {
    /// Returns the version that the labels tell.
    pub fn version(&self) -> Option<String> {
        version_of(&self.config).map(str::to_owned)
    }

    /// Returns when the image was made, in RFC 3339.
    pub fn created(&self) -> Option<String> {
        created_of(&self.manifest, &self.config).map(str::to_owned)
    }

    /// Returns the processor architecture in OCI's words, for example `amd64`.
    pub fn architecture(&self) -> String {
        self.config.architecture().to_string()
    }

    /// Returns the layers from the lowest up, each with the step that made it where the image tells.
    pub fn history(&self) -> Vec<(&Descriptor, Option<&History>)> {
        let steps: Vec<&History> = self
            .config
            .history()
            .iter()
            .flatten()
            .filter(|step| !step.empty_layer().unwrap_or(false))
            .collect();
        let layers = self.manifest.layers();
        // Steps that do not fit the layers one to one would name the wrong ones.
        let told = steps.len() == layers.len();
        layers
            .iter()
            .enumerate()
            .map(|(index, layer)| (layer, told.then(|| steps[index])))
            .collect()
    }
}

/// Returns the version that an image's labels tell.
pub fn version_of(config: &ImageConfiguration) -> Option<&str> {
    let labels = config.labels_of_config()?;
    labels
        .get(LABEL_VERSION)
        .or_else(|| labels.get(LABEL_OLD_VERSION))
        .map(String::as_str)
}

/// Returns when an image was made, in RFC 3339.
pub fn created_of<'a>(manifest: &'a ImageManifest, config: &'a ImageConfiguration) -> Option<&'a str> {
    manifest
        .annotations()
        .as_ref()
        .and_then(|annotations| annotations.get(ANNOTATION_CREATED))
        .or(config.created().as_ref())
        .map(String::as_str)
}

/// Returns the seconds since 1970 of a time in RFC 3339; 0 for what is none.
pub fn seconds(created: Option<&str>) -> u64 {
    created
        .and_then(|text| glib::DateTime::from_iso8601(text, Some(&glib::TimeZone::utc())).ok())
        .and_then(|time| u64::try_from(time.to_unix()).ok())
        .unwrap_or(0)
}

/// Returns the ref that holds the layer with this digest.
pub fn layer_ref(digest: &str) -> String {
    refescape::prefix_escape_for_ref(LAYER_REF_PREFIX, digest)
        .expect("a digest is not empty and holds no zero byte")
}

/// Returns the commit of the layer with this digest, where it is stored and not known to lack objects.
pub(super) fn whole_layer(repo: &ostree::Repo, digest: &str) -> Result<Option<String>> {
    match repo.resolve_rev(&layer_ref(digest), true)? {
        Some(layer) if commit::is_whole(repo, &layer)? => Ok(Some(layer.to_string())),
        _ => Ok(None),
    }
}

/// Returns whether an image and all its layers are stored with what their import keeps, and none is known to lack objects.
///
/// An import that was cut off while its refs were written may have set any of them.
pub(super) fn is_whole(repo: &ostree::Repo, image: &StoredImage) -> Result<bool> {
    for layer in image.manifest.layers() {
        if whole_layer(repo, layer.digest().as_ref())?.is_none() {
            return Ok(false);
        }
    }
    Ok(merged::are_kept(repo, image)? && commit::is_whole(repo, &image.commit)?)
}

/// Returns the ref that holds the merges of the first layers of the image with this manifest.
pub fn merges_ref(manifest_digest: &str) -> Result<String> {
    merged::ref_name(manifest_digest)
}

/// Reads what an image commit, or one derived from it, tells of its image.
///
/// Fails when the commit is missing or was not made from an image.
#[context("Reading the image in the commit {commit}")]
pub fn query_commit(repo: &ostree::Repo, commit: &str) -> Result<StoredImage> {
    let loaded = Commit::load(repo, commit)?;
    let manifest = loaded
        .text(KEY_MANIFEST)
        .context("The commit was not made from an image: it has no manifest")?;
    let config = loaded.text(KEY_CONFIG).filter(|text| text != "null");
    Ok(StoredImage {
        commit: commit.to_owned(),
        manifest_digest: loaded
            .text(KEY_MANIFEST_DIGEST)
            .context("The commit was not made from an image: it has no manifest digest")?,
        manifest: serde_json::from_str(&manifest).context("Reading its manifest")?,
        config: config
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .context("Reading its configuration")?
            .unwrap_or_default(),
    })
}

/// Returns the image that was imported from `reference`, if there is one.
pub fn find(repo: &ostree::Repo, reference: &ImageReference) -> Result<Option<StoredImage>> {
    let commit = repo.resolve_rev(&reference.store_ref()?, true)?;
    commit.map(|commit| query_commit(repo, &commit)).transpose()
}

/// Returns every imported image by the name skopeo knows it under; a damaged one does not hide the others.
#[context("Listing the images of the repository")]
pub fn list(repo: &ostree::Repo) -> Result<Vec<(String, Result<StoredImage>)>> {
    refs_below(repo, IMAGE_REF_PREFIX)?
        .into_iter()
        .map(|(name, commit)| {
            let image = refescape::unprefix_unescape_ref(IMAGE_REF_PREFIX, &name)
                .with_context(|| format!("Reading the name of the ref {name}"))?;
            Ok((image, query_commit(repo, &commit)))
        })
        .collect()
}

/// Forgets the image that was imported from `reference`; returns whether there was one.
///
/// Its layers and objects go at the next collection.
#[context("Removing the image {reference}")]
pub fn remove(repo: &ostree::Repo, reference: &ImageReference) -> Result<bool> {
    let name = reference.store_ref()?;
    let Some(commit) = repo.resolve_rev(&name, true)? else {
        return Ok(false);
    };
    gc::note(repo, [commit.as_str()]);
    repo.set_ref_immediate(None, &name, None, gio::Cancellable::NONE)?;
    Ok(true)
}

/// Returns the refs below a prefix with their commits, by name.
pub(crate) fn refs_below(repo: &ostree::Repo, prefix: &str) -> Result<BTreeMap<String, String>> {
    let flags = ostree::RepoListRefsExtFlags::empty();
    let refs = repo.list_refs_ext(Some(prefix), flags, gio::Cancellable::NONE)?;
    Ok(refs.into_iter().collect())
}
