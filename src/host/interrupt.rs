//! What SIGINT and SIGTERM do while a long piece of work runs.
//!
//! One thread of the process waits for them from the first use on. A signal that nobody asked for ends the process
//! as it would have without that thread.

use anyhow::{Context, Result};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// While this lives, the first SIGINT or SIGTERM does what it was made for.
#[derive(Debug)]
pub struct Interrupt {
    number: u64,
}

/// While this lives, a signal that ends the process does what it was made for before that.
#[derive(Debug)]
pub struct LastWords {
    number: u64,
}

struct Watch {
    is_running: bool,
    made: u64,
    wanted: Vec<Wanted>,
    last_words: Vec<(u64, Words)>,
}

/// Takes the number of the signal.
type Words = Box<dyn FnOnce(i32) + Send>;

struct Wanted {
    number: u64,
    action: Box<dyn FnOnce() + Send>,
    ends_process: bool,
}

/// The signal that stopped a piece of work; 0 while there was none.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// The one that was made last comes first.
static WATCH: Mutex<Watch> = Mutex::new(Watch {
    is_running: false,
    made: 0,
    wanted: Vec::new(),
    last_words: Vec::new(),
});

impl Interrupt {
    /// Runs `clean_up` while other threads still work, and ends the process then.
    pub fn cleaning_up(clean_up: impl FnOnce() + Send + 'static) -> Result<Self> {
        Self::new(Box::new(clean_up), true)
    }

    /// Runs `stop`, which makes the work come to its end by itself; a second signal ends the process.
    pub fn stopping(stop: impl FnOnce() + Send + 'static) -> Result<Self> {
        Self::new(Box::new(stop), false)
    }

    fn new(action: Box<dyn FnOnce() + Send>, ends_process: bool) -> Result<Self> {
        let mut watch = lock();
        let number = watch.begin()?;
        watch.wanted.push(Wanted {
            number,
            action,
            ends_process,
        });
        Ok(Self { number })
    }
}

impl LastWords {
    /// Runs `words` with the number of the signal while other threads still work; the process ends then.
    pub fn new(words: impl FnOnce(i32) + Send + 'static) -> Result<Self> {
        let mut watch = lock();
        let number = watch.begin()?;
        watch.last_words.push((number, Box::new(words)));
        Ok(Self { number })
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        lock().last_words.retain(|(number, _)| *number != self.number);
    }
}

impl Watch {
    /// Makes sure that the thread runs, and returns a number that was not given before.
    fn begin(&mut self) -> Result<u64> {
        if !self.is_running {
            start()?;
            self.is_running = true;
        }
        self.made += 1;
        Ok(self.made)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // An action that has begun holds the lock; one that ends the process never gives it back.
        lock().wanted.retain(|wanted| wanted.number != self.number);
    }
}

/// Returns the number of the signal that stopped a piece of work, if one did.
pub fn received() -> Option<u8> {
    u8::try_from(RECEIVED.load(Ordering::Relaxed))
        .ok()
        .filter(|number| *number != 0)
}

fn lock() -> MutexGuard<'static, Watch> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("Starting to watch for signals")?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            loop {
                let number = runtime.block_on(next(&mut interrupt, &mut terminate));
                RECEIVED.store(number, Ordering::Relaxed);
                let mut watch = lock();
                let wanted = watch.wanted.pop();
                let goes_on = wanted.as_ref().is_some_and(|wanted| !wanted.ends_process);
                if let Some(wanted) = wanted {
                    (wanted.action)();
                }
                if !goes_on {
                    for (_, words) in watch.last_words.drain(..) {
                        words(number);
                    }
                    end(number);
                }
            }
        })
        .context("Starting to watch for signals")?;
    Ok(())
}

/// Returns the number of the next signal.
async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
    }
}

#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "the other threads cannot be stopped, and what they would undo is undone"
)]
fn end(number: i32) -> ! {
    std::process::exit(128 + number)
}
