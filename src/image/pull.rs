//! Pulling an image: from its reference to a commit in the repository.
//!
//! All of it happens in a scratch folder and in memory until one transaction sets the refs of the image and of its
//! layers. A process that is killed before that leaves the repository as it was, and the next one goes on with the
//! layers that were finished.

use super::assemble::{Assembly, Publication};
use super::chunked::{self, Index};
use super::commit::{self, ImageFacts};
use super::fetch::{self, Fetched};
use super::gc;
use super::known::Layers;
use super::layer::Layer;
use super::merged;
use super::object::ObjectStore;
use super::proxy::{ImageSource, SourceOptions};
use super::reference::ImageReference;
use super::requirements;
use super::scratch::{LayerRecord, Scratch};
use super::space;
use super::store::{self, StoredImage};
use crate::fault::{Fault, Kind};
use crate::host::checkpoint;
use crate::report::{self, Report, Unit, Work, counted};
use anyhow::{Context, Result};
use fn_error_context::context;
use oci_spec::image::{ImageConfiguration, ImageManifest};
use ostree_ext::{gio, ostree};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::runtime::Runtime;

/// When so much is staged, finished layers are published at once: a power cut then costs no more than this.
const PUBLISH_EARLY: u64 = 2 * 1024 * 1024 * 1024;

/// What a pull demands of the image, and where it looks.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// Refuse an image that no label calls bootable.
    pub require_bootable: bool,
    /// Refuse an image without exactly one kernel.
    pub require_kernel: bool,
    /// Fetch layers whole, also those of which most is here.
    pub whole_layers: bool,
    /// Policy, credentials and patience.
    pub source: SourceOptions,
}

/// A pulled image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pulled {
    /// The image as it is stored now.
    pub image: StoredImage,
    /// Whether it was stored under this reference before.
    pub unchanged: bool,
    /// Layers that were fetched.
    pub layers_fetched: usize,
    /// Bytes that were fetched for them.
    pub bytes_fetched: u64,
    /// Bytes that these layers have; more than were fetched where parts of them were here.
    #[serde(default)]
    pub bytes_of_layers: u64,
}

/// An image as its source describes it.
#[derive(Clone, Debug)]
pub struct RemoteImage {
    /// Digest of the manifest.
    pub manifest_digest: String,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration.
    pub config: ImageConfiguration,
}

impl RemoteImage {
    /// Returns the version that the labels tell.
    pub fn version(&self) -> Option<String> {
        store::version_of(&self.config).map(str::to_owned)
    }

    /// Returns when the image was made, in RFC 3339.
    pub fn created(&self) -> Option<String> {
        store::created_of(&self.manifest, &self.config).map(str::to_owned)
    }
}

/// Looks at an image without fetching a layer.
pub fn inspect(reference: &ImageReference) -> Result<RemoteImage> {
    inspect_with(reference, &SourceOptions::default())
}

/// Looks at an image as [`inspect`] does, with other surroundings.
pub fn inspect_with(reference: &ImageReference, options: &SourceOptions) -> Result<RemoteImage> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let source = ImageSource::open_with(reference, options).await?;
        let config = source.config().await;
        let remote = RemoteImage {
            manifest_digest: source.manifest_digest().to_owned(),
            manifest: source.manifest().clone(),
            config: config?.1,
        };
        source.close().await;
        Ok(remote)
    })
}

/// Imports the image into the repository, unless it is there.
///
/// Blocks, and starts its own runtime. Fails with a [`Fault`] where the image, the source or the disk is at fault;
/// no ref has changed then.
pub fn pull(
    repo: &ostree::Repo,
    reference: &ImageReference,
    options: &PullOptions,
    report: &dyn Report,
) -> Result<Pulled> {
    let runtime = runtime()?;
    let step = report.step(&format!("Fetching the manifest of {reference}"));
    let source = runtime.block_on(ImageSource::open_with(reference, &options.source))?;
    step.done(&format!("Fetched the manifest of {reference}"));
    let pull = Pull {
        repo,
        reference,
        options,
        report,
        runtime: &runtime,
        source: &source,
    };
    let outcome = pull.run();
    runtime.block_on(source.close());
    outcome.map_err(space::explain_full_disk)
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("Starting the runtime")
}

struct Pull<'a> {
    repo: &'a ostree::Repo,
    reference: &'a ImageReference,
    options: &'a PullOptions,
    report: &'a dyn Report,
    runtime: &'a Runtime,
    source: &'a ImageSource,
}

