//! s
use crate::image::reference::ImageReference;
use crate::image::store::StoredImage;
use crate::report::Report;
use ostree_ext::ostree;
/// s
#[derive(Debug)]
pub struct PullOptions {
    /// s
    pub require_bootable: bool,
}
/// s
#[derive(Debug)]
pub struct Pulled {
    /// s
    pub image: StoredImage,
    /// s
    pub unchanged: bool,
    /// s
    pub layers_fetched: usize,
    /// s
    pub bytes_fetched: u64,
}
/// s
#[derive(Debug)]
pub struct RemoteImage {
    /// s
    pub manifest_digest: String,
    /// s
    pub manifest: oci_spec::image::ImageManifest,
}
impl RemoteImage {
    /// s
    pub fn version(&self) -> Option<String> {
        None
    }
    /// s
    pub fn created(&self) -> Option<String> {
        None
    }
}
/// s
pub fn pull(
    _repo: &ostree::Repo,
    _r: &ImageReference,
    _o: &PullOptions,
    _x: &dyn Report,
) -> anyhow::Result<Pulled> {
    anyhow::bail!("s")
}
/// s
pub fn inspect(_r: &ImageReference) -> anyhow::Result<RemoteImage> {
    anyhow::bail!("s")
}
