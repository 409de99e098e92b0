//! Commit objects of layers and images: what stands in their metadata, written and read.

use super::scratch::{LayerRecord, LayerTraits};
use crate::tree::{Checksum, Directory};
use anyhow::{Context, Result, ensure};
use fn_error_context::context;
use ostree_ext::glib::prelude::ToVariant;
use ostree_ext::{gio, glib, ostree};
use std::collections::BTreeMap;

/// Digest of the manifest an image commit was made from.
pub const KEY_MANIFEST_DIGEST: &str = "ostree.manifest-digest";
/// The manifest itself.
pub const KEY_MANIFEST: &str = "ostree.manifest";
/// The image configuration.
pub const KEY_CONFIG: &str = "ostree.container.image-config";
/// What wrote the commit.
const KEY_IMPORTER: &str = "ostree.importer.version";
/// What a layer's tree does not show, as JSON.
const KEY_LAYER: &str = "apt-ostree.layer";
/// The version that boot menus and `ostree admin status` show.
const KEY_VERSION: &str = "version";

/// What a commit to be written holds.
#[derive(Debug, Default)]
struct NewCommit<'a> {
    parent: Option<&'a str>,
    metadata: BTreeMap<&'a str, String>,
    timestamp: u64,
}

/// Writes the commit of a layer inside the repository's transaction and returns its name.
///
/// Equal layers make equal commits, on every host.
#[context("Writing the commit of a layer")]
pub fn write_layer(repo: &ostree::Repo, record: &LayerRecord) -> Result<String> {
    write(repo, &layer(record)?)
}

/// Returns the bytes of the commit that [`write_layer`] writes.
pub fn layer_bytes(record: &LayerRecord) -> Result<Vec<u8>> {
    Ok(layer(record)?.normal_form().data().to_vec())
}

fn layer(record: &LayerRecord) -> Result<glib::Variant> {
    let new = NewCommit {
        metadata: BTreeMap::from([(KEY_LAYER, serde_json::to_string(&record.traits)?)]),
        ..NewCommit::default()
    };
    build(&new, &record.tree, &record.metadata)
}

/// What the commit of an image says of it.
#[derive(Clone, Copy, Debug)]
pub struct ImageFacts<'a> {
    /// The commit that an encapsulated image was made from.
    pub parent: Option<&'a str>,
    /// Digest of the manifest.
    pub manifest_digest: &'a str,
    /// The manifest as JSON.
    pub manifest: &'a str,
    /// The configuration as JSON.
    pub config: &'a str,
    /// When the image was made, in seconds since 1970.
    pub created: u64,
    /// The version its labels tell.
    pub version: Option<&'a str>,
}

/// Writes the commit of an image inside the repository's transaction and returns its name.
#[context("Writing the commit of an image")]
pub fn write_image(repo: &ostree::Repo, facts: &ImageFacts<'_>, root: &Directory) -> Result<String> {
    let mut metadata = BTreeMap::from([
        (KEY_MANIFEST_DIGEST, facts.manifest_digest.to_owned()),
        (KEY_MANIFEST, facts.manifest.to_owned()),
        (KEY_CONFIG, facts.config.to_owned()),
    ]);
    if let Some(version) = facts.version {
        metadata.insert(KEY_VERSION, version.to_owned());
    }
    let new = NewCommit {
        parent: facts.parent,
        metadata,
        timestamp: facts.created,
    };
    let tree = root.tree().context("The merged tree was not stored")?;
    write(
        repo,
        &build(&new, &tree.to_string(), &root.metadata().to_string())?,
    )
}

/// Writes a commit that was derived from an image's inside the repository's transaction and returns its name.
///
/// It tells of the image what `base` tells, has its time so that equal trees make equal commits, and `added` on top.
#[context("Writing a commit derived from {base_name}")]
pub fn write_derived<'a>(
    repo: &ostree::Repo,
    base: &Commit,
    base_name: &'a str,
    added: BTreeMap<&'a str, String>,
    root: &Directory,
) -> Result<String> {
    let mut metadata = added;
    for key in [KEY_MANIFEST_DIGEST, KEY_MANIFEST, KEY_CONFIG, KEY_VERSION] {
        if let Some(text) = base.text(key) {
            metadata.insert(key, text);
        }
    }
    let new = NewCommit {
        parent: Some(base_name),
        metadata,
        timestamp: base.timestamp,
    };
    let tree = root.tree().context("The tree was not stored")?;
    write(
        repo,
        &build(&new, &tree.to_string(), &root.metadata().to_string())?,
    )
}

/// Writes a commit that only keeps a tree.
pub fn write_plain(repo: &ostree::Repo, root: &Directory) -> Result<String> {
    let tree = root.tree().context("The tree was not stored")?;
    let new = NewCommit::default();
    write(
        repo,
        &build(&new, &tree.to_string(), &root.metadata().to_string())?,
    )
}

