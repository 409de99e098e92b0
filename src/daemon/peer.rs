//! The interface of a transaction, as one watcher on its private socket sees it.

use crate::daemon::error::BusError;
use crate::daemon::transaction::{Phase, Told, Transaction};
use crate::daemon::variant::Fields;
use crate::fault::{Fault, Kind};
use crate::report::{Event, Unit};
use std::sync::Arc;
use tokio::sync::mpsc;
use zbus::object_server::SignalEmitter;

/// The object of a transaction on a private socket.
pub(super) const PATH: &str = "/";

/// One watcher's view of a transaction.
#[derive(Debug)]
pub(super) struct Peer {
    /// What is watched.
    pub(super) transaction: Arc<Transaction>,
    /// The user's id, from the kernel.
    pub(super) uid: u32,
    /// What this watcher was not told yet.
    pub(super) queue: mpsc::Sender<Arc<Told>>,
}

#[zbus::interface(name = "org.aptostree.dev.Transaction1", introspection_docs = false)]
impl Peer {
    /// Starts the transaction, or tells where it stands; returns whether this call started it.
    async fn start(&self) -> Result<bool, BusError> {
        let started = self.transaction.start(self.uid)?;
        if !started {
            self.transaction.tell_late(&self.queue);
        }
        Ok(started)
    }

    /// Stops the transaction.
    async fn cancel(&self) -> Result<(), BusError> {
        let owner = self.transaction.initiator.uid;
        if self.uid != 0 && self.uid != owner {
            return Err(Fault::new(
                Kind::Denied,
                format!("Only root and the user {owner} may cancel this transaction here"),
            )
            .hint("cancel it with `apt-ostree cancel`, which asks for an authorisation")
            .into());
        }
        self.transaction.cancel();
        Ok(())
    }

    /// What is done, in the words of who asked for it.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn title(&self) -> String {
        self.transaction.initiator.title.clone()
    }

    /// Who asked for it.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn initiating_client_description(&self) -> String {
        self.transaction.initiator.to_string()
    }

    /// `waiting`, `running`, `cancelling` or `finished`.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn state(&self) -> String {
        self.transaction.phase().name().to_owned()
    }

    /// How it ended; empty before.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn result(&self) -> Fields {
        match self.transaction.phase() {
            Phase::Finished => self
                .transaction
                .ended()
                .map(|ended| ended.fields())
                .unwrap_or_default(),
            _ => Fields::new(),
        }
    }

    /// A fact worth one line.
    #[zbus(signal)]
    async fn message(emitter: &SignalEmitter<'_>, text: &str) -> zbus::Result<()>;

    /// Something to look at; the work goes on.
    #[zbus(signal)]
    async fn warning(emitter: &SignalEmitter<'_>, text: &str) -> zbus::Result<()>;

    /// A step begins.
    #[zbus(signal)]
    async fn task_begin(emitter: &SignalEmitter<'_>, text: &str) -> zbus::Result<()>;

    /// A step is over.
    #[zbus(signal)]
    async fn task_end(emitter: &SignalEmitter<'_>, text: &str) -> zbus::Result<()>;

    /// How far the running step is, where that is known.
    #[zbus(signal)]
    async fn percent_progress(emitter: &SignalEmitter<'_>, text: &str, percent: u32) -> zbus::Result<()>;

    /// Bytes of one of the things the running step works on.
    #[zbus(signal)]
    async fn bytes_progress(
        emitter: &SignalEmitter<'_>,
        item: &str,
        done: u64,
        total: u64,
    ) -> zbus::Result<()>;

    /// How far the running step is in one of its units.
    #[zbus(signal)]
    async fn count_progress(
        emitter: &SignalEmitter<'_>,
        unit: &str,
        done: u64,
        total: u64,
    ) -> zbus::Result<()>;

    /// Each event as the library tells it, as JSON.
    #[zbus(signal)]
    async fn event(emitter: &SignalEmitter<'_>, json: &str) -> zbus::Result<()>;

    /// The transaction is over; nothing follows.
    #[zbus(signal)]
    async fn finished(emitter: &SignalEmitter<'_>, success: bool, message: &str) -> zbus::Result<()>;
}

/// Turns what is told into signals for one watcher.
#[derive(Debug)]
pub(super) struct Signals<'a> {
    emitter: SignalEmitter<'a>,
    step: Option<String>,
    /// What the running step counts in the first place.
    unit: Option<Unit>,
}

impl<'a> Signals<'a> {
    /// Returns signals that are sent through this emitter.
    pub(super) fn through(emitter: SignalEmitter<'a>) -> Self {
        Self {
            emitter,
            step: None,
            unit: None,
        }
    }

    /// Sends the signals for one thing that is told; waits while the watcher's socket is full.
    pub(super) async fn send(&mut self, told: &Told) -> zbus::Result<()> {
        match told {
            Told::Event(event) => self.send_event(event).await,
            Told::Finished { success, message, .. } => {
                self.end_step().await?;
                self.emitter.finished(*success, message).await
            }
        }
    }

    async fn send_event(&mut self, event: &Event) -> zbus::Result<()> {
        // An event is plain data, which always has a JSON form.
        self.emitter
            .event(&serde_json::to_string(event).unwrap_or_default())
            .await?;
        match event {
            Event::Step { text, work } => {
                self.end_step().await?;
                self.step = Some(text.clone());
                self.unit = work.first().map(|work| work.unit);
                self.emitter.task_begin(text).await
            }
            Event::Progress { unit, done, total } => {
                if self.unit == Some(*unit) {
                    self.percent(*done, *total).await?;
                }
                let unit = serde_json::to_value(unit).unwrap_or_default();
                self.emitter
                    .count_progress(unit.as_str().unwrap_or_default(), *done, *total)
                    .await
            }
            Event::Bytes { item, done, total } => self.emitter.bytes_progress(item, *done, *total).await,
            Event::Note { text } => self.emitter.message(text).await,
            Event::Warning { text } => self.emitter.warning(text).await,
            Event::Doing { .. } | Event::Script { .. } | Event::Done { .. } | Event::Timing { .. } => Ok(()),
        }
    }

    async fn percent(&self, done: u64, total: u64) -> zbus::Result<()> {
        let percent = done
            .min(total)
            .saturating_mul(100)
            .checked_div(total)
            .unwrap_or(100);
        let step = self.step.as_deref().unwrap_or_default();
        self.emitter
            .percent_progress(step, u32::try_from(percent).unwrap_or(100))
            .await
    }

    async fn end_step(&mut self) -> zbus::Result<()> {
        match self.step.take() {
            Some(step) => self.emitter.task_end(&step).await,
            None => Ok(()),
        }
    }
}
