//! The ranges of a blob as one stream that runs forward, fetched by a few threads ahead of whoever reads.

use super::trouble::Trouble;
use crate::image::parts::Parts;
use std::io::{BufRead, Read};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope};

/// Threads that fetch; each has one request under way.
const FETCHERS: usize = 4;
/// One request at most: while one is read, the others wait, and a registry does not wait for long.
const LARGEST: u64 = 8 * 1024 * 1024;
/// Bytes handed over at a time.
const BLOCK: usize = 256 * 1024;
/// Blocks that wait at each thread.
const WAITING: usize = 4;

type Block = std::io::Result<Vec<u8>>;

/// The bytes of ranges, in their order.
pub(super) struct Stream {
    pieces: Vec<Range<u64>>,
    fetchers: Vec<Receiver<Block>>,
    /// The piece that is read.
    current: usize,
    /// Where the stream is in the blob.
    position: u64,
    block: Vec<u8>,
    taken: usize,
}

impl Stream {
    /// Starts fetching ranges, which are in order.
    pub(super) fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        parts: &'env dyn Parts,
        ranges: &[Range<u64>],
    ) -> std::io::Result<Self> {
        let pieces: Vec<Range<u64>> = ranges.iter().flat_map(cut).collect();
        let count = FETCHERS.min(pieces.len());
        let mut fetchers = Vec::with_capacity(count);
        for number in 0..count {
            let (sender, receiver) = sync_channel(WAITING);
            let mine: Vec<Range<u64>> = pieces.iter().skip(number).step_by(count).cloned().collect();
            Builder::new()
                .name("range".to_owned())
                .spawn_scoped(scope, move || fetch(parts, mine, &sender))?;
            fetchers.push(receiver);
        }
        let position = pieces.first().map_or(0, |piece| piece.start);
        Ok(Self {
            pieces,
            fetchers,
            current: 0,
            position,
            block: Vec::new(),
            taken: 0,
        })
    }

    /// Returns a reader of exactly `range`, which lies in one of the ranges and not before what was read already.
    pub(super) fn read(&mut self, range: &Range<u64>) -> Result<std::io::Take<&mut Self>, Trouble> {
        // Passing over a gap reads it, and pieces come one after the other.
        while self.position < range.start {
            let ends_in_piece = self
                .pieces
                .get(self.current)
                .map_or(range.start, |piece| piece.end);
            if self.position == ends_in_piece {
                self.next_piece();
                continue;
            }
            let most = usize::try_from(range.start - self.position).unwrap_or(usize::MAX);
            let count = self.fill_buf().map_err(failed)?.len().min(most);
            if count == 0 {
                return Err(Trouble::whole("the ranges that were asked for ended early"));
            }
            self.consume(count);
        }
        Ok(self.take(range.end - range.start))
    }

    fn next_piece(&mut self) {
        self.current += 1;
        if let Some(piece) = self.pieces.get(self.current) {
            self.position = piece.start;
        }
    }
}

/// Returns what to say of a transfer that failed.
pub(super) fn failed(error: std::io::Error) -> Trouble {
    Trouble::whole(format!("a range of it could not be had: {error}"))
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.taken == self.block.len() {
            while self
                .pieces
                .get(self.current)
                .is_some_and(|piece| self.position == piece.end)
            {
                self.next_piece();
            }
            if self.current >= self.pieces.len() {
                return Ok(&[]);
            }
            let fetcher = &self.fetchers[self.current % self.fetchers.len()];
            self.block = fetcher
                .recv()
                .map_err(|_| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))??;
            self.taken = 0;
        }
        Ok(&self.block[self.taken..])
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
        self.position += count as u64;
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Cuts a range into requests.
fn cut(range: &Range<u64>) -> Vec<Range<u64>> {
    let mut requests = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let end = range.end.min(start.saturating_add(LARGEST));
        requests.push(start..end);
        start = end;
    }
    requests
}

fn fetch(parts: &dyn Parts, ranges: Vec<Range<u64>>, blocks: &SyncSender<Block>) {
    for range in ranges {
        let mut left = range.end - range.start;
        let mut reader = match parts.read(range) {
            Ok(reader) => reader.take(left),
            Err(error) => {
                // Nobody listens any more when the reader met another trouble first.
                blocks.send(Err(std::io::Error::other(format!("{error:#}")))).ok();
                return;
            }
        };
        while left > 0 {
            let mut block = Vec::with_capacity(BLOCK.min(usize::try_from(left).unwrap_or(BLOCK)));
            let outcome = (&mut reader).take(BLOCK as u64).read_to_end(&mut block);
            left -= block.len() as u64;
            let block = match outcome {
                Ok(0) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
                Ok(_) => Ok(block),
                Err(error) => Err(error),
            };
            let is_last = block.is_err();
            if blocks.send(block).is_err() || is_last {
                return;
            }
        }
    }
}
