//! One skopeo process that serves one opened image.
//!
//! Requests are bounded in time. A process with a request that never came back is killed, because its socket
//! would keep a thread of the runtime waiting for ever; one that is idle ends when its socket is closed.

use crate::fault::{Fault, Kind};
use crate::host::child::Mark;
use crate::image::credentials::Credentials;
use crate::image::proxy::{SourceLayer, SourceOptions};
use crate::image::retry::Failure;
use crate::image::signature::find_credentials;
use containers_image_proxy::{ConvertedLayerInfo, ImageProxy, ImageProxyConfig, OpenedImage};
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The features of skopeo's proxy protocol that make a difference here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Feature {
    /// `OpenImageOptional` tells an absent image from other failures.
    Optional,
    /// `GetLayerInfo` tells which bytes podman's storage has for a layer.
    LayerInfo,
    /// The signature policy is enforced when an image is opened; Debian 12's skopeo ignores it here.
    Policy,
    /// Failures say whether trying again may help, and blobs are sent without blocking other requests.
    RawBlob,
}

impl Feature {
    fn since(self) -> u64 {
        match self {
            Self::Optional => 4,
            Self::LayerInfo => 5,
            Self::Policy => 6,
            Self::RawBlob => 8,
        }
    }
}

/// A running skopeo.
#[derive(Debug)]
struct Server {
    proxy: ImageProxy,
    mark: Mark,
    pending: AtomicUsize,
}

impl Server {
    async fn start(policy: &Path, options: &SourceOptions) -> Result<Self, Failure> {
        let mark = Mark::unique();
        let config = configuration(policy, &mark, options).map_err(Failure::Final)?;
        let limit = options.limits.answer;
        match tokio::time::timeout(limit, ImageProxy::new_with_config(config)).await {
            Ok(Ok(proxy)) => Ok(Self {
                proxy,
                mark,
                pending: AtomicUsize::new(0),
            }),
            Ok(Err(error)) => Err(start_failure(error)),
            Err(_) => {
                mark.kill();
                Err(no_answer(limit))
            }
        }
    }

    fn has(&self, feature: Feature) -> bool {
        let version = self.proxy.protocol_version();
        (version.major, version.minor, version.patch) >= (0, 2, feature.since())
    }

    /// Awaits the answer to a request, for at most `limit`.
    async fn answer<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T, containers_image_proxy::Error>>,
    ) -> Result<T, Failure> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => {
                self.pending.fetch_sub(1, Ordering::Relaxed);
                answer.map_err(|error| self.failure(error))
            }
            // Still counted as pending: dropping the server kills the process.
            Err(_) => Err(no_answer(limit)),
        }
    }

    fn failure(&self, error: containers_image_proxy::Error) -> Failure {
        use containers_image_proxy::Error;
        let retryable = error.is_retryable();
        let classified = self.has(Feature::RawBlob)
            && matches!(
                error,
                Error::RequestInitiationFailure { .. } | Error::BlobError(_)
            );
        if retryable || !classified {
            Failure::transient(error)
        } else {
            Failure::last(error)
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if *self.pending.get_mut() > 0 {
            self.mark.kill();
        }
    }
}

/// A running skopeo with one opened image.
#[derive(Debug)]
pub(crate) struct Session {
    server: Server,
    image: OpenedImage,
    limit: Duration,
}

impl Session {
    /// Starts skopeo and opens `image`; returns nothing when the image is known not to exist.
    pub(crate) async fn open(
        image: &str,
        policy: &Path,
        options: &SourceOptions,
    ) -> Result<Option<Self>, Failure> {
        let server = Server::start(policy, options).await?;
        let limit = options.limits.answer;
        let opened = if server.has(Feature::Optional) {
            server
                .answer(limit, server.proxy.open_image_optional(image))
                .await?
        } else {
            Some(server.answer(limit, server.proxy.open_image(image)).await?)
        };
        Ok(opened.map(|image| Self { server, image, limit }))
    }

