//! The archive of a layer, made again of tar-split and contents, for the unpacker that reads every archive.
//!
//! It runs in the thread that inflates other layers. What is fetched is verified piece by piece as it inflates. What the
//! repository holds is not: the archive as a whole has to have its digest, and only when it has another one is
//! everything local read again to find out whose fault that is.

use super::plan::{File, Origin, Piece, Plan};
use super::ranges::{Stream, failed};
use super::split::{Part, Split};
use super::trouble::Trouble;
use crate::image::inflate::{BLOCK_SIZE, Expected, Inflated, ZSTD_WINDOW};
use crate::image::object::ObjectStore;
use crate::image::parts::Parts;
use crate::tree::Checksum;
use anyhow::Result;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use zstd::zstd_safe::{DCtx, DParameter};

/// What is rebuilt, of what.
pub(super) struct Job<'a> {
    pub(super) plan: &'a Plan,
    /// tar-split, compressed and verified.
    pub(super) split: &'a [u8],
    /// Bytes it may inflate to.
    pub(super) split_limit: u64,
    pub(super) ranges: &'a [Range<u64>],
    pub(super) parts: &'a dyn Parts,
    pub(super) store: &'a ObjectStore,
    pub(super) expected: &'a Expected,
    /// Set when another layer failed.
    pub(super) stop: &'a AtomicBool,
    /// Told how many bytes of the ranges are through.
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
}

/// Sends the blocks of the archive on their way; every byte is right when it returns [`Inflated::Complete`].
pub(super) fn run(job: &Job<'_>, blocks: SyncSender<Vec<u8>>, spare: Receiver<Vec<u8>>) -> Result<Inflated> {
    std::thread::scope(|scope| {
        let stream = Stream::start(scope, job.parts, job.ranges)?;
        let mut context = DCtx::create();
        context
            .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))
            .map_err(|code| anyhow::anyhow!("Setting up zstd: {}", zstd::zstd_safe::get_error_name(code)))?;
        let mut rebuilder = Rebuilder {
            job,
            stream,
            context,
            out: Blocks {
                blocks,
                spare,
                block: Vec::with_capacity(BLOCK_SIZE),
                hasher: Sha256::new(),
            },
            open: None,
            fetched: 0,
        };
        match rebuilder.archive() {
            Ok(()) => {}
            Err(Stop::Abandoned) => return Ok(Inflated::Abandoned),
            Err(Stop::Trouble(trouble)) => return Err(trouble.into()),
        }
        let diff_id = match rebuilder.out.finish() {
            Ok(digest) => format!("sha256:{digest}"),
            Err(_) => return Ok(Inflated::Abandoned),
        };
        if diff_id == job.expected.diff_id {
            return Ok(Inflated::Complete);
        }
        Err(blame(job, &diff_id).into())
    })
}

/// Tells whose fault it is that all pieces make another archive than the configuration promises.
fn blame(job: &Job<'_>, diff_id: &str) -> Trouble {
    for file in job.plan.files() {
        if let Some(object) = &file.whole {
            if content_digest(job.store, object, 0, file.size) != Some(file.digest) {
                return damaged(object);
            }
            continue;
        }
        for piece in job.plan.pieces(file) {
            if let Origin::Local(found) = piece.origin {
                let digest = content_digest(job.store, &found.object, found.offset, piece.size);
                if digest != Some(piece.digest) {
                    return damaged(&found.object);
                }
            }
        }
    }
    Trouble::lie(format!(
        "with contents as it lists them the archive is {diff_id}, and the image promises {}",
        job.expected.diff_id
    ))
}

fn damaged(object: &Checksum) -> Trouble {
    Trouble::whole(format!(
        "the object {object} is not what it was when its layer was imported, and `ostree fsck` tells more"
    ))
}

/// Returns the digest of what an object holds at a place; nothing when it cannot be read there.
fn content_digest(store: &ObjectStore, object: &Checksum, offset: u64, size: u64) -> Option<Checksum> {
    let file = store.open_file(object).ok()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BLOCK_SIZE];
    let (mut at, end) = (offset, offset.checked_add(size)?);
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(BLOCK_SIZE).min(BLOCK_SIZE);
        file.read_exact_at(&mut buffer[..most], at).ok()?;
        hasher.update(&buffer[..most]);
        at += most as u64;
    }
    Some(Checksum::finish(hasher))
}

/// Why rebuilding ended early.
enum Stop {
    /// Nobody takes the blocks any more.
    Abandoned,
    Trouble(Trouble),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

struct Rebuilder<'a> {
    job: &'a Job<'a>,
    stream: Stream,
    context: DCtx<'static>,
    out: Blocks,
    /// The object that was read last; pieces of one file mostly come from one object.
    open: Option<(Checksum, std::fs::File)>,
    fetched: u64,
}

