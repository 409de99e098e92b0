//! Images at their source, read through skopeo's image proxy.
//!
//! skopeo brings the signature policy, credentials, mirrors and every transport. This module adds what it lacks:
//! retries, time limits, one image held fast by digest while its tag moves, and, for a skopeo whose proxy ignores
//! the policy, the check by other means.

use crate::fault::{Fault, Kind};
use crate::host::surroundings::Surroundings;
use crate::image::blob::{Blob, Transfer};
use crate::image::connection::Connection;
use crate::image::parts::{Parts, Registry};
use crate::image::policy::Policy;
use crate::image::reference::{ImageReference, Transport};
use crate::image::retry::Limits;
use anyhow::{Context, Result};
use oci_spec::image::{Digest, ImageConfiguration, ImageManifest, MediaType};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

/// Completes when a blob was delivered in full and verified; awaited after the reader ended.
pub type Driver = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Where a source looks for policy and credentials, and how patient it is.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// The environment that skopeo is given.
    pub surroundings: Surroundings,
    /// The root directory below which ostree's `auth.json` is searched.
    pub auth_root: PathBuf,
    /// Retries and time limits.
    pub limits: Limits,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            surroundings: Surroundings::current(),
            auth_root: PathBuf::from("/"),
            limits: Limits::default(),
        }
    }
}

/// What the source has for one layer of the manifest.
///
/// Podman's storage keeps layers unpacked, so what it hands out differs from what the manifest describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLayer {
    /// The digest to ask [`ImageSource::blob`] for.
    pub digest: Digest,
    /// The size of that blob.
    pub size: u64,
    /// The format of that blob.
    pub media_type: MediaType,
}

/// One image, opened at its source and accepted by the signature policy.
#[derive(Debug)]
pub struct ImageSource {
    connection: Arc<Connection>,
    manifest_digest: String,
    raw_manifest: Vec<u8>,
    manifest: ImageManifest,
    layers: Vec<SourceLayer>,
    registry: OnceLock<Option<Arc<Registry>>>,
}

impl ImageSource {
    /// Opens the image under the signature policy and credentials of this process.
    ///
    /// Fails with a fault of kind `NotFound` when the image is known not to exist, `Denied` when the policy
    /// refuses it and `Unreachable` when it could not be had after retries.
    pub async fn open(reference: &ImageReference) -> Result<Self> {
        Self::open_with(reference, &SourceOptions::default()).await
    }

