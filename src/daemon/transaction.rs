//! One transaction: its state, who watches it, and what a watcher that comes late is told.
//!
//! ```text
//! waiting -> running -> finished
//!       \        \-> cancelling -> finished
//!        \-> finished (cancelled: the caller left, nobody started it, or somebody cancelled it)
//! ```
//!
//! Telling never waits: each watcher has a queue, and one that does not empty it is cut off.

use crate::daemon::carry;
use crate::daemon::result::{Ended, Failure};
use crate::fault::{Fault, Kind};
use crate::ops::request::{Initiator, Request};
use crate::report::{Event, Unit};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};
use zbus::names::{OwnedUniqueName, UniqueName};

/// How many events a watcher may be behind before it is cut off.
pub(super) const QUEUE: usize = 1024;

/// How many warnings, and how many things in progress, a late watcher is told.
const REMEMBERED: usize = 64;

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody has started it yet.
    Waiting,
    /// It runs.
    Running,
    /// It was told to stop and has not yet.
    Cancelling,
    /// It is over.
    Finished,
}

impl Phase {
    /// Returns the word that the property `State` has for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Finished => "finished",
        }
    }
}

/// What a watcher is told.
#[derive(Debug)]
pub(super) enum Told {
    /// Something happened.
    Event(Event),
    /// It is over; nothing follows.
    Finished {
        /// Whether the request was carried out.
        success: bool,
        /// Why not.
        message: String,
        /// Closed when every watcher has been told.
        _delivered: Option<mpsc::Sender<()>>,
    },
}

/// The way to one watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    /// What it was not told yet.
    pub(super) queue: mpsc::Sender<Arc<Told>>,
    /// Its connection, to be cut when the queue is full.
    pub(super) socket: UnixStream,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Transaction {
    /// Where it is watched, as a D-Bus address.
    pub(super) address: String,
    /// What is done.
    pub(super) request: Request,
    /// Who wants it.
    pub(super) initiator: Initiator,
    /// Files that the request names by their numbers.
    pub(super) files: Vec<Arc<OwnedFd>>,
    /// The sysroot, where it is not the booted one.
    pub(super) sysroot: Option<PathBuf>,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
}

#[derive(Debug)]
struct State {
    /// Users who called a method for it; they may start it.
    users: BTreeSet<u32>,
    /// Callers that are still there; without any, nobody will start it.
    callers: BTreeSet<OwnedUniqueName>,
    stop: Option<oneshot::Sender<()>>,
    shown: Shown,
    watchers: Vec<Watcher>,
    ended: Option<Ended>,
    delivery: Option<mpsc::Receiver<()>>,
}

/// What a watcher that comes late is told first.
#[derive(Debug, Default)]
struct Shown {
    step: Option<Event>,
    warnings: VecDeque<Event>,
    progress: BTreeMap<Unit, Event>,
    items: BTreeMap<String, Event>,
    doing: Option<Event>,
}

impl Transaction {
    /// Returns a transaction that waits to be started by its caller.
    pub(super) fn new(
        address: String,
        request: Request,
        initiator: Initiator,
        caller: OwnedUniqueName,
        files: Vec<Arc<OwnedFd>>,
        sysroot: Option<PathBuf>,
    ) -> Self {
        Self {
            address,
            request,
            files,
            sysroot,
            state: Mutex::new(State {
                users: BTreeSet::from([initiator.uid]),
                callers: BTreeSet::from([caller]),
                stop: None,
                shown: Shown::default(),
                watchers: Vec::new(),
                ended: None,
                delivery: None,
            }),
            initiator,
            phase: watch::Sender::new(Phase::Waiting),
        }
    }

