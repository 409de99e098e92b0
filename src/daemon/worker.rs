//! The process that carries out one request, and what it and the service say to each other.
//!
//! Standard input is one JSON line, an [`Order`]. Standard output is JSON lines, each a [`Line`]; the last one tells how
//! it ended. A process of its own means that nothing a verb does (a crash, a full heap, a stuck program) reaches the
//! service, and that SIGINT cancels here as it does on the command line.

use crate::daemon::result::Failure;
use crate::ops::Outcome;
use crate::ops::request::{Initiator, Request, perform};
use crate::report::{Event, Report};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// What to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The request.
    pub(super) request: Request,
    /// Who asked for it.
    pub(super) initiator: Initiator,
    /// The sysroot, where it is not the booted one.
    pub(super) sysroot: Option<PathBuf>,
}

/// One line of what the process tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Line {
    /// What happens.
    Event(Event),
    /// How it ended; nothing follows.
    Finished(Finished),
}

/// How a request ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Finished {
    /// What was done.
    Outcome(Box<Outcome>),
    /// Why it was not.
    Fault(Failure),
}

/// Reads the order and carries it out.
///
/// Fails when there is no order, or nobody to tell the end to; a request that fails is told there and is no failure.
pub(super) fn main() -> Result<()> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("Reading the order")?;
    let order: Order = serde_json::from_str(&line).context("Reading the order")?;
    let teller = Teller::instead_of_stdout()?;
    let done = perform(
        &order.request,
        &order.initiator,
        order.sysroot.as_deref(),
        &teller,
    );
    let finished = match done {
        Ok(outcome) => Finished::Outcome(Box::new(outcome)),
        Err(error) => Finished::Fault(Failure::from(&error)),
    };
    teller.tell(&Line::Finished(finished)).context("Telling the end")
}

/// Writes lines to what was standard output; what a library prints goes to standard error meanwhile.
struct Teller(Mutex<File>);

impl Teller {
    fn instead_of_stdout() -> Result<Self> {
        let own = rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3).context("Keeping standard output")?;
        rustix::stdio::dup2_stdout(std::io::stderr()).context("Redirecting standard output")?;
        Ok(Self(Mutex::new(File::from(own))))
    }

    fn tell(&self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(file.write_all(&text)?)
    }
}

impl Report for Teller {
    fn event(&self, event: Event) {
        if let Err(error) = self.tell(&Line::Event(event)) {
            // The service is gone, and this process is ended with it.
            tracing::debug!("nobody takes an event: {error:#}");
        }
    }
}
