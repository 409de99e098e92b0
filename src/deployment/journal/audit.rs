//! What systemd's journal is told of a finished transaction: who, what, from where to where, and what came of it.
//!
//! `journalctl MESSAGE_ID=f49cadbab6874234abb6dff49eb1dab2` lists all of them.

use super::Entry;
use super::record::{Ending, Finished, Line};
use crate::host::journald;
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

/// Marks the entries of finished transactions; never changes.
pub(super) const MESSAGE_ID: &str = "f49cadbab6874234abb6dff49eb1dab2";

/// A finished transaction.
#[derive(Clone, Debug)]
pub(super) struct Audited<'a> {
    pub(super) entry: &'a Entry,
    pub(super) number: Option<u64>,
    pub(super) from: Option<&'a str>,
    pub(super) to: Option<&'a str>,
    pub(super) announced: Option<&'a Line>,
    pub(super) step: Option<&'a str>,
    pub(super) finished: &'a Finished,
    pub(super) duration: Option<Duration>,
}

/// Tells the journal of this machine, where there is one.
pub(super) fn tell(audited: &Audited<'_>) -> Result<()> {
    journald::send(Path::new(journald::SOCKET), &fields(audited))
}

fn fields(audited: &Audited<'_>) -> Vec<(&'static str, String)> {
    let Audited { entry, finished, .. } = audited;
    let word = finished.result.word();
    let priority = match finished.result {
        Ending::Done => "5",
        Ending::Unchanged => "6",
        Ending::Failed | Ending::Cancelled | Ending::Interrupted => "4",
    };
    let mut fields = vec![
        (
            "MESSAGE",
            format!(
                "{} for {} (uid {}): {word}: {}",
                entry.verb, entry.initiator, entry.uid, finished.text
            ),
        ),
        ("MESSAGE_ID", MESSAGE_ID.to_owned()),
        ("PRIORITY", priority.to_owned()),
        ("SYSLOG_IDENTIFIER", "apt-ostree".to_owned()),
        ("APT_OSTREE_VERB", entry.verb.clone()),
        ("APT_OSTREE_TITLE", entry.title.clone()),
        ("APT_OSTREE_INITIATOR", entry.initiator.clone()),
        ("APT_OSTREE_UID", entry.uid.to_string()),
        ("APT_OSTREE_RESULT", word.to_owned()),
    ];
    let mut add = |name, value: Option<String>| {
        if let Some(value) = value {
            fields.push((name, value));
        }
    };
    let reordered = match audited.announced {
        Some(Line::Reordering { to, .. }) => to.first().cloned(),
        _ => None,
    };
    let ended = finished.result == Ending::Done;
    add(
        "APT_OSTREE_TRANSACTION",
        audited.number.map(|number| number.to_string()),
    );
    add("APT_OSTREE_FROM", audited.from.map(str::to_owned));
    add(
        "APT_OSTREE_TO",
        audited.to.map(str::to_owned).or(reordered.filter(|_| ended)),
    );
    if let Some(Line::Publishing { to, .. }) = audited.announced {
        add("APT_OSTREE_TO_COMMIT", Some(to.commit.clone()));
        add("APT_OSTREE_TO_IMAGE", to.image.clone());
        add("APT_OSTREE_TO_DIGEST", to.digest.clone());
        add("APT_OSTREE_TO_VERSION", to.version.clone());
    }
    add(
        "APT_OSTREE_STEP",
        audited.step.filter(|_| !ended).map(str::to_owned),
    );
    add(
        "APT_OSTREE_DURATION",
        audited.duration.map(|took| format!("{:.3}", took.as_secs_f64())),
    );
    fields
}