    /// Returns where it is.
    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Returns how it ended, once it is over.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.lock().ended.clone()
    }

    /// Lets another caller, who was authorised for the same request, take part.
    pub(super) fn join(&self, uid: u32, caller: OwnedUniqueName) {
        let mut state = self.lock();
        state.users.insert(uid);
        state.callers.insert(caller);
    }

    /// Starts it for this user, or finds it started; returns whether this call started it.
    ///
    /// Fails for a user who neither called for it nor is root.
    pub(super) fn start(self: &Arc<Self>, uid: u32) -> Result<bool, Fault> {
        let mut state = self.lock();
        if self.phase() != Phase::Waiting {
            return Ok(false);
        }
        if uid != 0 && !state.users.contains(&uid) {
            return Err(Fault::new(
                Kind::Denied,
                format!(
                    "Only root and the user {} may start this transaction",
                    self.initiator.uid
                ),
            ));
        }
        let (sender, stop) = oneshot::channel();
        state.stop = Some(sender);
        self.phase.send_replace(Phase::Running);
        drop(state);
        let started = carry::start(Arc::clone(self), stop);
        if let Err(error) = started {
            self.finish(Ended::Failed(Failure::from(&error)));
        }
        Ok(true)
    }

    /// Stops it; returns false when it is over already or was told to stop before.
    pub(super) fn cancel(&self) -> bool {
        let mut state = self.lock();
        match self.phase() {
            Phase::Waiting => {
                drop(state);
                self.finish(Ended::Failed(cancelled()));
                true
            }
            Phase::Running => {
                self.phase.send_replace(Phase::Cancelling);
                // A process that has ended by itself listens no more.
                state.stop.take().is_some_and(|stop| stop.send(()).is_ok())
            }
            Phase::Cancelling | Phase::Finished => false,
        }
    }

    /// Notes that a name left the bus; without callers nobody will start what waits.
    pub(super) fn forget(&self, caller: &UniqueName<'_>) {
        let mut state = self.lock();
        state.callers.retain(|name| name.as_str() != caller.as_str());
        if state.callers.is_empty() && self.phase() == Phase::Waiting {
            drop(state);
            self.cancel();
        }
    }

    /// Tells the watchers what happens.
    pub(super) fn tell(&self, event: Event) {
        let mut state = self.lock();
        state.shown.note(&event);
        state.send(&Arc::new(Told::Event(event)));
    }

    /// Ends it and tells the watchers; a second time does nothing.
    pub(super) fn finish(&self, ended: Ended) {
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        let (sender, receiver) = mpsc::channel(1);
        let told = Told::Finished {
            success: ended.is_success(),
            message: ended.message().to_owned(),
            _delivered: Some(sender),
        };
        // First, for watchers ask for the result as soon as they are told.
        state.ended = Some(ended);
        state.delivery = Some(receiver);
        self.phase.send_replace(Phase::Finished);
        state.send(&Arc::new(told));
    }

    /// Waits until it is over.
    pub(super) async fn over(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as this transaction.
        phase.wait_for(|phase| *phase == Phase::Finished).await.ok();
    }

    /// Waits until every watcher was told that it is over; the first call does, later ones return at once.
    pub(super) async fn delivered(&self) {
        let delivery = self.lock().delivery.take();
        if let Some(mut delivery) = delivery {
            delivery.recv().await;
        }
    }

    /// Lets a watcher hear what happens from now on.
    pub(super) fn watch(&self, watcher: Watcher) {
        self.lock().watchers.push(watcher);
    }

    /// Forgets a watcher.
    pub(super) fn unwatch(&self, queue: &mpsc::Sender<Arc<Told>>) {
        self.lock()
            .watchers
            .retain(|watcher| !watcher.queue.same_channel(queue));
    }

    /// Cuts all watchers off.
    pub(super) fn dismiss(&self) {
        for watcher in &self.lock().watchers {
            // It may be gone by itself.
            watcher.socket.shutdown(Shutdown::Both).ok();
        }
    }

    /// Tells one watcher where things stand, in one piece with what it hears from then on.
    pub(super) fn tell_late(&self, queue: &mpsc::Sender<Arc<Told>>) {
        let state = self.lock();
        let events = state.shown.events().map(Told::Event);
        let end = state.ended.as_ref().map(|ended| Told::Finished {
            success: ended.is_success(),
            message: ended.message().to_owned(),
            _delivered: None,
        });
        for told in events.chain(end) {
            // A full queue is dealt with when the next event comes.
            queue.try_send(Arc::new(told)).ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn send(&mut self, told: &Arc<Told>) {
        self.watchers
            .retain(|watcher| match watcher.queue.try_send(Arc::clone(told)) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::warn!("a watcher of a transaction does not listen and is cut off");
                    // It may be gone by itself.
                    watcher.socket.shutdown(Shutdown::Both).ok();
                    false
                }
            });
    }
}

