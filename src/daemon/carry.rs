//! Carrying a transaction out: the process that does it, from its start to what it leaves to be told.

use crate::daemon::files::Given;
use crate::daemon::result::{Ended, Failure};
use crate::daemon::transaction::{Phase, Transaction, cancelled};
use crate::daemon::worker::{Finished, Line, Order};
use crate::host::runner::{self, Cmd, Ending};
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// This very program, also after an upgrade of its package replaced the file.
const PROGRAM: &str = "/proc/self/exe";

/// How long a cancelled request has to put things back before it is killed.
const GRACE: Duration = Duration::from_secs(30);

/// The longest line that is read of the process: an outcome lists packages.
const LONGEST_LINE: usize = 16 << 20;

/// Starts the process in a thread of its own, with which it would end.
///
/// Fails when no thread can be started; everything later ends the transaction.
pub(super) fn start(transaction: Arc<Transaction>, stop: oneshot::Receiver<()>) -> Result<()> {
    std::thread::Builder::new()
        .name("transaction".to_owned())
        .spawn(move || {
            let ended =
                carry_out(&transaction, stop).unwrap_or_else(|error| Ended::Failed(Failure::from(&error)));
            transaction.finish(ended);
        })
        .context("Starting a thread for the transaction")?;
    Ok(())
}

fn carry_out(transaction: &Transaction, stop: oneshot::Receiver<()>) -> Result<Ended> {
    let order = serde_json::to_vec(&Order {
        request: transaction.request.clone(),
        initiator: transaction.initiator.clone(),
        sysroot: transaction.sysroot.clone(),
    })?;
    let mut command = Cmd::new(PROGRAM)
        .shown_as(format!("apt-ostreed[{}]", transaction.request.verb()))
        .arg("--worker")
        .input(order)
        .grace(GRACE)
        .longest_line(LONGEST_LINE);
    for (file, number) in Given::numbered(&transaction.files) {
        command = command.descriptor(file, number);
    }
    let mut finished = None;
    let ending = command.follow(None, stop, |line| match line {
        runner::Line::Output(text) => match serde_json::from_str(text) {
            Ok(Line::Event(event)) => transaction.tell(event),
            Ok(Line::Finished(told)) => finished = Some(told),
            Err(error) => tracing::warn!("a line of a transaction's process makes no sense: {error}"),
        },
        runner::Line::Error(text) => tracing::info!(target: "worker", "{text}"),
    })?;
    let was_cancelled = transaction.phase() == Phase::Cancelling;
    Ok(match (finished, ending) {
        (Some(Finished::Outcome(outcome)), _) => Ended::with(&outcome),
        (Some(Finished::Fault(failure)), _) => Ended::Failed(failure),
        (None, _) if was_cancelled => Ended::Failed(cancelled()),
        (None, ending) => Ended::Failed(Failure {
            kind: None,
            message: format!(
                "The process of the transaction ended without a result ({})",
                shown(ending)
            ),
            hint: Some("see what it wrote with `journalctl -u apt-ostreed`".to_owned()),
            names: Vec::new(),
        }),
    })
}

fn shown(ending: Ending) -> String {
    match ending {
        Ending::Exited(status) => status.to_string(),
        Ending::Overdue | Ending::Stopped => "killed".to_owned(),
    }
}
