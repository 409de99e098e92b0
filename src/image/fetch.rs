//! Fetching layers at the same time: the largest first, a few at once.
//!
//! Each layer in flight owns a fixed number of blocks, so the number of layers at once bounds the memory.

use super::chunked::{self, Annotated, Capture, Index, Rebuilt};
use super::inflate::{Expected, Transfer};
use super::layer::{self, Layer};
use super::object::ObjectStore;
use super::proxy::{Driver, ImageSource, SourceLayer};
use crate::report::{Item, Step};
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use tokio::runtime::Handle;

/// Layers in flight at most; more only wait for the same disk.
const MOST_AT_ONCE: usize = 4;
/// Directories can nest as deep as a path is long, and trees are walked by recursion.
const STACK: usize = 16 * 1024 * 1024;

/// A layer to be fetched.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Its digests.
    pub(super) expected: Expected,
    /// What to ask the source for.
    pub(super) source: SourceLayer,
    /// Where its table of contents is, in a zstd:chunked layer.
    pub(super) annotated: Option<Annotated>,
}

/// A layer that is in the store now.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The layer.
    pub(super) layer: Layer,
    /// Which of its content is where, for a zstd:chunked layer.
    pub(super) index: Option<Vec<u8>>,
    /// Bytes that were fetched for it.
    pub(super) received: u64,
}

/// Fetches layers into the store and hands each finished one to `done`, on the calling thread.
///
/// The first failure stops the others and is returned.
pub(super) fn fetch(
    source: &ImageSource,
    runtime: &Handle,
    indexes: &[Index],
    mut wanted: Vec<Wanted>,
    store: &ObjectStore,
    step: &Step<'_>,
    mut done: impl FnMut(&Wanted, Fetched) -> Result<()>,
) -> Result<()> {
    wanted.sort_by_key(|wanted| std::cmp::Reverse(wanted.source.size));
    let workers = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, MOST_AT_ONCE);
    let workers = workers.min(wanted.len());
    let queue = Mutex::new(VecDeque::from(wanted));
    let stop = AtomicBool::new(false);
    let (sender, finished) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let sender = sender.clone();
            let (queue, stop) = (&queue, &stop);
            std::thread::Builder::new()
                .name("layer".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, move || {
                    while !stop.load(Ordering::Relaxed) {
                        let next = queue.lock().map(|mut queue| queue.pop_front());
                        let Ok(Some(wanted)) = next else {
                            return;
                        };
                        let outcome = fetch_one(source, runtime, indexes, &wanted, store, step, stop);
                        if sender.send((wanted, outcome)).is_err() {
                            return;
                        }
                    }
                })
                .context("Starting a thread")?;
        }
        drop(sender);
        let mut failure = None;
        for (wanted, outcome) in finished {
            if failure.is_some() {
                // Layers that stop now stop because of the first failure.
                continue;
            }
            if let Err(error) = outcome.and_then(|fetched| done(&wanted, fetched)) {
                stop.store(true, Ordering::Relaxed);
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), Err)
    })
}

/// Fetches a layer: what the repository lacks of it where that can be, else all of it.
fn fetch_one(
    source: &ImageSource,
    runtime: &Handle,
    indexes: &[Index],
    wanted: &Wanted,
    store: &ObjectStore,
    step: &Step<'_>,
    stop: &AtomicBool,
) -> Result<Fetched> {
    let mut received = 0;
    if chunked::is_candidate(wanted, indexes) {
        let around = chunked::Surroundings {
            indexes,
            store,
            step,
            stop,
        };
        let size = wanted.source.size;
        match source.parts(&wanted.source.digest, size) {
            Ok(Some(parts)) => {
                let rebuilt = chunked::rebuild(wanted, &*parts, &around)?;
                received = parts.received();
                if let Some(Rebuilt { layer, index }) = rebuilt {
                    return Ok(Fetched {
                        layer,
                        index,
                        received,
                    });
                }
            }
            Ok(None) => {}
            Err(error) => tracing::info!("layer {} is fetched whole: {error:#}", wanted.expected.digest),
        }
    }
    let (blob, driver) = runtime.block_on(source.blob(&wanted.source.digest, wanted.source.size))?;
    let mut transfer = SourceTransfer {
        blob,
        driver: Some(driver),
        runtime,
        stop,
    };
    let item = Item::new(step, &wanted.expected.digest, wanted.source.size);
    let progress = |done: u64| item.reached(done);
    let size = wanted.source.size;
    let mut transfer = Capture::new(&mut transfer, wanted.annotated.as_ref(), size);
    let layer = layer::import(&mut transfer, &wanted.expected, store, &progress)?;
    let toc = transfer.into_kept();
    let index = wanted
        .annotated
        .as_ref()
        .and_then(|annotated| chunked::index_of(&toc, annotated, size, &layer.root));
    Ok(Fetched {
        layer,
        index,
        received: received + size,
    })
}

/// A blob of the source, read by a plain thread.
struct SourceTransfer<'a, R> {
    blob: R,
    driver: Option<Driver>,
    runtime: &'a Handle,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for SourceTransfer<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            // The driver would wait for a reader that never comes back.
            self.driver = None;
            return Err(std::io::Error::other("another layer failed"));
        }
        self.blob.read(buffer)
    }
}

impl<R: Read + Send> Transfer for SourceTransfer<'_, R> {
    fn finish(&mut self) -> Result<()> {
        let driver = self.driver.take().context("The transfer was stopped")?;
        self.runtime.block_on(driver)
    }
}
