//! The transaction journal: a durable record of each change of a sysroot, kept while it goes on and for some time after.
//!
//! A record begins when the transaction gets the lock of the sysroot, never before: a transaction that waits has
//! changed nothing. So a record without an end whose process is gone is one of a transaction that was interrupted,
//! and whoever gets the lock next says so ([`recover()`]).

mod audit;
mod record;
mod recover;

pub use record::{Begun, Ending, FORMAT, Finished, KEPT, Line, Record, Records};
pub(super) use record::{open_to_read, shared_folder};
pub use recover::{Recovered, last_interrupted, recover, recover_locked};

use crate::deployment::history::Facts;
use crate::deployment::origin;
use crate::deployment::sysroot::WriteLock;
use crate::fault::{Fault, Kind};
use crate::host::process::Process;
use crate::host::{checkpoint, clock, durable};
use crate::image::space;
use crate::report::{Event, Report};
use anyhow::{Context, Result, anyhow};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes of the disk that a record keeps for itself when it begins, so that its end can be written on a full one.
const ROOM: u64 = 32 << 10;

/// Bytes at which a text that somebody else chose is cut.
const LONGEST_TEXT: usize = 2048;

/// Steps that are recorded; those that a transaction has beyond are not.
const MOST_STEPS: usize = 64;

/// Verbs that free space: they go on without a record on a disk that is too full for one.
const FREES_SPACE: &[&str] = &["cleanup", "image-remove", "image-prune"];

/// What a transaction is, as its record tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The verb, for example `upgrade`.
    pub verb: String,
    /// The command line, or what else tells a person what was asked for.
    pub title: String,
    /// Who asked, in words.
    pub initiator: String,
    /// The user id of who asked.
    pub uid: u32,
}

/// The journal of one transaction; clones are the same one.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    entry: Entry,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    steps: usize,
    /// The deployment that was to boot next before.
    before: Option<String>,
    step: Option<String>,
    announced: Option<Line>,
    published: Option<String>,
    /// Why a step could not be recorded.
    failure: Option<String>,
    /// A signal ends the process.
    stopped: bool,
}

#[derive(Debug)]
struct Open {
    number: u64,
    file: File,
}

impl Journal {
    /// Returns the journal of a transaction that has not begun; nothing is written yet.
    ///
    /// Hand it to the sysroot with [`crate::deployment::sysroot::Host::journalled`], and the events to
    /// [`Journal::recorder`].
    pub fn new(entry: Entry) -> Self {
        let entry = Entry {
            verb: cut(&entry.verb),
            title: cut(&entry.title),
            initiator: cut(&entry.initiator),
            uid: entry.uid,
        };
        Self {
            shared: Arc::new(Shared {
                entry,
                started: Instant::now(),
                state: Mutex::default(),
            }),
        }
    }

    /// Returns what the transaction is.
    pub fn entry(&self) -> &Entry {
        &self.shared.entry
    }

    /// Returns the number of the record; none before it has begun.
    pub fn number(&self) -> Option<u64> {
        self.state().open.as_ref().map(|open| open.number)
    }

    /// Begins the record, once; the sysroot calls this when it is locked.
    ///
    /// Fails before anything changed when the record cannot be written. A verb that frees space goes on without one
    /// on a full disk, and says so.
    pub(super) fn begin(&self, lock: &WriteLock<'_>, report: &dyn Report) -> Result<()> {
        if self.state().open.is_some() {
            return Ok(());
        }
        let deployments: Vec<String> = lock.host().deployments().iter().map(origin::id).collect();
        self.state().before = deployments.first().cloned();
        let begun = self.create(lock, deployments);
        match begun.map_err(space::explain_full_disk) {
            Ok(open) => {
                self.state().open = Some(open);
                checkpoint::reach("journal-begun")
            }
            Err(error) => {
                let is_full = Fault::find(&error).is_some_and(|fault| fault.kind == Kind::NoSpace);
                if is_full && FREES_SPACE.contains(&self.entry().verb.as_str()) {
                    report.warning(&format!("The transaction is not recorded: {error:#}."));
                    return Ok(());
                }
                Err(error.context("Recording the transaction before it begins"))
            }
        }
    }

    fn create(&self, lock: &WriteLock<'_>, deployments: Vec<String>) -> Result<Open> {
        checkpoint::reach("journal-begin")?;
        let entry = self.entry();
        let records = Records::make(lock.host().path())?;
        records.prune()?;
        let begun = Begun {
            format: FORMAT,
            at: clock::seconds(),
            verb: entry.verb.clone(),
            title: entry.title.clone(),
            initiator: entry.initiator.clone(),
            uid: entry.uid,
            process: Process::current()?,
            deployments,
        };
        let (number, file) = records.begin(&begun, ROOM)?;
        Ok(Open { number, file })
    }

