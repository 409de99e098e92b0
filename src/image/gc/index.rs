//! The index: how often each object is named by what a set of commits holds, in one file.
//!
//! ```text
//! "apt-ostree uses" 1   16 bytes, the last one is the version
//! collections           u32: small collections since the last full one
//! commits               u32: how many
//! files, dirmetas, dirtrees   u32 each: how many
//! the commits           32 bytes each, sorted
//! the objects           32 bytes and an u32 each, sorted; files, then dirmetas, then dirtrees
//! SHA-256 of all that   32 bytes
//! ```
//!
//! Numbers are little-endian. An object's number is that of the entries of *different* reachable directory objects
//! which name it, and of the commits which have it as their root: it is above zero exactly while something holds
//! the object. All of that follows from the set of commits, and commits from their checksums, so a file that is
//! whole tells the truth whatever was done to the repository since; one that is not is as good as none.

use crate::host::durable;
use crate::tree::Checksum;
use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

const NAME: &str = "uses";
const SCRATCH: &str = ".uses";
const MAGIC: &[u8; 16] = b"apt-ostree uses\x01";
const HEADER: usize = 16 + 5 * 4;
const SUM: usize = 32;
const ENTRY: usize = SUM + 4;
/// Bytes beyond which no index is written or read: it is held in memory. This is room for 1.8 million objects.
const LARGEST: usize = 64 << 20;

/// Which objects are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Regular files and symbolic links.
    File,
    /// Metadata of directories.
    DirMeta,
    /// Entries of directories.
    DirTree,
}

impl Kind {
    /// All of them, in the order of the file.
    pub(super) const ALL: [Self; 3] = [Self::File, Self::DirMeta, Self::DirTree];

    /// Returns the file name extension of such objects in a `bare` or `bare-user` repository.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::DirMeta => "dirmeta",
            Self::DirTree => "dirtree",
        }
    }
}

/// Numbers by object, where they differ from those of an index.
pub(super) type Changed = BTreeMap<(Kind, Checksum), u32>;

/// An index in memory, whole.
#[derive(Debug)]
pub(super) struct Index {
    bytes: Vec<u8>,
    commits: usize,
    objects: [usize; 3],
}

impl Index {
    /// Returns the index of no commit at all.
    pub(super) fn empty() -> Self {
        Self {
            bytes: Vec::new(),
            commits: 0,
            objects: [0; 3],
        }
    }