/// Returns whether a commit is here and, as far as is known, everything it names: one that was found to lack objects is
/// marked as partial.
pub fn is_whole(repo: &ostree::Repo, checksum: &str) -> Result<bool> {
    if !repo.has_object(ostree::ObjectType::Commit, checksum, gio::Cancellable::NONE)? {
        return Ok(false);
    }
    let (_, state) = repo.load_commit(checksum)?;
    Ok(!state.contains(ostree::RepoCommitState::PARTIAL))
}

/// Reads a commit object from its bytes.
pub fn parse(bytes: &[u8]) -> Result<Commit> {
    Commit::read(&variant(bytes)?)
}

/// Writes a commit object that came with an image, inside the repository's transaction, and returns its name.
#[context("Writing the commit that the image carries")]
pub fn write_given(repo: &ostree::Repo, bytes: &[u8]) -> Result<String> {
    write(repo, &variant(bytes)?)
}

fn variant(bytes: &[u8]) -> Result<glib::Variant> {
    let kind = glib::VariantTy::new("(a{sv}aya(say)sstayay)").context("The type of commits")?;
    let commit = glib::Variant::from_bytes_with_type(&glib::Bytes::from(bytes), kind);
    ensure!(commit.is_normal_form(), "It is no commit object");
    Ok(commit)
}

fn write(repo: &ostree::Repo, commit: &glib::Variant) -> Result<String> {
    let checksum = repo.write_metadata(ostree::ObjectType::Commit, None, commit, gio::Cancellable::NONE)?;
    Ok(checksum.to_hex())
}

fn build(new: &NewCommit<'_>, tree: &str, dirmeta: &str) -> Result<glib::Variant> {
    let metadata = glib::VariantDict::new(None);
    for (key, value) in &new.metadata {
        metadata.insert(key, value.as_str());
    }
    metadata.insert(KEY_IMPORTER, super::IMPORTER_VERSION);
    let parent = new.parent.map(str::parse::<Checksum>).transpose()?;
    let bytes = |checksum: Option<Checksum>| {
        checksum
            .map_or_else(Vec::new, |checksum| checksum.as_bytes().to_vec())
            .to_variant()
    };
    Ok(glib::Variant::tuple_from_iter([
        metadata.end(),
        bytes(parent),
        Vec::<(String, Vec<u8>)>::new().to_variant(),
        "".to_variant(),
        "".to_variant(),
        new.timestamp.to_be().to_variant(),
        bytes(Some(tree.parse()?)),
        bytes(Some(dirmeta.parse()?)),
    ]))
}

/// A commit's metadata and the root directory it names.
#[derive(Debug)]
pub struct Commit {
    metadata: glib::Variant,
    /// The root directory, unread.
    pub root: Directory,
    /// The commit it was made from.
    pub parent: Option<String>,
    /// When it was made, in seconds since 1970.
    pub timestamp: u64,
}

impl Commit {
    /// Reads a commit object.
    #[context("Reading the commit {checksum}")]
    pub fn load(repo: &ostree::Repo, checksum: &str) -> Result<Self> {
        Self::read(&repo.load_commit(checksum)?.0)
    }

    fn read(commit: &glib::Variant) -> Result<Self> {
        ensure!(commit.n_children() == 8, "It is no commit object");
        let sum = |index| Checksum::from_slice(commit.child_value(index).data());
        let parent = commit.child_value(1);
        let timestamp = commit
            .child_value(5)
            .get::<u64>()
            .context("Its time is no number")?;
        Ok(Self {
            metadata: commit.child_value(0),
            root: Directory::stored(sum(6)?, sum(7)?),
            parent: match parent.data() {
                [] => None,
                bytes => Some(Checksum::from_slice(bytes)?.to_string()),
            },
            timestamp: u64::from_be(timestamp),
        })
    }

    /// Returns a text of the commit's metadata.
    pub fn text(&self, key: &str) -> Option<String> {
        glib::VariantDict::new(Some(&self.metadata))
            .lookup::<String>(key)
            .ok()
            .flatten()
    }

    /// Returns which importer wrote the commit, where one did.
    pub fn importer(&self) -> Option<String> {
        self.text(KEY_IMPORTER)
    }

    /// Returns whether the commit says that it was made from an image.
    pub fn is_image(&self) -> bool {
        let metadata = glib::VariantDict::new(Some(&self.metadata));
        [KEY_MANIFEST_DIGEST, KEY_MANIFEST]
            .iter()
            .any(|key| metadata.contains(key))
    }

    /// Returns what is known of a layer beside its tree; a layer that other software imported may hold anything.
    pub fn layer_traits(&self) -> LayerTraits {
        self.text(KEY_LAYER)
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_else(|| LayerTraits {
                whiteouts: true,
                ..LayerTraits::default()
            })
    }
}
