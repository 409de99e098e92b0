//! Cleaning up when the user interrupts a long piece of work.

use anyhow::{Context, Result};
use std::thread::JoinHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// While this lives, SIGINT and SIGTERM run a clean-up and end the process.
#[derive(Debug)]
pub struct Interrupt {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Interrupt {
    /// Waits for a signal in a thread of its own; `clean_up` then runs there, while other threads still work.
    pub fn cleaning_up(clean_up: impl FnOnce() + Send + 'static) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("Starting to watch for signals")?;
        let (interrupt, terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("interrupt".to_owned())
            .spawn(move || {
                if let Some(number) = runtime.block_on(first(interrupt, terminate, stopped)) {
                    clean_up();
                    end(number);
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // Dropping the sender ends the wait. A clean-up that has begun ends the process from its own thread.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            if thread.join().is_err() {
                tracing::warn!("the thread that watches for signals panicked");
            }
        }
    }
}

/// Returns the number of the signal that came, or nothing when the work ended first.
async fn first(mut interrupt: Signal, mut terminate: Signal, stopped: oneshot::Receiver<()>) -> Option<i32> {
    tokio::select! {
        _ = stopped => None,
        _ = interrupt.recv() => Some(SignalKind::interrupt().as_raw_value()),
        _ = terminate.recv() => Some(SignalKind::terminate().as_raw_value()),
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
