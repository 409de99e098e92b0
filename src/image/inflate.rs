//! From the bytes of a layer blob to the blocks of a tar archive, verified on both sides.
//!
//! This runs in a thread of its own, beside the one that reads the archive: inflating and storing cost about the
//! same. A few blocks travel between the two and back, so memory stays flat whatever a layer inflates to.

use super::gzip::Gzip;
use crate::fault::{Fault, Kind};
use anyhow::Result;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender};

/// Bytes of one block.
pub(super) const BLOCK_SIZE: usize = 256 * 1024;
/// Blocks that may wait between the two threads.
pub(super) const BLOCKS_WAITING: usize = 24;

/// The largest window a zstd frame may ask for, as a power of two: what `zstd -d` allows as well.
pub(super) const ZSTD_WINDOW: u32 = 27;

/// The bytes of a blob as they come from the source.
pub(super) trait Transfer: Read + Send {
    /// Ends the transfer, after the last byte or after reading failed.
    ///
    /// Fails with the reason when fewer bytes came than the descriptor says, or other ones.
    fn finish(&mut self) -> Result<()>;
}

/// What the manifest and the configuration say of a layer.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// Digest under which the manifest lists the layer.
    pub(super) digest: String,
    /// Digest of the uncompressed archive.
    pub(super) diff_id: String,
    /// Whether it carries OSTree objects instead of a file tree.
    pub(super) is_ostree: bool,
}

/// How inflating ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inflated {
    /// Every byte arrived and both digests are right.
    Complete,
    /// Nobody takes the blocks any more.
    Abandoned,
}

/// Inflates a blob into blocks.
///
/// Fails when the blob or the archive in it is not the expected one.
pub(super) fn inflate(
    blob: &mut dyn Transfer,
    expected: &Expected,
    blocks: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Inflated> {
    let mut source = Source {
        blob,
        count: 0,
        failed: false,
        progress,
    };
    let outcome = pump(&mut source, blocks, spare);
    if let Ok(None) = outcome {
        return Ok(Inflated::Abandoned);
    }
    // Damage done on the way shows as a wrong digest, which says more than what the decoder stumbled over.
    if !source.failed {
        std::io::copy(&mut &mut source, &mut std::io::sink()).ok();
    }
    blob.finish()?;
    match outcome {
        Ok(Some(diff_id)) if diff_id == expected.diff_id => Ok(Inflated::Complete),
        Ok(Some(diff_id)) => {
            let reason = format!(
                "its archive is {diff_id}, and the image promises {}",
                expected.diff_id
            );
            Err(corrupt(expected, &reason))
        }
        Ok(None) => Ok(Inflated::Abandoned),
        Err(error) => Err(corrupt(
            expected,
            &format!("its compressed data is damaged or cut off ({error})"),
        )),
    }
}

fn corrupt(expected: &Expected, reason: &str) -> anyhow::Error {
    Fault::new(
        Kind::Invalid,
        format!("Layer {} is truncated or corrupt: {reason}", expected.digest),
    )
    .hint("try again; if it stays so, the image has to be pushed again")
    .into()
}

/// Sends the inflated blocks on their way and returns the digest of what was sent, or `None` when nobody listens.
fn pump(
    source: &mut Source<'_>,
    blocks: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
) -> std::io::Result<Option<String>> {
    let mut compressed = BufReader::with_capacity(BLOCK_SIZE, source);
    // The first bytes tell the truth; media types are known to lie.
    let start = compressed.fill_buf()?;
    let mut inflater: Box<dyn Read + '_> = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(Gzip::new(&mut compressed))
    } else if is_zstd(start) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut compressed)?;
        decoder.window_log_max(ZSTD_WINDOW)?;
        Box::new(decoder)
    } else {
        Box::new(&mut compressed)
    };
    let mut hasher = Sha256::new();
    loop {
        let mut block = spare
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(BLOCK_SIZE));
        block.clear();
        (&mut inflater).take(BLOCK_SIZE as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            break;
        }
        hasher.update(&block);
        if blocks.send(block).is_err() {
            return Ok(None);
        }
    }
    Ok(Some(format!("sha256:{:x}", hasher.finalize())))
}

/// Tells a zstd frame, or one of the skippable frames that may stand before it.
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || matches!(start, [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50)
}

/// Counts what comes from the blob.
struct Source<'a> {
    blob: &'a mut dyn Transfer,
    count: u64,
    failed: bool,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Read for &mut Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.blob.read(buffer).inspect_err(|_| self.failed = true)?;
        self.count += count as u64;
        (self.progress)(self.count);
        Ok(count)
    }
}

/// The inflated archive, read from the blocks.
#[derive(Debug)]
pub(super) struct Archive {
    blocks: Receiver<Vec<u8>>,
    spare: Sender<Vec<u8>>,
    block: Vec<u8>,
    position: usize,
}

impl Archive {
    /// Returns an archive over the receiving end; used blocks go back through `spare`.
    pub(super) fn new(blocks: Receiver<Vec<u8>>, spare: Sender<Vec<u8>>) -> Self {
        Self {
            blocks,
            spare,
            block: Vec::new(),
            position: 0,
        }
    }

    /// Returns up to `most` bytes that are at hand, none at the end.
    pub(super) fn next(&mut self, most: u64) -> &[u8] {
        if self.position == self.block.len() {
            let Ok(block) = self.blocks.recv() else {
                return &[];
            };
            let used = std::mem::replace(&mut self.block, block);
            self.position = 0;
            if used.capacity() > 0 {
                // The inflating thread may be gone already.
                drop(self.spare.send(used));
            }
        }
        let rest = self.block.len() - self.position;
        let count = rest.min(usize::try_from(most).unwrap_or(usize::MAX));
        let start = self.position;
        self.position += count;
        &self.block[start..start + count]
    }

    /// Returns the next `count` bytes without copying where they lie in one block.
    pub(super) fn slice(&mut self, count: usize) -> Option<&[u8]> {
        if self.position == self.block.len() && count > 0 {
            // Bring the next block without taking any of it.
            self.next(0);
        }
        let bytes = self.block.get(self.position..self.position + count)?;
        self.position += count;
        Some(bytes)
    }

    /// Fills the buffer; returns how much there was.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buffer.len() {
            let bytes = self.next((buffer.len() - done) as u64);
            if bytes.is_empty() {
                break;
            }
            buffer[done..done + bytes.len()].copy_from_slice(bytes);
            done += bytes.len();
        }
        done
    }

    /// Passes over `count` bytes; returns whether there were so many.
    pub(super) fn skip(&mut self, mut count: u64) -> bool {
        while count > 0 {
            let bytes = self.next(count).len();
            if bytes == 0 {
                return false;
            }
            count -= bytes as u64;
        }
        true
    }

    /// Passes over all that is left.
    pub(super) fn drain(&mut self) {
        while !self.next(u64::MAX).is_empty() {}
    }
}
