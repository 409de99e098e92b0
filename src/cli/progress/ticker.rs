//! Keeps what is shown up to date while nothing happens: a thread that looks again and again.

use crate::report::Event;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(125);

/// Shows events and the time that passes.
pub(super) trait Show: Send {
    /// Takes one event.
    fn event(&mut self, event: Event, now: Instant);

    /// Is called many times a second while an operation runs.
    fn tick(&mut self, now: Instant);

    /// Takes what is not final off the screen; the next step begins anew.
    fn finish(&mut self);
}

/// Something that is shown, and the thread that keeps it up to date.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    show: Mutex<Box<dyn Show>>,
    ended: Mutex<bool>,
    end: Condvar,
}

impl Ticker {
    pub(super) fn new(show: impl Show + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                show: Mutex::new(Box::new(show)),
                ended: Mutex::new(false),
                end: Condvar::new(),
            }),
            thread: Mutex::default(),
        }
    }

    /// Takes one event; the first step starts the thread.
    pub(super) fn event(&self, event: Event) {
        if matches!(event, Event::Step { .. }) {
            let mut thread = lock(&self.thread);
            if thread.is_none() {
                let shared = Arc::clone(&self.shared);
                let started = std::thread::Builder::new()
                    .name("progress".to_owned())
                    .spawn(move || shared.run());
                // Without it only events change what is shown.
                *thread = started
                    .inspect_err(|error| tracing::warn!("no progress thread: {error}"))
                    .ok();
            }
        }
        lock(&self.shared.show).event(event, Instant::now());
    }

    /// Takes what is not final off the screen.
    pub(super) fn finish(&self) {
        lock(&self.shared.show).finish();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *lock(&self.shared.ended) = true;
        self.shared.end.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // It has nothing to tell; a panic in it was printed already.
            thread.join().ok();
        }
        self.finish();
    }
}

impl Shared {
    fn run(&self) {
        let mut ended = lock(&self.ended);
        while !*ended {
            let waited = self.end.wait_timeout(ended, EVERY);
            ended = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !*ended {
                lock(&self.show).tick(Instant::now());
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
