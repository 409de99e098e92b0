//! Whether the last shutdown failed to apply the staged deployment.
//!
//! libostree writes why into a file on `/boot`, which `ostree-boot-complete.service` takes away at the next boot; what
//! stays is what the unit that failed wrote to systemd's journal. Both are looked at.

use crate::deployment::sysroot::Host;
use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs::File;
use std::path::Path;

/// The unit that applies a staged deployment at shutdown.
pub const UNIT: &str = "ostree-finalize-staged.service";

/// Where libostree writes why it could not, below the root.
const STAMP: &str = "boot/ostree/finalize-failure.stamp";

/// systemd's message that a unit entered the state `failed`.
const UNIT_FAILED: &str = "d9b373ed55a64feb8242e02dbe79a49c";

/// Where the journal of this machine is kept.
const JOURNAL: &str = "/var/log/journal";

/// Returns why the last shutdown could not apply the staged deployment; nothing where it did or had none.
///
/// Nothing is known of a sysroot this machine did not boot from, nor by a user who may not read the journal.
pub fn failure(host: &Host) -> Result<Option<String>> {
    if host.booted().is_none() {
        return Ok(None);
    }
    if let Ok(text) = std::fs::read_to_string(host.path().join(STAMP)) {
        return Ok(Some(text.trim().to_owned()));
    }
    if !may_read_journal() {
        return Ok(None);
    }
    let lines = Cmd::new("journalctl")
        .args(["--quiet", "--boot=-1", "--output=json", "--unit", UNIT])
        .run_text();
    match lines {
        Ok(lines) => of_lines(&lines),
        // The journal may go back to this boot only.
        Err(error) => {
            tracing::debug!("looking for a failed finalization: {error:#}");
            Ok(None)
        }
    }
}

/// Returns the last words of the unit in journal entries, one JSON object a line, if it failed.
pub fn of_lines(lines: &str) -> Result<Option<String>> {
    let mut failed = false;
    let mut words = None;
    for line in lines.lines() {
        let entry: Entry = serde_json::from_str(line).context("Reading the journal")?;
        if entry.message_id.as_deref() == Some(UNIT_FAILED) && entry.unit.as_deref() == Some(UNIT) {
            failed = true;
        } else if entry.source.as_deref() == Some(UNIT) {
            words = entry.message.as_str().map(str::to_owned).or(words);
        }
    }
    Ok(failed.then(|| words.unwrap_or_else(|| format!("{UNIT} failed"))))
}

#[derive(Deserialize)]
struct Entry {
    /// Text, or a list of bytes where it is none.
    #[serde(rename = "MESSAGE", default)]
    message: serde_json::Value,
    #[serde(rename = "MESSAGE_ID")]
    message_id: Option<String>,
    /// The unit that systemd speaks of.
    #[serde(rename = "UNIT")]
    unit: Option<String>,
    /// The unit whose process speaks.
    #[serde(rename = "_SYSTEMD_UNIT")]
    source: Option<String>,
}

fn may_read_journal() -> bool {
    let Ok(machine) = std::fs::read_to_string("/etc/machine-id") else {
        return false;
    };
    let folder = Path::new(JOURNAL).join(machine.trim());
    File::open(folder.join("system.journal")).is_ok()
}