    /// Returns whether this skopeo has the feature.
    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.server.has(feature)
    }

    /// Returns the manifest's digest and its bytes, converted to OCI where needed.
    pub(crate) async fn manifest(&self) -> Result<(String, Vec<u8>), Failure> {
        let request = self.server.proxy.fetch_manifest_raw_oci(&self.image);
        self.server.answer(self.limit, request).await
    }

    /// Returns the image configuration as OCI JSON.
    pub(crate) async fn config(&self) -> Result<Vec<u8>, Failure> {
        let request = self.server.proxy.fetch_config_raw(&self.image);
        self.server.answer(self.limit, request).await
    }

    /// Returns what the source has for each layer, in the manifest's order, where this skopeo can tell.
    pub(crate) async fn layer_info(&self) -> Result<Option<Vec<SourceLayer>>, Failure> {
        let request = self.server.proxy.get_layer_info(&self.image);
        let layers = self.server.answer(self.limit, request).await?;
        let of = |layer: ConvertedLayerInfo| SourceLayer {
            digest: layer.digest,
            size: layer.size,
            media_type: layer.media_type,
        };
        Ok(layers.map(|layers| layers.into_iter().map(of).collect()))
    }

    /// Returns the underlying proxy and image, for streaming; `lend` keeps count of what is under way.
    pub(crate) fn lend(&self) -> (&ImageProxy, &OpenedImage, Pending<'_>) {
        self.server.pending.fetch_add(1, Ordering::Relaxed);
        let pending = Pending {
            counter: &self.server.pending,
            done: false,
        };
        (&self.server.proxy, &self.image, pending)
    }

    /// Tells a failure that may pass from a final one.
    pub(crate) fn failure(&self, error: containers_image_proxy::Error) -> Failure {
        self.server.failure(error)
    }

    /// Ends the process at once; requests under way fail.
    pub(crate) fn kill(&self) {
        self.server.mark.kill();
    }
}

/// A stream under way; one that is dropped before [`Pending::done`] leaves the process to be killed.
#[derive(Debug)]
pub(crate) struct Pending<'a> {
    counter: &'a AtomicUsize,
    done: bool,
}

impl Pending<'_> {
    /// Marks the stream as properly ended.
    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.done {
            self.counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn configuration(policy: &Path, mark: &Mark, options: &SourceOptions) -> anyhow::Result<ImageProxyConfig> {
    let mut config = ImageProxyConfig::default();
    match find_credentials(options)? {
        Credentials::Podman => {}
        Credentials::File(path) => config.authfile = Some(path),
        Credentials::Merged(file) => config.auth_data = Some(file),
    }
    let mut command = options.surroundings.server_command("skopeo");
    mark.put_on(&mut command);
    command.arg("--policy").arg(policy);
    config.skopeo_cmd = Some(command);
    Ok(config)
}

fn start_failure(error: containers_image_proxy::Error) -> Failure {
    use containers_image_proxy::Error;
    match error {
        Error::SkopeoSpawnError(error) if error.kind() == std::io::ErrorKind::NotFound => Failure::last(
            Fault::new(Kind::NotFound, "The program `skopeo` is not installed").hint("apt-get install skopeo"),
        ),
        Error::ProxyTooOld { found_version, .. } => Failure::last(Fault::new(
            Kind::Unsupported,
            format!("The installed skopeo is too old: its image proxy speaks version {found_version}, and 0.2.3 is needed"),
        ).hint("install skopeo 1.9.3 or newer")),
        error => Failure::transient(anyhow::Error::from(error).context("Starting skopeo")),
    }
}

fn no_answer(limit: Duration) -> Failure {
    Failure::transient(Fault::new(
        Kind::Unreachable,
        format!("skopeo got no answer within {} seconds", limit.as_secs_f32()),
    ))
}
