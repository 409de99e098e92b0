//! What the repository knows of imported images.

use oci_spec::image::{ImageConfiguration, ImageManifest};

/// An image commit (or a commit derived from one) and what its metadata tells.
#[derive(Clone, Debug)]
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
use crate::image::reference::ImageReference;
use anyhow::Result;
use ostree_ext::ostree;
impl StoredImage {
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
pub fn query_commit(_r: &ostree::Repo, _c: &str) -> Result<StoredImage> {
    anyhow::bail!("s")
}
/// s
pub fn find(_r: &ostree::Repo, _c: &ImageReference) -> Result<Option<StoredImage>> {
    anyhow::bail!("s")
}
/// s
pub fn remove(_r: &ostree::Repo, _c: &ImageReference) -> Result<bool> {
    anyhow::bail!("s")
}
/// s
pub fn list(_r: &ostree::Repo) -> Result<Vec<(String, Result<StoredImage>)>> {
    anyhow::bail!("s")
}
/// s
pub fn layer_ref(_d: &str) -> String {
    String::new()
}
