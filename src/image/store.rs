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
