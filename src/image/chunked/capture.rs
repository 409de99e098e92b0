//! Keeping the table of contents of a layer that is fetched whole, while it passes by.

use crate::image::chunked::Annotated;
use crate::image::inflate::Transfer;
use anyhow::Result;
use std::io::Read;
use std::ops::Range;

/// A transfer of which one range is kept.
pub(in crate::image) struct Capture<'a> {
    transfer: &'a mut dyn Transfer,
    position: u64,
    range: Range<u64>,
    kept: Vec<u8>,
}

impl<'a> Capture<'a> {
    /// Keeps the table of contents of the layer, which has `size` bytes; nothing where there is none.
    pub(in crate::image) fn new(
        transfer: &'a mut dyn Transfer,
        annotated: Option<&Annotated>,
        size: u64,
    ) -> Self {
        Self {
            transfer,
            position: 0,
            range: annotated
                .and_then(|annotated| annotated.toc_range(size))
                .unwrap_or(0..0),
            kept: Vec::new(),
        }
    }

    /// Returns the table as it came, which may be cut off or another one.
    pub(in crate::image) fn into_kept(self) -> Vec<u8> {
        self.kept
    }
}

impl Read for Capture<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.transfer.read(buffer)?;
        let here = self.position..self.position + count as u64;
        self.position = here.end;
        let (from, to) = (here.start.max(self.range.start), here.end.min(self.range.end));
        if from < to {
            let within = |position: u64| usize::try_from(position - here.start).unwrap_or(count);
            self.kept.extend_from_slice(&buffer[within(from)..within(to)]);
        }
        Ok(count)
    }
}

impl Transfer for Capture<'_> {
    fn finish(&mut self) -> Result<()> {
        self.transfer.finish()
    }
}
