//! One blob, read in ranges from the first place that has it.
//!
//! A range that breaks off is asked for again from where it broke, there or elsewhere; what was handed out before is not
//! verified here, and neither is what comes after.

use super::Parts;
use super::endpoint::{Content, Target};
use super::registry::Registry;
use crate::fault::{Fault, Kind};
use crate::image::retry::{Attempts, Failure};
use anyhow::Result;
use oci_spec::image::Digest;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A blob and what is known of it at each place.
pub(crate) struct RemoteBlob {
    registry: Arc<Registry>,
    size: u64,
    received: AtomicU64,
    /// Beside each of the registry's endpoints.
    copies: Vec<Copy>,
}

struct Copy {
    target: Target,
    /// Whether the place has not got the blob, or not in ranges.
    unfit: AtomicBool,
}

impl RemoteBlob {
    /// Returns the blob; nothing is asked yet.
    pub(super) fn new(registry: Arc<Registry>, digest: &Digest, size: u64) -> Self {
        let copy = |_| Copy {
            target: Target::new(digest.to_string(), size),
            unfit: AtomicBool::new(false),
        };
        let copies = registry.endpoints().iter().map(copy).collect();
        Self {
            registry,
            size,
            received: AtomicU64::new(0),
            copies,
        }
    }

    /// Asks each place that is left once, those without trouble first.
    fn open(&self, range: &Range<u64>) -> Result<Content, Failure> {
        let endpoints = self.registry.endpoints();
        let mut order: Vec<usize> = (0..endpoints.len()).collect();
        order.sort_by_key(|&index| endpoints[index].is_failing());
        let mut passing = None;
        let mut last = None;
        for index in order {
            let copy = &self.copies[index];
            if copy.unfit.load(Ordering::Relaxed) {
                continue;
            }
            match endpoints[index].open(&copy.target, range) {
                Ok(content) => return Ok(content),
                Err(Failure::Transient(error)) => passing = Some(error),
                Err(Failure::Final(error)) => {
                    tracing::debug!("no ranges from {}: {error:#}", endpoints[index].host());
                    copy.unfit.store(true, Ordering::Relaxed);
                    last = Some(error);
                }
            }
        }
        Err(match (passing, last) {
            (Some(error), _) => Failure::Transient(error),
            (None, Some(error)) => Failure::Final(error),
            (None, None) => Failure::last(Fault::new(
                Kind::Unsupported,
                "The blob cannot be read in ranges from any place",
            )),
        })
    }

    fn open_patiently(&self, range: &Range<u64>, attempts: &mut Attempts) -> Result<Content> {
        loop {
            match self.open(range) {
                Ok(content) => return Ok(content),
                Err(failure) => attempts.failed_on_thread(failure)?,
            }
        }
    }
}

impl Parts for RemoteBlob {
    fn read(&self, range: Range<u64>) -> Result<Box<dyn Read + Send + '_>> {
        if range.start > range.end || range.end > self.size {
            return Err(Fault::new(
                Kind::Invalid,
                format!(
                    "The bytes {}-{} are not within a blob of {} bytes",
                    range.start, range.end, self.size
                ),
            )
            .into());
        }
        if range.is_empty() {
            return Ok(Box::new(io::empty()));
        }
        let mut attempts = Attempts::at_opening(self.registry.limits());
        let content = self.open_patiently(&range, &mut attempts)?;
        Ok(Box::new(Part {
            blob: self,
            left: range,
            content: Some(content),
            attempts: Attempts::at_resuming(self.registry.limits()),
        }))
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// One range on its way.
struct Part<'a> {
    blob: &'a RemoteBlob,
    left: Range<u64>,
    content: Option<Content>,
    attempts: Attempts,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while !self.left.is_empty() {
            let content = match &mut self.content {
                Some(content) => content,
                None => {
                    let opened = self.blob.open_patiently(&self.left, &mut self.attempts);
                    self.content.insert(opened.map_err(io::Error::other)?)
                }
            };
            let most = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
            let most = most.min(buffer.len());
            let reason = match content.reader.read(&mut buffer[..most]) {
                Ok(0) => "it ended early".to_owned(),
                Ok(count) => {
                    self.left.start += count as u64;
                    self.blob.received.fetch_add(count as u64, Ordering::Relaxed);
                    self.attempts.progressed();
                    if self.left.is_empty() {
                        self.finish();
                    }
                    return Ok(count);
                }
                Err(error) => error.to_string(),
            };
            self.content = None;
            let fault = Fault::new(Kind::Unreachable, format!("A range broke off: {reason}"));
            self.attempts
                .failed_on_thread(Failure::transient(fault))
                .map_err(io::Error::other)?;
        }
        Ok(0)
    }
}

impl Part<'_> {
    /// Lets go of the connection, for another request where its answer is known to be over.
    fn finish(&mut self) {
        if let Some(content) = self.content.take().filter(|content| content.delimited) {
            // Nothing is left to be read; seeing that is what frees the connection.
            io::copy(&mut content.reader.take(1), &mut io::sink()).ok();
        }
    }
}
