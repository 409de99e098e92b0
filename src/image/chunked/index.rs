//! The content index of a layer: which content is in which object of the repository.
//!
//! OSTree names an object by content, owner, mode and attributes together, so content cannot be found by its name. The
//! index joins a layer's table of contents with the tree that was unpacked from the layer, path by path. It is kept with
//! the layer's commit as detached metadata, which goes when the commit goes. Nothing of it is believed: what is found
//! through it only saves a transfer, and an archive that is made with it must have the digest it is to have.
//!
//! Numbers are little-endian. Behind the header come the files and then the chunks, both by digest:
//!
//! ```text
//! header  8 bytes "AOCONT01", u32 number of files, u32 number of chunks
//! file    16 bytes, the first of the content's SHA-256; 32 bytes, the object
//! chunk   16 bytes likewise; u32 number of the file; u64 offset in it; u32 size
//! ```

use super::annotations::{Annotated, Bounds};
use super::toc;
use super::trouble::Trouble;
use crate::image::entry::{self, Place};
use crate::image::layer::find_file;
use crate::image::store::{LAYER_REF_PREFIX, refs_below};
use crate::tree::{Checksum, Directory};
use anyhow::{Context, Result};
use fn_error_context::context;
use ostree_ext::{gio, glib, ostree};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// The detached metadata that holds an index, of type `ay`.
const KEY: &str = "apt-ostree.content-index";
const MAGIC: &[u8; 8] = b"AOCONT01";
const HEADER: usize = 16;
const PREFIX: usize = 16;
const FILE: usize = PREFIX + 32;
const CHUNK: usize = PREFIX + 4 + 8 + 4;

/// Where content was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The object that holds it.
    pub(super) object: Checksum,
    /// Where in the object it begins.
    pub(super) offset: u64,
}

/// An index as it is stored.
#[derive(Clone, Debug)]
pub(in crate::image) struct Index {
    bytes: glib::Bytes,
    files: usize,
}

impl Index {
    /// Takes an index from its bytes; nothing when they are of another version or damaged.
    pub(super) fn open(bytes: glib::Bytes) -> Option<Self> {
        let number = |at: usize| {
            let bytes = bytes.get(at..at + 4)?;
            usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
        };
        if bytes.get(..8)? != MAGIC {
            return None;
        }
        let (files, chunks) = (number(8)?, number(12)?);
        let length = HEADER + files.checked_mul(FILE)? + chunks.checked_mul(CHUNK)?;
        (bytes.len() == length).then_some(Self { bytes, files })
    }

    /// Finds the object whose content has this digest.
    pub(super) fn file(&self, digest: &Checksum) -> Option<Found> {
        let files = &self.bytes[HEADER..HEADER + self.files * FILE];
        let record = search(files, FILE, digest)?;
        Some(Found {
            object: Checksum::from_slice(&record[PREFIX..]).ok()?,
            offset: 0,
        })
    }

    /// Finds the piece of an object that has this digest and size.
    pub(super) fn chunk(&self, digest: &Checksum, size: u64) -> Option<Found> {
        let record = search(&self.bytes[HEADER + self.files * FILE..], CHUNK, digest)?;
        let (number, rest) = record[PREFIX..].split_first_chunk::<4>()?;
        let (offset, known_size) = rest.split_first_chunk::<8>()?;
        if u64::from(u32::from_le_bytes(known_size.try_into().ok()?)) != size {
            return None;
        }
        let at = HEADER + usize::try_from(u32::from_le_bytes(*number)).ok()? * FILE;
        Some(Found {
            object: Checksum::from_slice(self.bytes.get(at + PREFIX..at + FILE)?).ok()?,
            offset: u64::from_le_bytes(*offset),
        })
    }
}