    /// Opens the image as [`ImageSource::open`] does, with other surroundings and limits.
    pub async fn open_with(reference: &ImageReference, options: &SourceOptions) -> Result<Self> {
        if let Some(remote) = reference.ostree_remote() {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("{reference} asks for the keys of the OSTree remote `{remote}`, which this program cannot check"),
            )
            .hint("sign the image itself and follow it with ostree-image-signed:docker://NAME")
            .into());
        }
        let policy = Policy::load_in(&options.surroundings)?;
        policy.check(reference)?;
        check_local_path(reference)?;
        let connection = Connection::new(reference.clone(), policy, options.clone());
        let opened = connection.open().await?;
        Ok(Self {
            connection: Arc::new(connection),
            manifest_digest: opened.manifest_digest,
            raw_manifest: opened.raw_manifest,
            manifest: opened.manifest,
            layers: opened.layers,
            registry: OnceLock::new(),
        })
    }

    /// Returns the digest of the manifest as it is at the source, before any conversion to OCI.
    pub fn manifest_digest(&self) -> &str {
        &self.manifest_digest
    }

    /// Returns the manifest's bytes; for a multi-architecture image, of the manifest for this architecture.
    pub fn raw_manifest(&self) -> &[u8] {
        &self.raw_manifest
    }

    /// Returns the manifest.
    pub fn manifest(&self) -> &ImageManifest {
        &self.manifest
    }

    /// Returns what to ask [`ImageSource::blob`] for, layer by layer in the manifest's order.
    ///
    /// Differs from the manifest's own descriptors for podman's storage only.
    pub fn layers(&self) -> &[SourceLayer] {
        &self.layers
    }

    /// Fetches the image configuration and returns it with its bytes.
    pub async fn config(&self) -> Result<(Vec<u8>, ImageConfiguration)> {
        let raw = self.connection.config(&self.manifest_digest).await?;
        let config = serde_json::from_slice(&raw).map_err(|error| {
            Fault::new(
                Kind::Invalid,
                format!(
                    "The image configuration of {} is not valid: {error}",
                    self.connection.reference()
                ),
            )
        })?;
        Ok((raw, config))
    }

    /// Starts fetching a blob and returns its reader, limited to exactly `size` bytes, and its driver.
    ///
    /// Read to the end, then await the driver: only its success says that the bytes are those the digest names.
    /// When reading fails, the driver's error is the reason. Transfers that break off are begun again inside;
    /// the reader does not notice. Any number of blobs may be under way at once. Must be called on a runtime.
    pub async fn blob(&self, digest: &Digest, size: u64) -> Result<(Blob, Driver)> {
        let (blob, feed) = Blob::channel(size);
        let transfer = Transfer::new(digest, size, feed)?;
        let connection = Arc::clone(&self.connection);
        let manifest_digest = self.manifest_digest.clone();
        let task = match self.local_blob(digest)? {
            Some(file) => tokio::task::spawn_blocking(move || transfer.read_file(file)),
            None => tokio::spawn(async move { connection.transfer(transfer, &manifest_digest).await }),
        };
        let driver = Box::pin(async move { task.await.context("Fetching a layer")? });
        Ok((blob, driver))
    }

    /// Returns how single ranges of a blob are read, or nothing for an image that is in no registry or in a blocked one.
    ///
    /// `size` is the blob's size in bytes. Nothing is asked over the network yet, so that ranges can be had shows with
    /// the first one. Fails when the configuration of registries, credentials or certificates cannot be read. Any number
    /// of blobs and ranges may be under way at once, from plain threads; connections and logins are shared.
    pub fn parts(&self, digest: &Digest, size: u64) -> Result<Option<Box<dyn Parts>>> {
        let registry = match self.registry.get() {
            Some(registry) => registry,
            None => {
                let reference = self.connection.reference();
                let registry = Registry::of(reference, self.connection.options())?;
                self.registry.get_or_init(|| registry.map(Arc::new))
            }
        };
        Ok(registry
            .as_ref()
            .map(|registry| -> Box<dyn Parts> { Box::new(registry.blob(digest, size)) }))
    }

    /// Closes the image and lets skopeo end.
    pub async fn close(self) {
        self.connection.close().await;
    }

    /// Opens the blob's file when the image is a local OCI directory: no reason to send it through a pipe.
    fn local_blob(&self, digest: &Digest) -> Result<Option<std::fs::File>> {
        let reference = self.connection.reference();
        if reference.transport() != Transport::OciDir {
            return Ok(None);
        }
        let path = local_path(reference).join("blobs/sha256").join(digest.digest());
        match std::fs::File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) => Err(Fault::new(
                Kind::NotFound,
                format!(
                    "The layer {digest} of {reference} is missing: {}: {error}",
                    path.display()
                ),
            )
            .hint("write the image again")
            .into()),
        }
    }
}

/// Returns the file or directory that a local transport names, without the image's name in it.
fn local_path(reference: &ImageReference) -> PathBuf {
    let name = reference.name();
    let path = match reference.transport() {
        Transport::Dir => name,
        _ => name.split(':').next().unwrap_or(name),
    };
    PathBuf::from(path)
}

fn check_local_path(reference: &ImageReference) -> Result<(), Fault> {
    let path = match reference.transport() {
        Transport::Registry | Transport::ContainerStorage => return Ok(()),
        _ => local_path(reference),
    };
    if Path::new(&path).exists() {
        return Ok(());
    }
    Err(Fault::new(
        Kind::NotFound,
        format!(
            "There is no image {}: {} does not exist",
            reference.skopeo_name(),
            path.display()
        ),
    ))
}
