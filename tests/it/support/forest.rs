//! Images made straight from trees, without archives and proxies: many of them, quickly.

use super::repo::{TestRepo, open};
use apt_ostree::image::commit::{self, Commit, ImageFacts};
use apt_ostree::image::gc;
use apt_ostree::image::object::ObjectStore;
use apt_ostree::image::reference::ImageReference;
use apt_ostree::image::scratch::{LayerRecord, LayerTraits, Scratch};
use apt_ostree::image::store;
use apt_ostree::tree::{Directory, Metadata, Objects};
use ostree_ext::{gio, ostree};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Paths of files with what they hold; a path that ends with `/` is a directory, whose permissions it holds.
pub type Files = BTreeMap<String, String>;

/// A repository that images and commits are written to.
pub struct Forest {
    pub repo: TestRepo,
    pub handle: ostree::Repo,
}

impl Forest {
    /// Makes an empty repository of a mode.
    pub fn new(mode: &str) -> Self {
        let repo = TestRepo::with_mode(mode);
        let handle = repo.open();
        Self { repo, handle }
    }

    /// Stores what an import of an image with these layers would, under the reference; returns its commit.
    pub fn pull(&self, name: &str, layers: &[Files]) -> String {
        let (scratch, _) = Scratch::open(&self.handle).expect("scratch");
        let objects = ObjectStore::open(&self.handle, scratch.objects().expect("objects")).expect("store");
        let transaction = self
            .handle
            .auto_transaction(gio::Cancellable::NONE)
            .expect("transaction");
        let mut files = Files::new();
        let mut refs = BTreeMap::new();
        let mut digests = Vec::new();
        let mut merges = Directory::new(metadata(0o755, &objects));
        for (number, layer) in layers.iter().enumerate() {
            let below = tree(layer, &objects);
            let record = LayerRecord {
                diff_id: String::new(),
                tree: below.tree().expect("tree").to_string(),
                metadata: below.metadata().to_string(),
                traits: LayerTraits::default(),
            };
            let commit = commit::write_layer(&self.handle, &record).expect("layer");
            digests.push(format!("sha256:{commit}"));
            refs.insert(store::layer_ref(&format!("sha256:{commit}")), commit);
            files.extend(layer.clone());
            let merge = tree(&files, &objects);
            merges
                .change(&objects)
                .expect("entries")
                .directories
                .insert(format!("{number}").into(), merge);
        }
        merges.store(&objects).expect("merges");
        let root = tree(&files, &objects);
        let manifest = manifest(&digests);
        let manifest_digest = super::image::sha256(manifest.as_bytes());
        objects.publish(false).expect("publication");
        let facts = ImageFacts {
            parent: None,
            manifest_digest: &manifest_digest,
            manifest: &manifest,
            config: "null",
            created: 0,
            version: None,
        };
        let image = commit::write_image(&self.handle, &facts, &root).expect("image");
        refs.insert(reference(name).store_ref().expect("ref"), image.clone());
        refs.insert(
            store::merges_ref(&manifest_digest).expect("ref"),
            commit::write_plain(&self.handle, &merges).expect("merges"),
        );
        for (name, commit) in &refs {
            self.handle.transaction_set_ref(None, name, Some(commit));
        }
        gc::note(&self.handle, refs.values().map(String::as_str));
        transaction.commit(gio::Cancellable::NONE).expect("commit");
        scratch.remove().expect("scratch");
        image
    }

    /// Writes a commit of this tree that was derived from an image's; no ref names it.
    pub fn derive(&self, base: &str, files: &Files) -> String {
        let (scratch, _) = Scratch::open(&self.handle).expect("scratch");
        let objects = ObjectStore::open(&self.handle, scratch.objects().expect("objects")).expect("store");
        let root = tree(files, &objects);
        let transaction = self
            .handle
            .auto_transaction(gio::Cancellable::NONE)
            .expect("transaction");
        objects.publish(false).expect("publication");
        let below = Commit::load(&self.handle, base).expect("base");
        let derived =
            commit::write_derived(&self.handle, &below, base, BTreeMap::new(), &root).expect("derived");
        gc::note(&self.handle, [derived.as_str()]);
        transaction.commit(gio::Cancellable::NONE).expect("commit");
        scratch.remove().expect("scratch");
        derived
    }

    /// Lets a ref name a commit, or removes it.
    pub fn set_ref(&self, name: &str, commit: Option<&str>) {
        self.handle
            .set_ref_immediate(None, name, commit, gio::Cancellable::NONE)
            .expect("ref");
    }

    /// Copies the whole repository.
    pub fn copy(&self) -> Copy {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("repo");
        super::run("cp", ["-a", &self.path(), path.to_str().expect("UTF-8")]);
        Copy {
            handle: open(&path),
            path,
            _directory: directory,
        }
    }

    fn path(&self) -> String {
        self.repo.path().display().to_string()
    }
}

/// A copy of a repository.
pub struct Copy {
    pub handle: ostree::Repo,
    pub path: PathBuf,
    _directory: tempfile::TempDir,
}

/// Returns the reference that [`Forest::pull`] gives an image.
pub fn reference(name: &str) -> ImageReference {
    format!("ostree-unverified-image:oci:/images/{name}:latest")
        .parse()
        .expect("reference")
}

/// Returns the names of all objects in a repository, with what is beside commits.
pub fn objects(repo: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for folder in std::fs::read_dir(repo.join("objects")).expect("objects") {
        let folder = folder.expect("folder").path();
        for object in std::fs::read_dir(&folder).expect("folder") {
            let name = object.expect("object").path();
            names.push(name.strip_prefix(repo).expect("inside").display().to_string());
        }
    }
    names.sort();
    names
}

fn manifest(digests: &[String]) -> String {
    let layer = |digest: &String| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 1
        })
    };
    serde_json::json!({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": super::image::sha256(b""),
            "size": 1,
        },
        "layers": digests.iter().map(layer).collect::<Vec<_>>(),
    })
    .to_string()
}

fn tree(files: &Files, objects: &dyn StoreFiles) -> Directory {
    let mut root = Directory::new(metadata(0o755, objects));
    for (path, content) in files {
        let mut directory = &mut root;
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
            let entries = directory.change(objects).expect("entries");
            directory = entries
                .directories
                .entry(folder.into())
                .or_insert_with(|| Directory::new(metadata(0o755, objects)));
        }
        if name.is_empty() {
            let mode = u32::from_str_radix(content, 8).expect("a mode");
            directory.set_metadata(metadata(mode, objects));
            continue;
        }
        let object = objects.store(content);
        let entries = directory.change(objects).expect("entries");
        entries.files.insert(name.into(), object);
    }
    root.store(objects).expect("tree");
    root
}

fn metadata(mode: u32, objects: &dyn Objects) -> apt_ostree::tree::Checksum {
    Directory::write_metadata(objects, &Metadata::root(mode)).expect("metadata")
}

/// A store of directories that files can be put into as well.
trait StoreFiles: Objects {
    fn store(&self, content: &str) -> apt_ostree::tree::Checksum;
}

impl StoreFiles for ObjectStore {
    fn store(&self, content: &str) -> apt_ostree::tree::Checksum {
        let metadata = Metadata::root(0o644);
        match content.strip_prefix("-> ") {
            Some(target) => self.write_symlink(&Metadata::root(0o777), target),
            None => self.write_file(&metadata, content.as_bytes()),
        }
        .expect("object")
    }
}
