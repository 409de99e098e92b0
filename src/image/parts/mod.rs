//! Single ranges of a blob, for layers of which most is here already.
//!
//! Nothing that comes this way is trusted: whoever reads a range verifies it against the manifest before it is used.
//! When ranges cannot be had, for whatever reason, the whole layer is fetched through skopeo.

use anyhow::Result;
use std::io::Read;
use std::ops::Range;

/// One blob at its source, of which single ranges can be read.
pub(crate) trait Parts: Send + Sync {
    /// Returns a reader of exactly the bytes `range` of the blob; it fails when fewer come.
    ///
    /// Fails when the source does not serve ranges, and for every other reason for which fetching the whole blob is the
    /// better way; the error says why.
    fn read(&self, range: Range<u64>) -> Result<Box<dyn Read + Send + '_>>;

    /// Returns how many bytes of content have crossed the network so far.
    fn received(&self) -> u64;
}