impl Rebuilder<'_> {
    fn archive(&mut self) -> Result<(), Stop> {
        let plan = self.job.plan;
        let mut files = plan.files().iter();
        let mut split = Split::new(self.job.split, self.job.split_limit)?;
        while let Some(part) = split.next()? {
            match part {
                Part::Raw(bytes) => self.out.write(bytes)?,
                Part::Content { name, size } => {
                    let file = files.next().filter(|file| file.is_named(name));
                    // Nobody promised the order of the table, so another one is no lie.
                    let file = file.ok_or_else(|| {
                        Trouble::whole(
                            "its table of contents and its tar-split list other files, or in another order",
                        )
                    })?;
                    if file.size != size {
                        let what = format!("`{name}` has {} bytes, and {size} in the archive", file.size);
                        return Err(Trouble::lie(what).into());
                    }
                    self.file(file)?;
                }
            }
        }
        if files.next().is_some() {
            return Err(Trouble::lie("it lists files that the archive does not have").into());
        }
        Ok(())
    }

    fn file(&mut self, file: &File) -> Result<(), Stop> {
        if self.job.stop.load(Ordering::Relaxed) {
            return Err(Trouble::whole("another layer failed").into());
        }
        if let Some(object) = &file.whole {
            return self.local(object, 0, file.size, true);
        }
        let plan = self.job.plan;
        for piece in plan.pieces(file) {
            match piece.origin {
                Origin::Zeros => self.out.zeros(piece.size)?,
                Origin::Local(found) => self.local(&found.object, found.offset, piece.size, false)?,
                Origin::Remote => self.remote(piece)?,
            }
        }
        Ok(())
    }

    fn local(&mut self, object: &Checksum, offset: u64, size: u64, is_whole: bool) -> Result<(), Stop> {
        if self.open.as_ref().is_none_or(|(open, _)| open != object) {
            let file = self.job.store.open_file(object).map_err(|_| damaged(object))?;
            self.open = Some((*object, file));
        }
        let Some((_, file)) = &self.open else {
            return Ok(());
        };
        let (mut at, end) = (offset, offset.checked_add(size).ok_or_else(|| damaged(object))?);
        while at < end {
            let room = self.out.room(end - at)?;
            file.read_exact_at(room, at).map_err(|_| damaged(object))?;
            at += room.len() as u64;
        }
        if is_whole && file.metadata().map_or(true, |metadata| metadata.len() != size) {
            return Err(damaged(object).into());
        }
        Ok(())
    }

    fn remote(&mut self, piece: &Piece) -> Result<(), Stop> {
        let arrived = |what: &str| Trouble::whole(format!("a piece of it arrived {what}"));
        let mut compressed = self.stream.read(&piece.range)?;
        let mut hasher = Sha256::new();
        let mut left = piece.size;
        {
            let mut inflater = zstd::stream::read::Decoder::with_context(&mut compressed, &mut self.context);
            while left > 0 {
                let room = self.out.room(left)?;
                inflater
                    .read_exact(room)
                    .map_err(|error| arrived(&format!("damaged ({error})")))?;
                hasher.update(&*room);
                left -= room.len() as u64;
            }
            let mut more = [0];
            match inflater.read(&mut more) {
                Ok(0) => {}
                Ok(_) => return Err(arrived("with more content than it should have").into()),
                Err(error) => return Err(arrived(&format!("damaged ({error})")).into()),
            }
        }
        std::io::copy(&mut compressed, &mut std::io::sink()).map_err(failed)?;
        if Checksum::finish(hasher) != piece.digest {
            return Err(arrived("damaged").into());
        }
        self.fetched += piece.range.end - piece.range.start;
        (self.job.progress)(self.fetched);
        Ok(())
    }
}

/// The archive on its way out.
struct Blocks {
    blocks: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    block: Vec<u8>,
    hasher: Sha256,
}

impl Blocks {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len() as u64)?;
            let (now, later) = bytes.split_at(room.len());
            room.copy_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), Stop> {
        while count > 0 {
            let room = self.room(count)?;
            room.fill(0);
            count -= room.len() as u64;
        }
        Ok(())
    }

    /// Appends up to `most` bytes that the caller fills, at least one.
    fn room(&mut self, most: u64) -> Result<&mut [u8], Stop> {
        if self.block.len() == BLOCK_SIZE {
            self.send()?;
        }
        let start = self.block.len();
        let count = usize::try_from(most)
            .unwrap_or(BLOCK_SIZE)
            .min(BLOCK_SIZE - start);
        self.block.resize(start + count, 0);
        Ok(&mut self.block[start..])
    }

    fn send(&mut self) -> Result<(), Stop> {
        self.hasher.update(&self.block);
        let mut next = self
            .spare
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(BLOCK_SIZE));
        next.clear();
        let full = std::mem::replace(&mut self.block, next);
        self.blocks.send(full).map_err(|_| Stop::Abandoned)
    }

    /// Sends what is left and returns the digest of all.
    fn finish(mut self) -> Result<Checksum, Stop> {
        if !self.block.is_empty() {
            self.send()?;
        }
        Ok(Checksum::finish(self.hasher))
    }
}
