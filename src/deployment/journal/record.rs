//! The record of a transaction: one line of JSON for each thing that is about to happen.
//!
//! ```text
//! <sysroot>/ostree/apt-ostree/transactions/    0700: who asked for what is root's to know
//!     000041.jsonl                             0600, a line begun, lines step and publishing, a line finished
//! ```
//!
//! A line is on the disk before the step it names begins. Lines are only ever appended; a line that a power cut tore
//! is no line.

use crate::deployment::history::Facts;
use crate::fault::{Fault, Kind};
use crate::host::durable;
use crate::host::process::Process;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The version of the lines below; a record of a later one is left alone.
pub const FORMAT: u32 = 1;

/// The folder of what this program knows of a sysroot beside libostree, below `ostree`.
const FOLDER: &str = "apt-ostree";

/// The folder of the records in it.
const TRANSACTIONS: &str = "transactions";

/// How the names of records end.
const SUFFIX: &str = ".jsonl";

/// How many records are kept.
pub const KEPT: usize = 100;

/// A line of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The first line: who began what.
    Begun(Begun),
    /// A step begins.
    Step {
        /// Seconds since 1970.
        at: u64,
        /// A gerund phrase such as `Importing layers`.
        text: String,
    },
    /// A deployment is about to be published.
    Publishing {
        /// Seconds since 1970.
        at: u64,
        /// The stateroot it goes to.
        stateroot: String,
        /// The deployment it continues.
        from: Option<String>,
        /// What it consists of.
        to: Facts,
    },
    /// The boot order is about to be changed.
    Reordering {
        /// Seconds since 1970.
        at: u64,
        /// The deployments in the new order.
        to: Vec<String>,
    },
    /// The last line: what came of it.
    Finished(Finished),
}

/// Who began what, and what was deployed then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Begun {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// Seconds since 1970.
    pub at: u64,
    /// The verb.
    pub verb: String,
    /// The command line, or what else tells a person what was asked for.
    pub title: String,
    /// Who asked, in words.
    pub initiator: String,
    /// The user id of who asked.
    pub uid: u32,
    /// The process that does it.
    pub process: Process,
    /// The deployments in boot order, before.
    pub deployments: Vec<String>,
}

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finished {
    /// Seconds since 1970.
    pub at: u64,
    /// In a word.
    pub result: Ending,
    /// In a sentence.
    pub text: String,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It did what was asked for.
    Done,
    /// Nothing had to change.
    Unchanged,
    /// An error ended it.
    Failed,
    /// A signal or a client stopped it.
    Cancelled,
    /// Its process ended without a word: killed, or the machine went down.
    Interrupted,
}

impl Ending {
    /// Returns the word for it that is on the disk.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number; later transactions have higher ones.
    pub number: u64,
    /// Its first line.
    pub begun: Begun,
    /// The step it came to last.
    pub step: Option<String>,
    /// The last line that announced a change of what boots.
    pub announced: Option<Line>,
    /// Its last line; none while it runs, and when it was interrupted and nobody has looked yet.
    pub finished: Option<Finished>,
}

/// The folder of all records, opened.
#[derive(Debug)]
pub struct Records {
    folder: OwnedFd,
}

impl Records {
    /// Opens the folder below the sysroot at `sysroot`; makes it where there is none.
    pub fn make(sysroot: &Path) -> Result<Self> {
        let folder = durable::folder(shared_folder(sysroot)?, TRANSACTIONS, 0o700)?;
        Ok(Self { folder })
    }

    /// Opens the folder for reading; none where there is none, and where the caller may not look.
    pub fn open(sysroot: &Path) -> Result<Option<Self>> {
        let path = sysroot.join("ostree").join(FOLDER).join(TRANSACTIONS);
        Ok(open_to_read(&path)?.map(|folder| Self { folder }))
    }

    /// Returns all records, the newest first.
    ///
    /// A record that holds no whole line, or that a later version of this program wrote, is passed over; one that is
    /// damaged is a sentence instead.
    pub fn read(&self) -> Result<Vec<Result<Record>>> {
        let mut records = Vec::new();
        for name in durable::names(&self.folder, SUFFIX)? {
            let Some(number) = number_of(&name) else { continue };
            let Some(bytes) = durable::read(&self.folder, &name)? else {
                continue;
            };
            let parsed = parse(number, &bytes).with_context(|| format!("Reading the transaction {number}"));
            records.extend(parsed.transpose());
        }
        // Numbers outgrow the width of their names one day.
        records.sort_by_key(|record| std::cmp::Reverse(record.as_ref().map_or(0, |record| record.number)));
        Ok(records)
    }

