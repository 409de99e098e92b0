//! How one image is reached: opened, held fast by digest, opened again when a session breaks.

use crate::fault::{Fault, Kind};
use crate::image::blob::Transfer;
use crate::image::policy::{Policy, Verdict};
use crate::image::proxy::{SourceLayer, SourceOptions};
use crate::image::reason;
use crate::image::reference::{ImageReference, Transport};
use crate::image::retry::{Attempts, Failure};
use crate::image::session::{Feature, Session};
use crate::image::signature::{self, Verification};
use crate::image::storage;
use anyhow::Result;
use oci_spec::image::{Descriptor, ImageManifest};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tokio::sync::Mutex;

/// An image as it was when it was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) manifest_digest: String,
    pub(crate) raw_manifest: Vec<u8>,
    pub(crate) manifest: ImageManifest,
    pub(crate) layers: Vec<SourceLayer>,
}

/// One image and how it is reached; shared by all its transfers.
#[derive(Debug)]
pub(crate) struct Connection {
    reference: ImageReference,
    policy: Policy,
    options: SourceOptions,
    session: Mutex<Option<Arc<Session>>>,
}

impl Connection {
    /// Returns a connection without a session.
    pub(crate) fn new(reference: ImageReference, policy: Policy, options: SourceOptions) -> Self {
        Self {
            reference,
            policy,
            options,
            session: Mutex::new(None),
        }
    }

    /// Returns the image's reference.
    pub(crate) fn reference(&self) -> &ImageReference {
        &self.reference
    }

    /// Returns where the image's source looks for its configuration, and how patient it is.
    pub(crate) fn options(&self) -> &SourceOptions {
        &self.options
    }

    /// Opens the image and keeps the session.
    pub(crate) async fn open(&self) -> Result<Opened> {
        let mut attempts = Attempts::at_opening(&self.options.limits);
        loop {
            match self.try_open().await {
                Ok((session, opened)) => {
                    *self.session.lock().await = Some(Arc::new(session));
                    return Ok(opened);
                }
                Err(failure) => self.failed(&mut attempts, failure, "cannot be opened").await?,
            }
        }
    }

    /// Fetches the image configuration.
    pub(crate) async fn config(&self, manifest_digest: &str) -> Result<Vec<u8>> {
        let mut attempts = Attempts::at_resuming(&self.options.limits);
        loop {
            let failure = match self.session(manifest_digest).await {
                Ok(session) => match session.config().await {
                    Ok(raw) => return Ok(raw),
                    Err(failure) => {
                        self.discard(&session).await;
                        self.weigh(failure)
                    }
                },
                Err(failure) => failure,
            };
            self.failed(
                &mut attempts,
                failure,
                "has a configuration that cannot be fetched",
            )
            .await?;
        }
    }

    /// Fetches a blob of the manifest with this digest.
    pub(crate) async fn transfer(&self, mut transfer: Transfer, manifest_digest: &str) -> Result<()> {
        let limits = &self.options.limits;
        let mut attempts = Attempts::at_resuming(limits);
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
            self.failed(&mut attempts, failure, "has a layer that cannot be fetched")
                .await?;
        }
    }

    /// Lets the session end as soon as no transfer has it any more.
    pub(crate) async fn close(&self) {
        self.session.lock().await.take();
    }

    async fn failed(&self, attempts: &mut Attempts, failure: Failure, trouble: &str) -> Result<()> {
        attempts
            .failed(failure)
            .await
            .map_err(|error| reason::explain(&self.reference, error, trouble))
    }

    async fn try_open(&self) -> Result<(Session, Opened), Failure> {
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
        let opened = Opened {
            manifest_digest,
            raw_manifest,
            manifest,
            layers,
        };
        Ok((session, opened))
    }

    async fn start(&self, reference: &ImageReference) -> Result<Session, Failure> {
        let image = reference.skopeo_name();
        let failure = match Session::open(&image, self.policy.path(), &self.options).await {
            Ok(Some(session)) => return Ok(session),
            Ok(None) => Failure::last(reason::absent(reference)),
            Err(failure) => self.weigh(failure),
        };
        let (Failure::Final(error) | Failure::Transient(error)) = &failure;
        let found =
            reason::diagnose(reference, &self.policy, &self.options, error).map_err(Failure::Final)?;
        Err(found.map_or(failure, Failure::last))
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
            Verification::Refused(reason) => Err(Failure::last(reason::refusal(
                &self.reference,
                &self.policy,
                &reason,
            ))),
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
        if self.reference.transport() == Transport::ContainerStorage {
            let told = match session.has(Feature::LayerInfo) {
                // Fails for hundreds of layers before protocol 0.2.7: the answer was limited to 32 KiB.
                true => session.layer_info().await.unwrap_or_default(),
                false => None,
            };
            let told = match told {
                Some(layers) => Some(layers),
                None => {
                    let config = session.config().await.map_err(|failure| self.weigh(failure))?;
                    storage::layers(&self.reference, &config, &self.options).map_err(Failure::Final)?
                }
            };
            if let Some(layers) = told {
                return Ok(layers);
            }
        }
        let of = |layer: &Descriptor| SourceLayer {
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
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
