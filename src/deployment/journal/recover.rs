//! What became of transactions that never ended: found by whoever gets the lock next, told to the user, and closed.

use super::record::{Begun, Ending, Finished, Line, Record, Records};
use super::{Entry, audit, place};
use crate::deployment::history;
use crate::deployment::origin;
use crate::deployment::prune;
use crate::deployment::sysroot::{Host, Patience, WriteLock};
use crate::fault::{Fault, Kind};
use crate::host::{checkpoint, clock};
use crate::report::Report;
use anyhow::{Context, Result};
use serde::Serialize;

/// A transaction that was interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recovered {
    /// The number of its record.
    pub transaction: u64,
    /// When it began, in seconds since 1970.
    pub at: u64,
    /// The verb.
    pub verb: String,
    /// The command line.
    pub title: String,
    /// Where it was interrupted and what that means, a sentence without a full stop.
    pub text: String,
}

/// What the sysroot says of a transaction that never ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The deployment it made is there; whether it boots next.
    Published { deployment: String, boots_next: bool },
    /// The boot order is the one it wanted.
    Reordered,
    /// What boots next is what it was before.
    AsBefore,
    /// Something else boots next now.
    ChangedSince,
}

/// Closes the records of transactions that were interrupted and removes what they left behind.
///
/// Takes the lock only where there is such a record. Returns nothing while another process has it: that one has looked,
/// or is about to. Needs root.
pub fn recover(host: &Host, report: &dyn Report) -> Result<Vec<Recovered>> {
    let records = match Records::open(host.path())? {
        Some(records) => records.read()?,
        None => Vec::new(),
    };
    if !records.iter().flatten().any(is_left_open) {
        return Ok(Vec::new());
    }
    match host.acquire("recover", Patience::Fail, report) {
        Ok(lock) => recover_locked(&lock, report),
        Err(error) if Fault::find(&error).is_some_and(|fault| fault.kind == Kind::Busy) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Does the same with the lock held.
///
/// What cannot be read or removed is a warning, because no later transaction may fail for an earlier one.
#[fn_error_context::context("Looking for interrupted transactions")]
pub fn recover_locked(lock: &WriteLock<'_>, report: &dyn Report) -> Result<Vec<Recovered>> {
    let host = lock.host();
    let Some(records) = Records::open(host.path())? else {
        return Ok(Vec::new());
    };
    let mut recovered = Vec::new();
    let now: Vec<String> = host.deployments().iter().map(origin::id).collect();
    for record in records.read()? {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                report.warning(&format!("{error:#}."));
                continue;
            }
        };
        if !is_left_open(&record) {
            continue;
        }
        let verdict = judge(&record, &now);
        if let Verdict::Published { deployment, .. } = &verdict {
            remember(host, &record, deployment).unwrap_or_else(|error| {
                report.warning(&format!(
                    "The history lacks the deployment {deployment}: {error:#}."
                ));
            });
        }
        let found = describe(&record, &verdict);
        close(&records, &record, &found, &verdict)
            .with_context(|| format!("Closing the record of the transaction {}", record.number))?;
        report.warning(&format!("{}.", found.text));
        recovered.push(found);
    }
    if !recovered.is_empty() {
        checkpoint::reach("journal-recovered")?;
        if let Err(error) = prune::sweep(lock) {
            report.warning(&format!(
                "What the interruption left behind could not be removed: {error:#}."
            ));
        }
    }
    recovered.reverse();
    Ok(recovered)
}

/// Returns the last transaction that was interrupted, unless a later one succeeded.
///
/// Needs no lock. Without the right to read the records nothing is known, and nothing is returned.
pub fn last_interrupted(host: &Host) -> Result<Option<Recovered>> {
    let Some(records) = Records::open(host.path())? else {
        return Ok(None);
    };
    for record in records.read()? {
        let record = record?;
        match &record.finished {
            None if record.begun.process.is_alive() => {}
            None => {
                let now: Vec<String> = host.deployments().iter().map(origin::id).collect();
                return Ok(Some(describe(&record, &judge(&record, &now))));
            }
            Some(finished) => match finished.result {
                Ending::Done | Ending::Unchanged => return Ok(None),
                Ending::Failed | Ending::Cancelled => {}
                Ending::Interrupted => return Ok(Some(told(&record.begun, record.number, &finished.text))),
            },
        }
    }
    Ok(None)
}