/// Finds the record that begins with the first bytes of a digest among sorted ones.
fn search<'a>(records: &'a [u8], length: usize, digest: &Checksum) -> Option<&'a [u8]> {
    let wanted = &digest.as_bytes()[..PREFIX];
    let (mut low, mut high) = (0, records.len() / length);
    while low < high {
        let middle = low.midpoint(high);
        let record = &records[middle * length..(middle + 1) * length];
        match record[..PREFIX].cmp(wanted) {
            Ordering::Equal => return Some(record),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    None
}

/// Makes the index of a layer from its table of contents, which is verified, and the tree that was unpacked.
pub(super) fn build(
    compressed: &[u8],
    annotated: &Annotated,
    bounds: &Bounds,
    root: &Directory,
) -> Result<Vec<u8>> {
    let mut files: Vec<([u8; PREFIX], Checksum, u32)> = Vec::new();
    let mut chunks: Vec<([u8; PREFIX], u32, u64, u32)> = Vec::new();
    toc::read(compressed, annotated, bounds, &mut |file| {
        let Ok(Place::Path(path)) = entry::place(file.name.as_bytes()) else {
            return Ok(());
        };
        let Some(object) = find_file(root, &path) else {
            return Ok(());
        };
        let number = u32::try_from(files.len()).map_err(|_| Trouble::whole("it has too many files"))?;
        files.push((prefix(&file.digest), object, number));
        let mut offset = 0;
        for piece in &file.pieces {
            if let (true, false, Ok(size)) = (file.pieces.len() > 1, piece.zeros, u32::try_from(piece.size)) {
                chunks.push((prefix(&piece.digest), number, offset, size));
            }
            offset += piece.size;
        }
        Ok(())
    })?;
    files.sort_unstable();
    chunks.sort_unstable();
    chunks.dedup_by_key(|chunk| chunk.0);
    // Files of equal content become one, and chunks name it by its new number.
    let mut numbers = vec![0; files.len()];
    let mut kept: u32 = 0;
    let mut bytes = vec![0; HEADER];
    let mut last = None;
    for (digest, object, number) in &files {
        if last != Some(digest) {
            bytes.extend_from_slice(digest);
            bytes.extend_from_slice(object.as_bytes());
            kept += 1;
            last = Some(digest);
        }
        numbers[usize::try_from(*number)?] = kept - 1;
    }
    for (digest, number, offset, size) in &chunks {
        bytes.extend_from_slice(digest);
        bytes.extend_from_slice(&numbers[usize::try_from(*number)?].to_le_bytes());
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
    }
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&kept.to_le_bytes());
    bytes[12..16].copy_from_slice(&u32::try_from(chunks.len())?.to_le_bytes());
    Ok(bytes)
}

fn prefix(digest: &Checksum) -> [u8; PREFIX] {
    let mut prefix = [0; PREFIX];
    prefix.copy_from_slice(&digest.as_bytes()[..PREFIX]);
    prefix
}

/// Returns the indexes of all layers the repository holds; they are mapped, and read where something is looked up.
#[context("Reading the content indexes of the repository")]
pub(in crate::image) fn load_all(repo: &ostree::Repo) -> Result<Vec<Index>> {
    let mut indexes = Vec::new();
    let commits: BTreeSet<String> = refs_below(repo, LAYER_REF_PREFIX)?.into_values().collect();
    for commit in commits {
        let Some(metadata) = repo.read_commit_detached_metadata(&commit, gio::Cancellable::NONE)? else {
            continue;
        };
        let index = glib::VariantDict::new(Some(&metadata))
            .lookup_value(KEY, Some(glib::VariantTy::BYTE_STRING))
            .and_then(|index| Index::open(index.data_as_bytes()));
        indexes.extend(index);
    }
    Ok(indexes)
}

/// Keeps the index with the layer's commit, inside the repository's transaction.
#[context("Keeping the content index of {commit}")]
pub(in crate::image) fn attach(repo: &ostree::Repo, commit: &str, index: &[u8]) -> Result<()> {
    let before = repo.read_commit_detached_metadata(commit, gio::Cancellable::NONE)?;
    let metadata = glib::VariantDict::new(before.as_ref());
    let index = glib::Variant::from_data_with_type(index, glib::VariantTy::BYTE_STRING);
    metadata.insert_value(KEY, &index);
    repo.write_commit_detached_metadata(commit, Some(&metadata.end()), gio::Cancellable::NONE)
        .context("Writing it")
}