    /// Makes the record of a new transaction and returns its number; keeps `room` bytes for what follows.
    pub(super) fn begin(&self, begun: &Begun, room: u64) -> Result<(u64, std::fs::File)> {
        let numbers = self.numbers()?;
        let number = numbers.last().map_or(1, |last| last + 1);
        let file = durable::create(
            &self.folder,
            &name_of(number),
            &line(&Line::Begun(begun.clone()))?,
            room,
        )?;
        Ok((number, file))
    }

    /// Closes the record of a transaction whose process is gone.
    pub(super) fn close(&self, number: u64, finished: Finished) -> Result<()> {
        let name = name_of(number);
        let mut bytes = durable::read(&self.folder, &name)?.unwrap_or_default();
        bytes.truncate(whole_lines(&bytes).len());
        bytes.extend(line(&Line::Finished(finished))?);
        durable::replace(&self.folder, &name, &bytes, 0o600)
    }

    /// Makes room for one more: removes the oldest records, so that [`KEPT`] stay with it, and those that hold nothing.
    ///
    /// The caller holds the sysroot's lock.
    pub(super) fn prune(&self) -> Result<()> {
        let mut kept = 0;
        for number in self.numbers()?.into_iter().rev() {
            let name = name_of(number);
            let bytes = durable::read(&self.folder, &name)?.unwrap_or_default();
            let is_empty = whole_lines(&bytes).is_empty();
            kept += usize::from(!is_empty);
            // What nobody has judged yet stays.
            let is_open = matches!(parse(number, &bytes), Ok(Some(record)) if record.finished.is_none());
            if is_empty || (kept >= KEPT && !is_open) {
                durable::remove(&self.folder, &name)?;
            }
        }
        Ok(())
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let names = durable::names(&self.folder, SUFFIX)?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// Opens the folder of what this program keeps beside libostree's things; makes it where there is none.
pub(in crate::deployment) fn shared_folder(sysroot: &Path) -> Result<OwnedFd> {
    let path = sysroot.join("ostree");
    let ostree = std::fs::File::open(&path).with_context(|| format!("Opening {}", path.display()))?;
    durable::folder(ostree.as_fd(), FOLDER, 0o755)
}

/// Opens a folder to read in it; none where there is none, and where the caller may not look.
pub(in crate::deployment) fn open_to_read(path: &Path) -> Result<Option<OwnedFd>> {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    match std::fs::File::open(path) {
        Ok(folder) => Ok(Some(folder.into())),
        Err(error) if [NotFound, PermissionDenied].contains(&error.kind()) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("Opening {}", path.display())),
    }
}

/// Returns a line as it is on the disk.
pub(super) fn line(line: &Line) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn parse(number: u64, bytes: &[u8]) -> Result<Option<Record>> {
    let bytes = whole_lines(bytes);
    let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let Some(first) = lines.next() else {
        return Ok(None);
    };
    let format = serde_json::from_slice::<serde_json::Value>(first)?["begun"]["format"].as_u64();
    if format.is_some_and(|format| format > u64::from(FORMAT)) {
        return Ok(None);
    }
    let Line::Begun(begun) = serde_json::from_slice(first)? else {
        return Err(Fault::new(Kind::Invalid, "The first line does not say what was begun").into());
    };
    let mut record = Record {
        number,
        begun,
        step: None,
        announced: None,
        finished: None,
    };
    for text in lines {
        match serde_json::from_slice(text)? {
            Line::Begun(_) => ensure!(false, "It begins twice"),
            Line::Step { text, .. } => record.step = Some(text),
            line @ (Line::Publishing { .. } | Line::Reordering { .. }) => record.announced = Some(line),
            Line::Finished(finished) => record.finished = Some(finished),
        }
    }
    Ok(Some(record))
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    &bytes[..end.map_or(0, |end| end + 1)]
}

fn name_of(number: u64) -> String {
    format!("{number:06}{SUFFIX}")
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}
