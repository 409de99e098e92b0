//! Stub.
use crate::image::reference::ImageReference;
/// Stub.
#[derive(Debug, Default)]
pub struct Collected {
    /// s
    pub images: usize,
    /// s
    pub layers: usize,
    /// s
    pub objects: u64,
    /// s
    pub bytes: u64,
}
/// Stub.
pub fn collect(
    _r: &ostree_ext::ostree::Repo,
    _k: &[ImageReference],
    _c: &[String],
) -> anyhow::Result<Collected> {
    Ok(Collected::default())
}
