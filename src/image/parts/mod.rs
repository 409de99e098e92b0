//! Single ranges of a blob, for layers of which most is here already.
//!
//! Nothing that comes this way is trusted: whoever reads a range verifies it against the manifest before it is used.
//! When ranges cannot be had, for whatever reason, the whole layer is fetched through skopeo.
//!
//! skopeo's proxy hands out whole blobs only, so this is a small client of the registry protocol beside it. It reads the
//! same files and variables by the same rules, so that both reach the same registries as the same user: mirrors and
//! their order in `registries`, authorities and client certificates in `certificates`, passwords in `login`, proxies in
//! `proxies`. Of what a registry may send, everything is bounded: headers, redirects, tokens, and a range to its length.
//! No secret gets into an error or a log; of an address only the host is named, because a redirect's query is one.

mod address;
mod blob;
mod certificates;
mod challenge;
mod client;
mod endpoint;
mod login;
mod proxies;
mod registries;
mod registry;
mod token;

pub(crate) use registry::Registry;

use anyhow::Result;
use std::io::Read;
use std::ops::Range;

/// One blob at its source, of which single ranges can be read.
pub trait Parts: Send + Sync {
    /// Returns a reader of exactly the bytes `range` of the blob; it fails when fewer come.
    ///
    /// Fails when the source does not serve ranges, and for every other reason for which fetching the whole blob is the
    /// better way; the error says why.
    fn read(&self, range: Range<u64>) -> Result<Box<dyn Read + Send + '_>>;

    /// Returns how many bytes of content have crossed the network so far.
    fn received(&self) -> u64;
}
