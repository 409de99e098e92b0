//! Partial pulls: a zstd:chunked layer is rebuilt from what the repository holds and the few ranges it lacks.
//!
//! Trust goes down from the manifest, which the policy accepted: an annotation of the layer names the table of contents
//! by its digest, the table names tar-split (the archive without the contents) and every piece of content by theirs, and
//! the archive made of both must have the diff id that the configuration promises. It then goes through the same
//! unpacker as any other layer, so no path, owner or mode of the table is ever believed.
//!
//! The whole layer is fetched instead wherever that is the better way or the only one; `settle` decides.

mod annotations;
mod capture;
mod guard;
mod index;
mod plan;
mod ranges;
mod rebuild;
mod split;
mod toc;
mod trouble;

pub(super) use annotations::Annotated;
pub(super) use capture::Capture;
pub(super) use index::{Index, attach, load_all};

use super::fetch::Wanted;
use super::inflate::Expected;
use super::layer::{self, Layer};
use super::object::ObjectStore;
use super::parts::Parts;
use crate::fault::{Fault, Kind};
use crate::report::{Item, Step, Unit};
use crate::tree::{Checksum, Directory};
use anyhow::Result;
use plan::Plan;
use std::io::Read;
use std::sync::atomic::AtomicBool;
use trouble::Trouble;

/// Layers below this size are fetched whole: two more requests would cost more than they save.
const WORTH_IT: u64 = 256 * 1024;
/// A partial pull that moves more than this share of the layer, in hundredths, is not worth its requests.
const MOST_OF_LAYER: u64 = 80;

/// A layer that was rebuilt.
#[derive(Debug)]
pub(super) struct Rebuilt {
    /// The layer.
    pub(super) layer: Layer,
    /// Which of its content is where, for [`attach`].
    pub(super) index: Option<Vec<u8>>,
}

/// What surrounds the rebuilding of one layer.
pub(super) struct Surroundings<'a> {
    /// Which content the repository holds, layer by layer.
    pub(super) indexes: &'a [Index],
    /// The objects.
    pub(super) store: &'a ObjectStore,
    /// The step that counts bytes; it holds the whole layer's so far.
    pub(super) step: &'a Step<'a>,
    /// Set when another layer failed.
    pub(super) stop: &'a AtomicBool,
}

/// Rebuilds the layer, or returns nothing where the whole layer is to be fetched; the log says why.
///
/// Fails when the image contradicts itself, and for what would fail with the whole layer as well.
pub(super) fn rebuild(
    wanted: &Wanted,
    parts: &dyn Parts,
    around: &Surroundings<'_>,
) -> Result<Option<Rebuilt>> {
    let Some(annotated) = &wanted.annotated else {
        return Ok(None);
    };
    match attempt(wanted, annotated, parts, around) {
        Ok(rebuilt) => Ok(Some(rebuilt)),
        Err(error) => settle(error, &wanted.expected).map(|()| None),
    }
}

/// Returns whether a partial pull of the layer can be thought of at all.
pub(super) fn is_candidate(wanted: &Wanted, indexes: &[Index]) -> bool {
    wanted.annotated.is_some()
        && !wanted.expected.is_ostree
        && !indexes.is_empty()
        && wanted.source.size >= WORTH_IT
}

/// Decides what follows when a layer could not be rebuilt: `Ok` means that the whole layer is fetched.
///
/// The table of contents is what the manifest names once its checksum fits, so a table that contradicts itself, the blob
/// or tar-split is the image's own lie, and so is an archive that turns out another one although every piece of it had
/// the digest that the table gives: such an image is refused. All else may be the fault of the network, of a mirror, of
/// this repository or of a format that is newer than this program, and the whole layer is verified by its own digest.
/// What the unpacker refuses is no matter of parts: it would refuse the same entry of the whole layer.
fn settle(error: anyhow::Error, expected: &Expected) -> Result<()> {
    match error.downcast::<Trouble>()? {
        Trouble::Lie(reason) => Err(Fault::new(
            Kind::Invalid,
            format!(
                "Layer {} has a table of contents that contradicts the image: {reason}",
                expected.digest
            ),
        )
        .hint("nothing was imported; the image has to be pushed again")
        .into()),
        Trouble::Whole(reason) => {
            tracing::info!("layer {} is fetched whole: {reason}", expected.digest);
            Ok(())
        }
    }
}