    /// Reads the index in a folder; none where there is no such file.
    ///
    /// Fails when the file is damaged or of another version.
    pub(super) fn load(folder: BorrowedFd<'_>) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(folder, NAME, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("Opening {NAME}")),
        };
        let metadata = file.metadata()?;
        ensure!(
            metadata.is_file() && metadata.len() <= LARGEST as u64,
            "{NAME} is no plain file, or too large"
        );
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len())?);
        file.take(LARGEST as u64)
            .read_to_end(&mut bytes)
            .with_context(|| format!("Reading {NAME}"))?;
        Self::parse(bytes).map(Some)
    }

    /// Reads an index from its bytes.
    fn parse(bytes: Vec<u8>) -> Result<Self> {
        ensure!(bytes.len() >= HEADER + SUM, "The index is cut off");
        ensure!(&bytes[..16] == MAGIC, "The index is of another version");
        let (body, sum) = bytes.split_at(bytes.len() - SUM);
        ensure!(
            Checksum::of(body).as_bytes() == sum,
            "The index is damaged: its checksum is another"
        );
        let number = |place: usize| -> Result<usize> { Ok(usize::try_from(number(&bytes, 16 + 4 * place))?) };
        let (commits, objects) = (number(1)?, [number(2)?, number(3)?, number(4)?]);
        let expected = objects
            .iter()
            .try_fold(commits.checked_mul(SUM), |sum, count| {
                Some(sum?.checked_add(count.checked_mul(ENTRY)?))
            })
            .flatten();
        ensure!(
            expected == Some(body.len() - HEADER),
            "The index is not as long as it says"
        );
        Ok(Self {
            bytes,
            commits,
            objects,
        })
    }

    /// Returns how many collections in a row have relied on indexes that were made from this one's predecessors.
    pub(super) fn collections(&self) -> u32 {
        match self.bytes.is_empty() {
            true => 0,
            false => number(&self.bytes, 16),
        }
    }

    /// Returns the commits whose objects were counted.
    pub(super) fn commits(&self) -> Result<BTreeSet<Checksum>> {
        (0..self.commits)
            .map(|place| Checksum::from_slice(&self.bytes[HEADER + place * SUM..][..SUM]))
            .collect()
    }

    /// Returns how often an object is named.
    pub(super) fn uses(&self, kind: Kind, object: &Checksum) -> u32 {
        let entries = self.entries(kind);
        let rest = &entries[count_below(entries, object) * ENTRY..];
        match rest.starts_with(object.as_bytes()) {
            true => number(rest, SUM),
            false => 0,
        }
    }

    fn entries(&self, kind: Kind) -> &[u8] {
        let before: usize = Kind::ALL
            .iter()
            .zip(self.objects)
            .take_while(|(other, _)| **other != kind)
            .map(|(_, count)| count * ENTRY)
            .sum();
        let start = HEADER + self.commits * SUM + before;
        match self.bytes.is_empty() {
            true => &[],
            false => &self.bytes[start..start + self.objects[kind as usize] * ENTRY],
        }
    }

    /// Returns the bytes of the index of other commits, in which the numbers of some objects are others.
    ///
    /// Fails when it would be larger than what is read again.
    pub(super) fn rewritten(
        &self,
        commits: &BTreeSet<Checksum>,
        collections: u32,
        changed: &Changed,
    ) -> Result<Vec<u8>> {
        let room = self.bytes.len() + changed.len() * ENTRY + commits.len() * SUM + HEADER + SUM;
        let mut bytes = Vec::with_capacity(room);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&collections.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(commits.len())?.to_le_bytes());
        bytes.resize(HEADER, 0);
        for commit in commits {
            bytes.extend_from_slice(commit.as_bytes());
        }
        for kind in Kind::ALL {
            let start = bytes.len();
            let first = Checksum::from_slice(&[0; SUM])?;
            let last = Checksum::from_slice(&[0xff; SUM])?;
            let mut old = self.entries(kind);
            for ((_, object), uses) in changed.range((kind, first)..=(kind, last)) {
                let below = count_below(old, object);
                let (copied, rest) = old.split_at(below * ENTRY);
                bytes.extend_from_slice(copied);
                let is_here = rest.starts_with(object.as_bytes());
                old = if is_here { &rest[ENTRY..] } else { rest };
                if *uses > 0 {
                    bytes.extend_from_slice(object.as_bytes());
                    bytes.extend_from_slice(&uses.to_le_bytes());
                }
            }
            bytes.extend_from_slice(old);
            let count = u32::try_from((bytes.len() - start) / ENTRY)?;
            let place = 16 + 4 * (2 + kind as usize);
            bytes[place..place + 4].copy_from_slice(&count.to_le_bytes());
        }
        let sum = Checksum::of(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        ensure!(bytes.len() <= LARGEST, "The index would be too large");
        Ok(bytes)
    }
}

/// Returns how many of the sorted entries come before an object.
fn count_below(entries: &[u8], object: &Checksum) -> usize {
    let (mut low, mut high) = (0, entries.len() / ENTRY);
    while low < high {
        let middle = low + (high - low) / 2;
        match &entries[middle * ENTRY..][..SUM] < object.as_bytes().as_slice() {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

/// Returns the number at a place that lies inside the bytes.
fn number(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// Opens the folder of this program in a repository and makes it where there is none.
pub(super) fn open_folder(repository: BorrowedFd<'_>) -> Result<OwnedFd> {
    let extensions = durable::folder(repository, "extensions", 0o755)?;
    durable::folder(&extensions, "apt-ostree", 0o700)
}

/// Replaces the index in a folder. What a power cut leaves of it shows when it is read.
pub(super) fn write(folder: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(folder, SCRATCH, flags, Mode::from_raw_mode(0o600));
    let mut file = File::from(file.with_context(|| format!("Making {SCRATCH}"))?);
    let written = file
        .write_all(bytes)
        .and_then(|()| Ok(rustix::fs::renameat(folder, SCRATCH, folder, NAME)?));
    if let Err(error) = written {
        durable::remove(folder, SCRATCH)?;
        return Err(error).with_context(|| format!("Writing {NAME}"));
    }
    Ok(())
}

/// Removes the index of a folder.
pub(super) fn remove(folder: BorrowedFd<'_>) -> Result<()> {
    durable::remove(folder, NAME)
}
