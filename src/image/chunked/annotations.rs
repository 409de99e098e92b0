//! What the manifest says of a zstd:chunked layer: where its tables are, and the digest of the first.

use super::trouble::Trouble;
use crate::tree::Checksum;
use oci_spec::image::Descriptor;
use std::ops::Range;

const PREFIX: &str = "io.github.containers.zstd-chunked";
/// The only form of table this program reads.
const TYPE_CRFS: u64 = 1;

/// A table may have as many bytes, as it is compressed: it is held in memory.
const MOST_COMPRESSED: u64 = 24 * 1024 * 1024;
/// The table of contents may inflate to as many; it is read as it inflates.
const MOST_TOC: u64 = 150 * 1024 * 1024;
/// tar-split may inflate to as many; it is read as it inflates, and holds some 2 KiB for each entry of the archive.
const MOST_SPLIT: u64 = 2 * 1024 * 1024 * 1024;

/// Where a table is in the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::image) struct Span {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Bytes it inflates to.
    pub(super) inflated: u64,
}

impl Span {
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// The annotations of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::image) struct Annotated {
    pub(super) toc: Span,
    pub(super) toc_digest: Checksum,
    pub(super) split: Option<Span>,
}

/// How far things of a blob may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Contents end before this.
    pub(super) content_end: u64,
    /// Bytes tar-split may inflate to.
    pub(super) split_inflated: u64,
}

impl Annotated {
    /// Reads the annotations of a layer; nothing when it has none, or none that can be read.
    pub(in crate::image) fn of(layer: &Descriptor) -> Option<Self> {
        let annotations = layer.annotations().as_ref()?;
        let text = |name: &str| annotations.get(&format!("{PREFIX}.{name}")).map(String::as_str);
        let toc_digest = digest(text("manifest-checksum")?)?;
        let toc = match numbers(text("manifest-position")?)?.as_slice() {
            [offset, length, inflated, TYPE_CRFS] => Span {
                offset: *offset,
                length: *length,
                inflated: *inflated,
            },
            _ => return None,
        };
        let split = text("tarsplit-position").and_then(|text| match numbers(text)?.as_slice() {
            [offset, length, inflated] => Some(Span {
                offset: *offset,
                length: *length,
                inflated: *inflated,
            }),
            _ => None,
        });
        Some(Self {
            toc,
            toc_digest,
            split,
        })
    }

    /// Returns the bytes of the blob where the table of contents is, where that is a place in a blob of `size` bytes.
    pub(in crate::image) fn toc_range(&self, size: u64) -> Option<Range<u64>> {
        let range = self.toc.offset..self.toc.end();
        (range.end <= size && self.toc.length <= MOST_COMPRESSED).then_some(range)
    }

    /// Returns where tar-split is; older writers made none.
    pub(super) fn split(&self) -> Result<&Span, Trouble> {
        self.split
            .as_ref()
            .ok_or_else(|| Trouble::whole("it has no tar-split"))
    }

    /// Checks the positions against a blob of `size` bytes.
    ///
    /// Annotations survive a tool that packs a layer anew and leaves them, so ones that do not fit are no lie.
    pub(super) fn bounds(&self, size: u64) -> Result<Bounds, Trouble> {
        let spans = [
            Some((&self.toc, MOST_TOC)),
            self.split.as_ref().map(|split| (split, MOST_SPLIT)),
        ];
        for (span, most) in spans.iter().flatten() {
            if span.length == 0
                || span.offset < 8
                || span.offset.checked_add(span.length).is_none_or(|end| end > size)
            {
                return Err(Trouble::whole("its annotations point outside of it"));
            }
            if span.length > MOST_COMPRESSED || span.inflated > *most {
                return Err(Trouble::whole("its table of contents is too large"));
            }
        }
        let mut content_end = self.toc.offset;
        if let Some(split) = &self.split {
            if split.offset < self.toc.end() && self.toc.offset < split.end() {
                return Err(Trouble::whole("its annotations name one place for two tables"));
            }
            content_end = content_end.min(split.offset);
        }
        Ok(Bounds {
            // A table stands in a frame of its own, behind a header of 8 bytes.
            content_end: content_end - 8,
            split_inflated: self.split.as_ref().map_or(0, |split| split.inflated),
        })
    }
}

/// Reads a digest such as `sha256:...`; nothing for what is none.
pub(super) fn digest(text: &str) -> Option<Checksum> {
    let sum = text.strip_prefix("sha256:")?;
    let is_plain = sum.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_plain.then(|| sum.parse().ok()).flatten()
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split(':')
        .take(5)
        .map(|number| {
            let is_plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| number.parse().ok()).flatten()
        })
        .collect()
}