fn attempt(
    wanted: &Wanted,
    annotated: &Annotated,
    parts: &dyn Parts,
    around: &Surroundings<'_>,
) -> Result<Rebuilt> {
    let size = wanted.source.size;
    let bounds = annotated.bounds(size)?;
    let tables = tables(annotated, parts)?;
    let mut plan = Plan::read(&tables.toc, annotated, &bounds)?;
    if Some(tables.split_digest()) != plan.tar_split() {
        return Err(Trouble::whole("its tar-split arrived damaged").into());
    }
    plan.look_up(around.indexes, around.store)?;
    let ranges = plan.ranges();
    let tables_size = (tables.toc.len() + tables.split.len()) as u64;
    let moved = tables_size + ranges.iter().map(|range| range.end - range.start).sum::<u64>();
    if moved > size / 100 * MOST_OF_LAYER {
        return Err(Trouble::whole(format!("{moved} of its {size} bytes are missing here")).into());
    }
    tracing::info!(
        "layer {} is fetched in part: {moved} of {size} bytes in {} ranges",
        wanted.expected.digest,
        ranges.len()
    );
    around.step.expect_less(Unit::Bytes, size - moved);
    let item = Item::new(around.step, &wanted.expected.digest, moved);
    let job = rebuild::Job {
        plan: &plan,
        split: &tables.split,
        split_limit: bounds.split_inflated,
        ranges: &ranges,
        parts,
        store: around.store,
        expected: &wanted.expected,
        stop: around.stop,
        progress: &|fetched| item.reached(tables_size + fetched),
    };
    let layer = layer::import_from(&wanted.expected, around.store, |blocks, spare| {
        rebuild::run(&job, blocks, spare)
    });
    match layer {
        Ok(layer) => {
            item.reached(moved);
            let index = index_of(&tables.toc, annotated, size, &layer.root);
            Ok(Rebuilt { layer, index })
        }
        Err(error) => {
            // The whole layer counts from its own beginning.
            around.step.expect_more(Unit::Bytes, size);
            around.step.expect_less(Unit::Bytes, item.left());
            Err(error)
        }
    }
}

/// Makes the index of a layer that was imported, from its table of contents as it came; a table that is of no use makes
/// none.
pub(super) fn index_of(toc: &[u8], annotated: &Annotated, size: u64, root: &Directory) -> Option<Vec<u8>> {
    let made = annotated.bounds(size).map_err(Into::into).and_then(|bounds| {
        if Checksum::of(toc) != annotated.toc_digest {
            return Err(Trouble::whole("its table of contents has another digest").into());
        }
        index::build(toc, annotated, &bounds, root)
    });
    made.inspect_err(|error: &anyhow::Error| tracing::debug!("a layer gets no content index: {error:#}"))
        .ok()
}

/// Table of contents and tar-split, as compressed.
struct Tables {
    toc: Vec<u8>,
    split: Vec<u8>,
}

impl Tables {
    fn split_digest(&self) -> Checksum {
        Checksum::of(&self.split)
    }
}

/// Fetches both tables, with one request where they lie side by side.
fn tables(annotated: &Annotated, parts: &dyn Parts) -> Result<Tables> {
    let split = annotated.split()?;
    let toc = &annotated.toc;
    let begin = toc.offset.min(split.offset);
    let end = toc.end().max(split.end());
    let together = end - begin <= toc.length + split.length + 4096;
    let read = |from: u64, to: u64| -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(to - from)?);
        parts
            .read(from..to)
            .and_then(|mut reader| Ok(reader.read_to_end(&mut bytes)?))
            .map_err(|error| Trouble::whole(format!("its table of contents cannot be had: {error:#}")))?;
        Ok(bytes)
    };
    let cut = |all: &[u8], span: &annotations::Span| -> Result<Vec<u8>> {
        let start = usize::try_from(span.offset - begin)?;
        let bytes = all.get(start..start + usize::try_from(span.length)?);
        Ok(bytes
            .ok_or_else(|| Trouble::whole("its table of contents ends early"))?
            .to_vec())
    };
    let tables = if together {
        let all = read(begin, end)?;
        Tables {
            toc: cut(&all, toc)?,
            split: cut(&all, split)?,
        }
    } else {
        Tables {
            toc: read(toc.offset, toc.end())?,
            split: read(split.offset, split.end())?,
        }
    };
    if Checksum::of(&tables.toc) != annotated.toc_digest {
        return Err(
            Trouble::whole("its table of contents arrived damaged, or the annotations are stale").into(),
        );
    }
    Ok(tables)
}
