//! Fetching layers at the same time: the largest first, a few at once.
//!
//! Each layer in flight owns a fixed number of blocks, so the number of layers at once bounds the memory.

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
}

/// Fetches layers into the store and hands each finished one to `done`, on the calling thread.
///
/// The first failure stops the others and is returned.
pub(super) fn fetch(
    source: &ImageSource,
    runtime: &Handle,
    mut wanted: Vec<Wanted>,
    store: &ObjectStore,
    step: &Step<'_>,
    mut done: impl FnMut(&Wanted, Layer) -> Result<()>,
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
                        let outcome = fetch_one(source, runtime, &wanted, store, step, stop);
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
            if let Err(error) = outcome.and_then(|layer| done(&wanted, layer)) {
                stop.store(true, Ordering::Relaxed);
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), Err)
    })
}

fn fetch_one(
    source: &ImageSource,
    runtime: &Handle,
    wanted: &Wanted,
    store: &ObjectStore,
    step: &Step<'_>,
    stop: &AtomicBool,
) -> Result<Layer> {
    let (blob, driver) = runtime.block_on(source.blob(&wanted.source.digest, wanted.source.size))?;
    let mut transfer = SourceTransfer {
        blob,
        driver: Some(driver),
        runtime,
        stop,
    };
    let item = Item::new(step, &wanted.expected.digest, wanted.source.size);
    let progress = |done: u64| item.reached(done);
    layer::import(&mut transfer, &wanted.expected, store, &progress)
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
