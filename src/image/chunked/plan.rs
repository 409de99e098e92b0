//! What a layer consists of, piece by piece, and where each piece comes from.

use super::annotations::{Annotated, Bounds};
use super::index::{Found, Index};
use super::toc;
use super::trouble::Trouble;
use crate::image::object::ObjectStore;
use crate::tree::Checksum;
use anyhow::Result;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// Gaps between ranges are fetched along as long as they stay below this share of what is missing, in hundredths.
const MOST_WASTE: u64 = 10;
/// A gap of so few bytes costs less than the request that would leave it out.
const SMALL_GAP: u64 = 1024;
/// Requests for one layer at most; more ranges are joined, whatever the waste.
const MOST_RANGES: usize = 512;

/// Where a piece comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is fetched.
    Remote,
    /// It consists of zeros.
    Zeros,
    /// It is in an object of the repository.
    Local(Found),
}

/// A piece of a file.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) digest: Checksum,
    pub(super) size: u64,
    pub(super) range: Range<u64>,
    pub(super) origin: Origin,
}

/// A file with content.
#[derive(Clone, Debug)]
pub(super) struct File {
    name: u64,
    pub(super) size: u64,
    pub(super) digest: Checksum,
    /// The object that holds all of it.
    pub(super) whole: Option<Checksum>,
    pieces: Range<u32>,
}

impl File {
    /// Returns whether the file has this path.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name == hash(name)
    }
}

/// The contents of a layer in the order of its archive.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    files: Vec<File>,
    pieces: Vec<Piece>,
    tar_split: Option<Checksum>,
}

impl Plan {
    /// Reads the plan from the table of contents, which is verified; everything is to be fetched so far.
    pub(super) fn read(compressed: &[u8], annotated: &Annotated, bounds: &Bounds) -> Result<Self, Trouble> {
        let mut plan = Self::default();
        let (files, pieces) = (&mut plan.files, &mut plan.pieces);
        let tar_split = toc::read(compressed, annotated, bounds, &mut |file| {
            let begin = pieces.len();
            pieces.extend(file.pieces.iter().map(|piece| Piece {
                digest: piece.digest,
                size: piece.size,
                range: piece.range.clone(),
                origin: if piece.zeros {
                    Origin::Zeros
                } else {
                    Origin::Remote
                },
            }));
            let number = |count| u32::try_from(count).map_err(|_| Trouble::whole("it has too many pieces"));
            files.push(File {
                name: hash(&file.name),
                size: file.size,
                digest: file.digest,
                whole: None,
                pieces: number(begin)?..number(pieces.len())?,
            });
            Ok(())
        })?;
        plan.tar_split = Some(tar_split.ok_or_else(|| Trouble::whole("nothing vouches for its tar-split"))?);
        Ok(plan)
    }

    /// Returns the digest that tar-split has to have.
    pub(super) fn tar_split(&self) -> Option<Checksum> {
        self.tar_split
    }

    /// Returns the files in the order of the archive.
    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    /// Returns the pieces of a file.
    pub(super) fn pieces(&self, file: &File) -> &[Piece] {
        let bound = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        self.pieces
            .get(bound(file.pieces.start)..bound(file.pieces.end))
            .unwrap_or_default()
    }

    /// Looks for everything that is to be fetched in what the repository holds.
    ///
    /// One index after the other, so that no more than one has to be in memory.
    pub(super) fn look_up(&mut self, indexes: &[Index], store: &ObjectStore) -> Result<()> {
        for index in indexes {
            for file in self.files.iter_mut().filter(|file| file.whole.is_none()) {
                if let Some(found) = index.file(&file.digest) {
                    // A prune may have come between.
                    file.whole = store.has_file(&found.object)?.then_some(found.object);
                }
            }
        }
        for index in indexes {
            for file in self.files.iter().filter(|file| file.whole.is_none()) {
                let bound = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
                let pieces = self
                    .pieces
                    .get_mut(bound(file.pieces.start)..bound(file.pieces.end));
                for piece in pieces.into_iter().flatten() {
                    if piece.origin != Origin::Remote {
                        continue;
                    }
                    if let Some(found) = index.chunk(&piece.digest, piece.size) {
                        if store.has_file(&found.object)? {
                            piece.origin = Origin::Local(found);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns what is to be fetched, in the order of the blob, with small gaps closed.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        let missing = self
            .files
            .iter()
            .filter(|file| file.whole.is_none())
            .flat_map(|file| self.pieces(file))
            .filter(|piece| piece.origin == Origin::Remote)
            .map(|piece| piece.range.clone());
        join(missing)
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Joins ranges, which come in order, where the gap between them is worth less than a request.
fn join(missing: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for range in missing {
        match ranges.last_mut() {
            Some(last) if range.start - last.end <= SMALL_GAP => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    // Each gap by the number of the range behind it, the smallest first.
    let mut gaps: Vec<(u64, usize)> = ranges
        .windows(2)
        .map(|pair| pair[1].start - pair[0].end)
        .zip(1..)
        .collect();
    gaps.sort_unstable();
    let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let mut allowance = bytes / 100 * MOST_WASTE;
    let excess = ranges.len().saturating_sub(MOST_RANGES);
    let mut is_closed = vec![false; ranges.len()];
    for (count, (gap, number)) in gaps.into_iter().enumerate() {
        if gap > allowance && count >= excess {
            break;
        }
        allowance = allowance.saturating_sub(gap);
        is_closed[number] = true;
    }
    let mut joined: Vec<Range<u64>> = Vec::new();
    for (range, is_closed) in ranges.into_iter().zip(is_closed) {
        match joined.last_mut() {
            Some(last) if is_closed => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(ranges: &[Range<u64>]) -> u64 {
        ranges.iter().map(|range| range.end - range.start).sum()
    }

    #[test]
    fn small_gaps_are_closed() {
        let one = 0..600;
        assert_eq!(
            join([0..10, 10..20, 500..600].into_iter()),
            std::slice::from_ref(&one)
        );
        assert_eq!(join([0..10, 5000..5010].into_iter()), [0..10, 5000..5010]);
        assert_eq!(join(std::iter::empty()), []);
    }

    #[test]
    fn gaps_stay_a_small_share() {
        let missing: Vec<Range<u64>> = (0..100u64)
            .map(|number| number * 100_000..number * 100_000 + 60_000)
            .collect();
        let joined = join(missing.clone().into_iter());
        assert!(joined.len() < 100, "some gaps are worth closing");
        assert!(bytes(&joined) <= bytes(&missing) * 11 / 10, "{joined:?}");
        let mixed = [0..1_000_000, 1_050_000..2_000_000, 9_000_000..9_500_000];
        assert_eq!(join(mixed.into_iter()), [0..2_000_000, 9_000_000..9_500_000]);
    }

    #[test]
    fn requests_are_bounded() {
        let missing = (0..10_000u64).map(|number| {
            let start = number * 1_000_000 + number % 97 * 1000;
            start..start + 10
        });
        assert!(join(missing).len() <= MOST_RANGES);
    }
}