impl Shown {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Step { .. } => {
                let warnings = std::mem::take(&mut self.warnings);
                *self = Self {
                    step: Some(event.clone()),
                    warnings,
                    ..Self::default()
                };
            }
            Event::Warning { .. } => {
                if self.warnings.len() == REMEMBERED {
                    self.warnings.pop_front();
                }
                self.warnings.push_back(event.clone());
            }
            Event::Progress { unit, .. } => {
                self.progress.insert(*unit, event.clone());
            }
            Event::Bytes { item, done, total } if done >= total => {
                self.items.remove(item);
            }
            Event::Bytes { item, .. } => {
                if self.items.len() < REMEMBERED || self.items.contains_key(item) {
                    self.items.insert(item.clone(), event.clone());
                }
            }
            Event::Doing { .. } => self.doing = Some(event.clone()),
            Event::Script { .. } | Event::Done { .. } | Event::Note { .. } | Event::Timing { .. } => {}
        }
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        let step = self.warnings.iter().chain(&self.step);
        let inside = self
            .progress
            .values()
            .chain(self.items.values())
            .chain(&self.doing);
        step.chain(inside).cloned()
    }
}

/// Returns the failure of a transaction that was stopped.
pub(super) fn cancelled() -> Failure {
    Fault::new(
        Kind::Cancelled,
        "The transaction was cancelled; the system is as it was",
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn transaction(uid: u32) -> Arc<Transaction> {
        let request = Request::parse("pin", &serde_json::Map::new()).unwrap();
        let initiator = Initiator {
            uid,
            ..Initiator::default()
        };
        let caller = OwnedUniqueName::try_from(":1.2").unwrap();
        Arc::new(Transaction::new(
            "unix:path=/none".to_owned(),
            request,
            initiator,
            caller,
            Vec::new(),
            None,
        ))
    }

    fn watcher() -> (Watcher, mpsc::Receiver<Arc<Told>>, UnixStream) {
        let (socket, other) = UnixStream::pair().unwrap();
        let (queue, told) = mpsc::channel(QUEUE);
        (Watcher { queue, socket }, told, other)
    }

    fn note(text: &str) -> Event {
        Event::Note {
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_watcher_that_does_not_listen_is_cut_off_and_others_hear_all() {
        let transaction = transaction(0);
        let (deaf, _kept, mut end) = watcher();
        let (good, mut told, _other) = watcher();
        transaction.watch(deaf);
        transaction.watch(good);
        for number in 0..=QUEUE {
            transaction.tell(note(&number.to_string()));
            assert!(
                matches!(&*told.try_recv().unwrap(), Told::Event(event) if *event == note(&number.to_string()))
            );
        }
        let mut rest = Vec::new();
        assert_eq!(end.read_to_end(&mut rest).unwrap(), 0, "its connection has ended");
        assert_eq!(transaction.lock().watchers.len(), 1);
    }

    #[test]
    fn who_comes_late_is_told_the_step_the_warnings_and_the_end() {
        let transaction = transaction(0);
        let step = |text: &str| Event::Step {
            text: text.to_owned(),
            work: Vec::new(),
        };
        let bytes = |done| Event::Bytes {
            item: "a".to_owned(),
            done,
            total: 9,
        };
        let warning = Event::Warning {
            text: "careful".to_owned(),
        };
        for event in [
            step("one"),
            bytes(3),
            warning.clone(),
            note("gone"),
            step("two"),
            bytes(1),
            bytes(2),
        ] {
            transaction.tell(event);
        }
        let heard = || {
            let (queue, mut told) = mpsc::channel(QUEUE);
            transaction.tell_late(&queue);
            std::iter::from_fn(|| told.try_recv().ok()).collect::<Vec<_>>()
        };
        let events: Vec<_> = heard()
            .iter()
            .map(|told| match &**told {
                Told::Event(event) => event.clone(),
                Told::Finished { .. } => panic!("it runs"),
            })
            .collect();
        assert_eq!(events, [warning, step("two"), bytes(2)]);
        transaction.finish(Ended::Failed(cancelled()));
        transaction.finish(Ended::Failed(Fault::new(Kind::Busy, "a second end").into()));
        assert!(
            matches!(&**heard().last().unwrap(), Told::Finished { success: false, message, .. } if message.contains("cancelled"))
        );
    }

    #[test]
    fn only_those_who_asked_start_it_and_their_leaving_cancels_it() {
        let transaction = transaction(1000);
        assert_eq!(transaction.start(1001).unwrap_err().kind, Kind::Denied);
        transaction.join(1001, OwnedUniqueName::try_from(":1.3").unwrap());
        transaction.forget(&UniqueName::try_from(":1.2").unwrap());
        assert_eq!(transaction.phase(), Phase::Waiting, "one caller is left");
        transaction.forget(&UniqueName::try_from(":1.3").unwrap());
        assert_eq!(transaction.phase(), Phase::Finished);
        assert!(!transaction.start(1001).unwrap(), "it is over");
        assert!(!transaction.cancel());
    }
}
