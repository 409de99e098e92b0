//! A transaction in the journal: who began it, each step, and what came of it.

use crate::deployment::journal::{Ending, Entry, Journal};
use crate::host::interrupt::LastWords;
use crate::ops::Outcome;
use crate::ops::request::Initiator;
use crate::report::Report;
use anyhow::Result;

/// Runs `action` with a journal and with the events it is to send, and records what comes of it.
///
/// What cannot be recorded at the end is a warning: what was done stays done.
pub(super) fn recorded(
    verb: &str,
    initiator: &Initiator,
    report: &dyn Report,
    action: impl FnOnce(&Journal, &dyn Report) -> Result<Outcome>,
) -> Result<Outcome> {
    let journal = Journal::new(Entry {
        verb: verb.to_owned(),
        title: initiator.title.clone(),
        initiator: match &initiator.user {
            Some(user) => format!("{user} {initiator}"),
            None => initiator.to_string(),
        },
        uid: initiator.uid,
    });
    let stopped = journal.clone();
    let last_words = LastWords::new(move |signal| {
        if let Err(error) = stopped.stop(signal) {
            tracing::warn!("the end of the transaction is not recorded: {error:#}");
        }
    })?;
    let outcome = action(&journal, &journal.recorder(report));
    drop(last_words);
    let ended = match &outcome {
        Ok(outcome) => {
            let (ending, text) = told(outcome);
            journal.finish(ending, &text)
        }
        Err(error) => journal.fail(error),
    };
    if let Err(error) = ended {
        report.warning(&format!("The end of the transaction is not recorded: {error:#}."));
    }
    outcome
}

/// Returns what came of it in a word and in a sentence.
fn told(outcome: &Outcome) -> (Ending, String) {
    match outcome {
        Outcome::Unchanged(why) => (Ending::Unchanged, why.clone()),
        Outcome::Planned(_) => (Ending::Unchanged, "Only a plan was asked for.".to_owned()),
        Outcome::Applied(None) => (
            Ending::Unchanged,
            "The running system is what was asked for.".to_owned(),
        ),
        Outcome::Changed(what) => (Ending::Done, what.clone()),
        Outcome::Downloaded { image, .. } => (
            Ending::Done,
            format!("The image {} is stored.", image.manifest_digest),
        ),
        Outcome::Published { reference, .. } => {
            (Ending::Done, format!("A deployment of {reference} boots next."))
        }
        Outcome::Applied(Some(applied)) => (
            Ending::Done,
            format!(
                "The running system was brought to the commit {}.",
                applied.plan.to
            ),
        ),
        Outcome::Pulled(pulled) => (
            Ending::Done,
            format!("The image {} is stored.", pulled.image.manifest_digest),
        ),
        Outcome::Freed(freed) => (
            Ending::Done,
            format!("Removed {} images and {} layers.", freed.images, freed.layers),
        ),
        Outcome::Checked(checkup) if checkup.mended() == 0 => (Ending::Unchanged, checkup.conclusion()),
        Outcome::Checked(checkup) => (Ending::Done, checkup.conclusion()),
    }
}