/// Returns whether a transaction never ended; one whose process has given its lock back is about to.
fn is_left_open(record: &Record) -> bool {
    record.finished.is_none() && !record.begun.process.is_alive()
}

/// Compares what a record announced with the deployments there are now.
fn judge(record: &Record, now: &[String]) -> Verdict {
    let before = &record.begun.deployments;
    match &record.announced {
        Some(Line::Publishing { stateroot, to, .. }) => {
            let prefix = format!("{stateroot}-{}.", to.commit);
            let is_new = |id: &&String| id.starts_with(&prefix) && !before.contains(id);
            if let Some(deployment) = now.iter().find(is_new) {
                return Verdict::Published {
                    deployment: deployment.clone(),
                    boots_next: now.first() == Some(deployment),
                };
            }
        }
        Some(Line::Reordering { to, .. }) if to == now => return Verdict::Reordered,
        _ => {}
    }
    if now.first() == before.first() {
        Verdict::AsBefore
    } else {
        Verdict::ChangedSince
    }
}

fn describe(record: &Record, verdict: &Verdict) -> Recovered {
    let place = place(record.step.as_deref());
    let means = match verdict {
        Verdict::Published { boots_next: true, .. } => {
            "the new deployment was published before the interruption and boots next"
        }
        Verdict::Published {
            boots_next: false, ..
        } => "the new deployment was published before the interruption",
        Verdict::Reordered => "the boot order was changed before the interruption",
        Verdict::AsBefore => "what boots next is as it was before",
        Verdict::ChangedSince => "what boots next has changed since, as `apt-ostree status` shows",
    };
    let text = format!("`{}` was interrupted {place}; {means}", record.begun.verb);
    told(&record.begun, record.number, &text)
}

fn told(begun: &Begun, number: u64, text: &str) -> Recovered {
    Recovered {
        transaction: number,
        at: begun.at,
        verb: begun.verb.clone(),
        title: begun.title.clone(),
        text: text.to_owned(),
    }
}

/// Gives the history the deployment that was published and never got there.
fn remember(host: &Host, record: &Record, deployment: &str) -> Result<()> {
    let Some(Line::Publishing {
        at,
        stateroot,
        from,
        to,
    }) = &record.announced
    else {
        return Ok(());
    };
    if history::knows(host.path(), record.number, deployment)? {
        return Ok(());
    }
    history::write(
        host.path(),
        &host.deployments(),
        history::Entry {
            format: history::FORMAT,
            created: *at,
            transaction: Some(record.number),
            verb: Some(record.begun.verb.clone()),
            title: Some(record.begun.title.clone()),
            initiator: Some(record.begun.initiator.clone()),
            uid: Some(record.begun.uid),
            deployment: deployment.to_owned(),
            stateroot: stateroot.clone(),
            from: from.clone(),
            to: to.clone(),
        },
    )
}

fn close(records: &Records, record: &Record, found: &Recovered, verdict: &Verdict) -> Result<()> {
    let finished = Finished {
        at: clock::seconds(),
        result: Ending::Interrupted,
        text: found.text.clone(),
    };
    let entry = Entry {
        verb: record.begun.verb.clone(),
        title: record.begun.title.clone(),
        initiator: record.begun.initiator.clone(),
        uid: record.begun.uid,
    };
    let published = match verdict {
        Verdict::Published { deployment, .. } => Some(deployment.as_str()),
        _ => None,
    };
    let told = audit::tell(&audit::Audited {
        entry: &entry,
        number: Some(record.number),
        from: record.begun.deployments.first().map(String::as_str),
        to: published,
        announced: record.announced.as_ref(),
        step: record.step.as_deref(),
        finished: &finished,
        duration: None,
    });
    records.close(record.number, finished)?;
    told
}