impl Pull<'_> {
    #[context("Importing {}", self.reference)]
    fn run(&self) -> Result<Pulled> {
        let digest = self.source.manifest_digest();
        match store::find(self.repo, self.reference) {
            // What was found to be damaged is imported again.
            Ok(Some(image)) if image.manifest_digest == digest && store::is_whole(self.repo, &image)? => {
                self.check(&image.manifest, &image.config)?;
                return Ok(Pulled {
                    image,
                    unchanged: true,
                    layers_fetched: 0,
                    bytes_fetched: 0,
                    bytes_of_layers: 0,
                });
            }
            Ok(_) => {}
            // A damaged commit is replaced by importing again.
            Err(error) => tracing::warn!("{error:#}"),
        }
        let (raw_config, config) = self.runtime.block_on(self.source.config())?;
        let manifest = self.source.manifest();
        self.check(manifest, &config)?;

        let (mut scratch, records) = Scratch::open(self.repo)?;
        let store = ObjectStore::open(self.repo, scratch.objects()?)?;
        // Holds the repository's lock: nothing is pruned while layers rely on objects that no ref holds.
        let transaction = self.repo.auto_transaction(gio::Cancellable::NONE)?;
        let mut layers = Layers::look_up(self.repo, self.source, &config, &records, &store)?;
        let (count, bytes) = (
            layers.wanted.len(),
            layers.wanted.iter().map(|wanted| wanted.source.size).sum(),
        );
        let outcome = store
            .space()
            .require(bytes, &format!("{}", self.reference))
            .and_then(|()| self.fetch(&mut layers, &store, &mut scratch))
            .and_then(|received| {
                let step = self.report.step("Merging layers");
                let assembly = Assembly {
                    repo: self.repo,
                    store: &store,
                    reference: self.reference,
                    require_kernel: self.options.require_kernel,
                };
                let publication = assembly.merge(&config, &mut layers)?;
                step.done("Merged layers");
                Ok((publication, received))
            });
        let (publication, received) = match outcome.map_err(space::explain_full_disk) {
            Ok(done) => done,
            Err(error) => {
                drop(transaction);
                if Fault::find(&error).is_some_and(|fault| fault.kind == Kind::NoSpace) {
                    // What is staged may be what fills the disk.
                    drop(store);
                    scratch.remove()?;
                }
                return Err(error);
            }
        };
        checkpoint::reach("import-before-publish")?;
        let step = self.report.step("Storing the image");
        store.publish(!self.repo.is_disable_fsync())?;
        let commit = self.set_refs(&config, &raw_config, &layers, &publication, &scratch)?;
        transaction
            .commit(gio::Cancellable::NONE)
            .context("Committing the transaction")?;
        if !self.repo.is_disable_fsync() {
            // libostree flushes the content of each ref before it gives it its name, and never the name.
            rustix::fs::syncfs(self.repo.dfd_borrow()).context("Flushing the refs")?;
        }
        checkpoint::reach("import-published")?;
        if let Err(error) = scratch.remove() {
            tracing::warn!("{error:#}");
        }
        step.done("Stored the image");
        Ok(Pulled {
            image: StoredImage {
                commit,
                manifest_digest: digest.to_owned(),
                manifest: manifest.clone(),
                config,
            },
            unchanged: false,
            layers_fetched: count,
            bytes_fetched: received,
            bytes_of_layers: bytes,
        })
    }

    fn check(&self, manifest: &ImageManifest, config: &ImageConfiguration) -> Result<()> {
        requirements::check_image(self.reference, manifest, config)?;
        if self.options.require_bootable {
            requirements::check_bootable(self.reference, config)?;
        }
        Ok(())
    }

    /// Fetches the layers that are not here, and returns how many bytes came.
    fn fetch(&self, layers: &mut Layers, store: &ObjectStore, scratch: &mut Scratch) -> Result<u64> {
        let wanted = std::mem::take(&mut layers.wanted);
        if wanted.is_empty() {
            return Ok(0);
        }
        let count = wanted.len();
        let indexes = self.indexes(&wanted);
        let bytes: u64 = wanted.iter().map(|wanted| wanted.source.size).sum();
        let mut received = 0;
        let step = self.report.begin(
            "Fetching layers",
            &[
                Work::new(Unit::Bytes, bytes),
                Work::new(Unit::Layers, count as u64),
            ],
        );
        let mut left = count;
        let mut unpublished = Vec::new();
        fetch::fetch(
            self.source,
            self.runtime.handle(),
            &indexes,
            wanted,
            store,
            &step,
            |wanted, fetched| {
                let Fetched { layer, index, .. } = fetched;
                let Layer { root, traits, commit } = layer;
                received += fetched.received;
                if let Some(index) = index {
                    scratch.keep_index(&wanted.expected.diff_id, &index)?;
                }
                let record = LayerRecord {
                    diff_id: wanted.expected.diff_id.clone(),
                    tree: root.tree().context("A layer was not stored")?.to_string(),
                    metadata: root.metadata().to_string(),
                    traits: traits.clone(),
                };
                match commit {
                    // The layer is only as good as directories that its record does not name.
                    Some(commit) => layers.base_commit = Some(commit),
                    None => {
                        scratch.record(&record)?;
                        unpublished.push((wanted.expected.digest.clone(), record.clone()));
                    }
                }
                checkpoint::reach("import-layer-done")?;
                layers.trees.insert(record.diff_id.clone(), (root, traits));
                layers.records.insert(record.diff_id.clone(), record);
                left -= 1;
                step.advance(Unit::Layers, 1);
                if left > 0 && store.staged_bytes() > PUBLISH_EARLY {
                    self.publish_early(store, &std::mem::take(&mut unpublished))?;
                }
                Ok(())
            },
        )?;
        let layers = counted(count as u64, "layer");
        step.done(&match received < bytes {
            true => format!("Fetched what is new in {layers} of {}", report::size(bytes)),
            false => format!("Fetched {layers}"),
        });
        Ok(received)
    }

    /// Returns what is known of the content in the repository, where layers can be made of it.
    fn indexes(&self, wanted: &[fetch::Wanted]) -> Vec<Index> {
        if self.options.whole_layers || wanted.iter().all(|wanted| wanted.annotated.is_none()) {
            return Vec::new();
        }
        chunked::load_all(self.repo).unwrap_or_else(|error| {
            tracing::warn!("layers are fetched whole: {error:#}");
            Vec::new()
        })
    }

    /// Publishes finished layers of a large image, each under its own ref, so that nothing can undo them.
    #[context("Storing finished layers")]
    fn publish_early(&self, store: &ObjectStore, finished: &[(String, LayerRecord)]) -> Result<()> {
        let sync = !self.repo.is_disable_fsync();
        store.publish(sync)?;
        let mut refs = Vec::new();
        for (digest, record) in finished {
            // Commits come after everything they name.
            refs.push((
                store::layer_ref(digest),
                store.write_commit(&commit::layer_bytes(record)?)?,
            ));
        }
        store.publish(sync)?;
        for (name, commit) in refs {
            self.repo
                .set_ref_immediate(None, &name, Some(&commit.to_string()), gio::Cancellable::NONE)?;
        }
        Ok(())
    }

    fn set_refs(
        &self,
        config: &ImageConfiguration,
        raw_config: &[u8],
        layers: &Layers,
        publication: &Publication,
        scratch: &Scratch,
    ) -> Result<String> {
        let manifest = self.source.manifest();
        let manifest_digest = self.source.manifest_digest();
        let mut refs = BTreeMap::new();
        let mut parent = None;
        for (index, (layer, diff_id)) in manifest
            .layers()
            .iter()
            .zip(config.rootfs().diff_ids())
            .enumerate()
        {
            if index == 0 && layers.ostree_layers > 0 {
                let commit = match &layers.base_commit {
                    Some(bytes) => commit::write_given(self.repo, bytes)?,
                    None => layers
                        .commits
                        .get(diff_id)
                        .context("The base has no commit")?
                        .clone(),
                };
                refs.insert(store::layer_ref(layer.digest().as_ref()), commit.clone());
                parent = Some(commit);
                continue;
            }
            let commit = match (layers.commits.get(diff_id), layers.records.get(diff_id)) {
                (Some(commit), _) => commit.clone(),
                (None, Some(record)) => {
                    let commit = commit::write_layer(self.repo, record)?;
                    if let Some(index) = scratch.index(diff_id)? {
                        chunked::attach(self.repo, &commit, &index)?;
                    }
                    commit
                }
                (None, None) => anyhow::bail!("The layer {diff_id} is neither stored nor fetched"),
            };
            refs.insert(store::layer_ref(layer.digest().as_ref()), commit);
        }
        let text = |bytes, what| std::str::from_utf8(bytes).with_context(|| format!("Reading the {what}"));
        let facts = ImageFacts {
            parent: parent.as_deref(),
            manifest_digest,
            manifest: text(self.source.raw_manifest(), "manifest")?,
            config: text(raw_config, "configuration")?,
            created: store::seconds(store::created_of(manifest, config)),
            version: store::version_of(config),
        };
        let commit = commit::write_image(self.repo, &facts, &publication.root)?;
        refs.insert(self.reference.store_ref()?, commit.clone());
        refs.insert(
            merged::ref_name(manifest_digest)?,
            publication.merges.commit(self.repo)?,
        );
        for (name, commit) in &refs {
            self.repo.transaction_set_ref(None, name, Some(commit));
            // Whatever it lacked before, everything it names was stored or is here.
            self.repo.mark_commit_partial(commit, false)?;
        }
        gc::note(self.repo, refs.values().map(String::as_str));
        Ok(commit)
    }
}