    /// Records that a step begins; what cannot be recorded stops the transaction before it publishes anything.
    pub fn step(&self, text: &str) {
        let mut state = self.state();
        if state.open.is_none() {
            return;
        }
        state.step = Some(cut(text));
        state.steps += 1;
        if state.steps > MOST_STEPS {
            return;
        }
        let line = Line::Step {
            at: clock::seconds(),
            text: cut(text),
        };
        if let Err(error) = state.append(&line) {
            state.failure.get_or_insert(format!("{error:#}"));
        }
    }

    /// Records that a deployment is about to be published; fails when this or an earlier step could not be recorded.
    pub(super) fn publishing(&self, stateroot: &str, from: Option<String>, to: Facts) -> Result<()> {
        self.announce(Line::Publishing {
            at: clock::seconds(),
            stateroot: stateroot.to_owned(),
            from,
            to,
        })
    }

    /// Records that the boot order is about to change; fails when this or an earlier step could not be recorded.
    pub(super) fn reordering(&self, to: Vec<String>) -> Result<()> {
        self.announce(Line::Reordering {
            at: clock::seconds(),
            to,
        })
    }

    /// Notes which deployment was published.
    pub(super) fn published(&self, deployment: &str) {
        self.state().published = Some(deployment.to_owned());
    }

    fn announce(&self, line: Line) -> Result<()> {
        let mut state = self.state();
        if state.stopped {
            return Err(Fault::new(Kind::Cancelled, "A signal stopped the transaction").into());
        }
        if state.open.is_none() {
            return Ok(());
        }
        if let Some(failure) = &state.failure {
            return Err(anyhow!("{failure}").context("An earlier step could not be recorded"));
        }
        state
            .append(&line)
            .map_err(space::explain_full_disk)
            .context("Recording the step before it begins")?;
        state.announced = Some(line);
        Ok(())
    }

    /// Ends the record and tells systemd's journal what came of the transaction; `text` is a sentence.
    ///
    /// Fails when either cannot be written; what the transaction did stays done.
    pub fn finish(&self, result: Ending, text: &str) -> Result<()> {
        let mut state = self.state();
        let finished = Finished {
            at: clock::seconds(),
            result,
            text: cut(text),
        };
        let told = audit::tell(&self.audited(&state, &finished));
        if let Some(open) = &state.open {
            state.append(&Line::Finished(finished))?;
            durable::finish(&open.file).context("Giving back the room of the record")?;
            state.open = None;
        }
        told
    }

    /// Ends the record with the error that ended the transaction.
    pub fn fail(&self, error: &anyhow::Error) -> Result<()> {
        let is_cancelled = Fault::find(error).is_some_and(|fault| fault.kind == Kind::Cancelled);
        let result = if is_cancelled {
            Ending::Cancelled
        } else {
            Ending::Failed
        };
        self.finish(result, &format!("{error:#}"))
    }

    /// Ends the record of a transaction that a signal stops, and keeps it from publishing anything after that.
    ///
    /// Where it may have published something already the record stays open: whoever looks at it next says what came
    /// of it. Fails as [`Journal::finish`] does.
    pub fn stop(&self, signal: i32) -> Result<()> {
        let place = {
            let mut state = self.state();
            if state.announced.is_some() {
                return Ok(());
            }
            state.stopped = true;
            place(state.step.as_deref())
        };
        let text = format!("The signal {signal} stopped `{}` {place}", self.entry().verb);
        self.finish(Ending::Cancelled, &text)
    }

    fn audited<'a>(&'a self, state: &'a State, finished: &'a Finished) -> audit::Audited<'a> {
        audit::Audited {
            entry: self.entry(),
            number: state.open.as_ref().map(|open| open.number),
            from: state.before.as_deref(),
            to: state.published.as_deref(),
            announced: state.announced.as_ref(),
            step: state.step.as_deref(),
            finished,
            duration: Some(self.shared.started.elapsed()),
        }
    }

    /// Returns a watcher that records each step before it hands the event on.
    pub fn recorder<'a>(&self, inner: &'a dyn Report) -> Recorder<'a> {
        Recorder {
            journal: self.clone(),
            inner,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&self, line: &Line) -> Result<()> {
        match &self.open {
            Some(open) => durable::append(&open.file, &record::line(line)?)
                .with_context(|| format!("Writing the record of the transaction {}", open.number)),
            None => Ok(()),
        }
    }
}

/// Records the steps among the events of a transaction, and hands all events on.
pub struct Recorder<'a> {
    journal: Journal,
    inner: &'a dyn Report,
}

impl Report for Recorder<'_> {
    fn event(&self, event: Event) {
        if let Event::Step { text, .. } = &event {
            self.journal.step(text);
        }
        self.inner.event(event);
    }
}

/// Returns where a transaction was by the step it came to last.
fn place(step: Option<&str>) -> String {
    let Some(step) = step else {
        return "before its first step".to_owned();
    };
    let mut characters = step.chars();
    let first = characters.next().map(char::to_lowercase);
    let phrase: String = first.into_iter().flatten().chain(characters).collect();
    format!("while {phrase}")
}

/// Shortens a text that somebody else chose.
fn cut(text: &str) -> String {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
