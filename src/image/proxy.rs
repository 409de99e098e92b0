//! Images at their source, read through skopeo's image proxy.
//!
//! skopeo brings the signature policy, credentials, mirrors and every transport. This module adds what it lacks:
//! retries, time limits, one image held fast by digest while its tag moves, and, for a skopeo whose proxy ignores
//! the policy, the check by other means.

use crate::fault::{Fault, Kind};
use crate::host::surroundings::Surroundings;
use crate::image::blob::{Blob, Transfer};
use crate::image::policy::{Policy, Verdict};
use crate::image::reference::{ImageReference, Transport};
use crate::image::retry::{Attempts, Failure, Limits};
use crate::image::session::{Feature, Session};
use crate::image::signature::{self, Verification};
use anyhow::{Context, Result};
use oci_spec::image::{Digest, ImageConfiguration, ImageManifest, MediaType};
use sha2::{Digest as _, Sha256};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Mutex;

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
    shared: Arc<Shared>,
    manifest_digest: String,
    raw_manifest: Vec<u8>,
    manifest: ImageManifest,
    layers: Vec<SourceLayer>,
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
        let shared = Shared {
            reference: reference.clone(),
            policy,
            options: options.clone(),
            session: Mutex::new(None),
        };
        let mut attempts = Attempts::new(&options.limits);
        let opened = loop {
            match shared.open().await {
                Ok(opened) => break opened,
                Err(failure) => attempts
                    .failed(failure)
                    .await
                    .map_err(|error| shared.explain(error, "cannot be opened"))?,
            }
        };
        *shared.session.lock().await = Some(Arc::new(opened.session));
        Ok(Self {
            shared: Arc::new(shared),
            manifest_digest: opened.manifest_digest,
            raw_manifest: opened.raw_manifest,
            manifest: opened.manifest,
            layers: opened.layers,
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
        let mut attempts = Attempts::new(&self.shared.options.limits);
        let raw = loop {
            match self.shared.config(&self.manifest_digest).await {
                Ok(raw) => break raw,
                Err(failure) => attempts.failed(failure).await.map_err(|error| {
                    self.shared
                        .explain(error, "has a configuration that cannot be fetched")
                })?,
            }
        };
        let config = serde_json::from_slice(&raw).map_err(|error| {
            Fault::new(
                Kind::Invalid,
                format!(
                    "The image configuration of {} is not valid: {error}",
                    self.shared.reference
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
        let shared = Arc::clone(&self.shared);
        let manifest_digest = self.manifest_digest.clone();
        let task = match self.local_blob(digest)? {
            Some(file) => tokio::spawn(transfer.read_file(file)),
            None => tokio::spawn(async move { shared.transfer(transfer, &manifest_digest).await }),
        };
        let driver = Box::pin(async move { task.await.context("Fetching a layer")? });
        Ok((blob, driver))
    }

    /// Closes the image and lets skopeo end.
    pub async fn close(self) {
        self.shared.session.lock().await.take();
    }

    /// Opens the blob's file when the image is a local OCI directory: no reason to send it through a pipe.
    fn local_blob(&self, digest: &Digest) -> Result<Option<std::fs::File>> {
        let reference = &self.shared.reference;
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

/// An image as one session saw it.
#[derive(Debug)]
struct Opened {
    session: Session,
    manifest_digest: String,
    raw_manifest: Vec<u8>,
    manifest: ImageManifest,
    layers: Vec<SourceLayer>,
}

/// What the image and the transfers under way share.
#[derive(Debug)]
struct Shared {
    reference: ImageReference,
    policy: Policy,
    options: SourceOptions,
    session: Mutex<Option<Arc<Session>>>,
}

impl Shared {
    async fn open(&self) -> Result<Opened, Failure> {
        let session = self.start(&self.reference).await?;
        let (manifest_digest, raw_manifest) = session.manifest().await.map_err(|f| self.weigh(f))?;
        let manifest: ImageManifest = serde_json::from_slice(&raw_manifest).map_err(|error| {
            Failure::last(Fault::new(
                Kind::Invalid,
                format!("The manifest of {} is not valid: {error}", self.reference),
            ))
        })?;
        self.check_pinned(&manifest_digest)?;
        if !session.has(Feature::Policy) && self.policy.verdict(&self.reference) != Verdict::AcceptsAnything {
            self.verify(&manifest_digest, &raw_manifest, &manifest)?;
        }
        let layers = self.source_layers(&session, &manifest).await?;
        Ok(Opened {
            session,
            manifest_digest,
            raw_manifest,
            manifest,
            layers,
        })
    }

    async fn start(&self, reference: &ImageReference) -> Result<Session, Failure> {
        let image = reference.skopeo_name();
        match Session::open(&image, self.policy.path(), &self.options).await {
            Ok(Some(session)) => Ok(session),
            Ok(None) => Err(Failure::last(self.absent())),
            Err(failure) => match self.diagnose(reference).map_err(Failure::Final)? {
                Some(fault) => {
                    let (Failure::Final(reason) | Failure::Transient(reason)) = failure;
                    tracing::debug!("{image}: {reason:#}");
                    Err(Failure::last(fault))
                }
                None => Err(self.weigh(failure)),
            },
        }
    }

    /// A file does not come back by waiting; only a registry is asked again.
    fn weigh(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Transient(error) if self.reference.transport() != Transport::Registry => {
                Failure::Final(error)
            }
            failure => failure,
        }
    }

    fn absent(&self) -> Fault {
        Fault::new(
            Kind::NotFound,
            format!("There is no image {}", self.reference.skopeo_name()),
        )
        .hint("check the name and the tag; `podman search --list-tags NAME` lists the tags of a repository")
    }

    /// Finds the reason of a failed opening that skopeo's text names and its protocol does not.
    fn diagnose(&self, reference: &ImageReference) -> Result<Option<Fault>> {
        if reference.transport() != Transport::Registry {
            return Ok(None);
        }
        if signature::raw_manifest(reference, &self.options)?.is_some() {
            let refused = self.policy.verdict(reference) != Verdict::AcceptsAnything;
            return Ok(refused.then(|| self.refusal("its signature is missing or not valid")));
        }
        let Some(tags) = signature::tags(reference, &self.options)? else {
            return Ok(None);
        };
        let name = reference.registry_name();
        let Some((name, None)) = name.map(|name| (name.clone(), name.digest)) else {
            return Ok(None);
        };
        let tag = name.tag.as_deref().unwrap_or("latest");
        if tags.iter().any(|known| known == tag) {
            return Ok(None);
        }
        let shown: Vec<_> = tags.iter().take(10).map(String::as_str).collect();
        let hint = match shown.is_empty() {
            true => "the repository has no tags at all".to_owned(),
            false => format!("the repository has the tags {}", shown.join(", ")),
        };
        Ok(Some(
            Fault::new(
                Kind::NotFound,
                format!("The repository {} has no tag `{tag}`", name.repository),
            )
            .hint(hint),
        ))
    }

    fn refusal(&self, reason: &str) -> Fault {
        Fault::new(
            Kind::Denied,
            format!(
                "The signature policy {} refuses {}: {reason}",
                self.policy.source(),
                self.reference
            ),
        )
        .hint("sign the image with a key that the policy names, or correct the policy; see containers-policy.json(5)")
    }

    /// Makes sure that a reference by digest led to that very manifest, or to one in the index of that digest.
    fn check_pinned(&self, manifest_digest: &str) -> Result<(), Failure> {
        let Some(pinned) = self.reference.pinned_digest() else {
            return Ok(());
        };
        if pinned == manifest_digest {
            return Ok(());
        }
        let index = signature::raw_manifest(&self.reference, &self.options)
            .map_err(Failure::Final)?
            .ok_or_else(|| {
                Failure::transient(Fault::new(
                    Kind::Unreachable,
                    format!("The index {pinned} cannot be read"),
                ))
            })?;
        #[derive(serde::Deserialize)]
        struct Index {
            #[serde(default)]
            manifests: Vec<Entry>,
        }
        #[derive(serde::Deserialize)]
        struct Entry {
            digest: String,
        }
        let listed = serde_json::from_slice::<Index>(&index).is_ok_and(|index| {
            index
                .manifests
                .iter()
                .any(|entry| entry.digest == manifest_digest)
        });
        if sha256(&index) == pinned && listed {
            return Ok(());
        }
        Err(Failure::last(Fault::new(
            Kind::Invalid,
            format!(
                "The registry answered {} with another image, {manifest_digest}",
                self.reference
            ),
        )))
    }

    /// Has the policy enforced for a skopeo whose proxy does not do so.
    fn verify(&self, digest: &str, raw: &[u8], manifest: &ImageManifest) -> Result<(), Failure> {
        let outcome = signature::verify(&self.reference, manifest, self.policy.path(), &self.options);
        match outcome.map_err(Failure::Final)? {
            // An image that had to be converted has the digest of its converted manifest there.
            Verification::Accepted(checked) if checked == digest || checked == sha256(raw) => Ok(()),
            Verification::Accepted(_) => Err(Failure::transient(Fault::new(
                Kind::Busy,
                format!("{} changed while its signature was checked", self.reference),
            ))),
            Verification::Refused(reason) => Err(Failure::last(self.refusal(&reason))),
            Verification::Failed(reason) => Err(self.weigh(Failure::transient(Fault::new(
                Kind::Unreachable,
                format!("The signature of {} cannot be checked: {reason}", self.reference),
            )))),
        }
    }

    async fn source_layers(
        &self,
        session: &Session,
        manifest: &ImageManifest,
    ) -> Result<Vec<SourceLayer>, Failure> {
        if self.reference.transport() == Transport::ContainerStorage && session.has(Feature::LayerInfo) {
            if let Some(layers) = session.layer_info().await? {
                return Ok(layers
                    .into_iter()
                    .map(|layer| SourceLayer {
                        digest: layer.digest,
                        size: layer.size,
                        media_type: layer.media_type,
                    })
                    .collect());
            }
        }
        let of = |layer: &oci_spec::image::Descriptor| SourceLayer {
            digest: layer.digest().clone(),
            size: layer.size(),
            media_type: layer.media_type().clone(),
        };
        Ok(manifest.layers().iter().map(of).collect())
    }

    /// Returns the session in use, or opens another one on the very same manifest.
    async fn session(&self, manifest_digest: &str) -> Result<Arc<Session>, Failure> {
        let mut current = self.session.lock().await;
        if let Some(session) = &*current {
            return Ok(Arc::clone(session));
        }
        let mut session = self.start(&self.reference).await?;
        let (found, _) = session.manifest().await.map_err(|failure| self.weigh(failure))?;
        if found != manifest_digest {
            // The tag moved; the layers still wanted are those of the first manifest.
            let pinned = self
                .reference
                .with_digest(manifest_digest)
                .map_err(Failure::Final)?;
            session = self.start(&pinned).await?;
        }
        let session = Arc::new(session);
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Takes a session out of use; transfers that have it go on with it.
    async fn discard(&self, broken: &Arc<Session>) {
        let mut current = self.session.lock().await;
        if current
            .as_ref()
            .is_some_and(|session| Arc::ptr_eq(session, broken))
        {
            *current = None;
        }
    }

    async fn config(&self, manifest_digest: &str) -> Result<Vec<u8>, Failure> {
        let session = self.session(manifest_digest).await?;
        match session.config().await {
            Ok(raw) => Ok(raw),
            Err(failure) => {
                self.discard(&session).await;
                Err(self.weigh(failure))
            }
        }
    }

    async fn transfer(&self, mut transfer: Transfer, manifest_digest: &str) -> Result<()> {
        let limits = &self.options.limits;
        let mut attempts = Attempts::new(limits);
        loop {
            let before = transfer.delivered();
            let failure = match self.session(manifest_digest).await {
                Ok(session) => match transfer.attempt(&session, limits).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => {
                        self.discard(&session).await;
                        self.weigh(failure)
                    }
                },
                Err(failure) => failure,
            };
            if transfer.delivered() > before {
                attempts.progressed();
            }
            attempts
                .failed(failure)
                .await
                .map_err(|error| self.explain(error, "has a layer that cannot be fetched"))?;
        }
    }

    /// Makes what is left after all attempts into a fault that names the image.
    fn explain(&self, error: anyhow::Error, trouble: &str) -> anyhow::Error {
        match Fault::find(&error) {
            Some(fault) if fault.kind != Kind::Unreachable => error,
            _ => Fault::new(
                Kind::Unreachable,
                format!(
                    "The image {} {trouble}: {}",
                    self.reference.skopeo_name(),
                    words(&error)
                ),
            )
            .hint(self.hint())
            .into(),
        }
    }

    fn hint(&self) -> String {
        match self.reference.registry_name() {
            Some(name) => format!(
                "check the name, the network, the clock and the credentials (`podman login {}`); \
                 `skopeo inspect {}` looks at the same image",
                name.host(),
                self.reference.skopeo_name()
            ),
            None => format!(
                "`skopeo inspect {}` looks at the same image",
                self.reference.skopeo_name()
            ),
        }
    }
}

/// Returns skopeo's own words without the method names of its protocol.
fn words(error: &anyhow::Error) -> String {
    use containers_image_proxy::Error;
    match error.downcast_ref::<Error>() {
        Some(
            Error::RequestInitiationFailure { error, .. } | Error::RetryableRequestFailure { error, .. },
        ) => error.to_string(),
        _ => format!("{error:#}"),
    }
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
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
