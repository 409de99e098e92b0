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
use std::sync::OnceLock;

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
    // What was at the last shutdown stays as it is, and a service asks often.
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    if !may_read_journal() {
        return Ok(None);
    }
    let found = of_journal()?;
    Ok(FOUND.get_or_init(|| found).clone())
}

/// Asks systemd's journal for what the unit wrote during the last boot.
fn of_journal() -> Result<Option<String>> {
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
fn of_lines(lines: &str) -> Result<Option<String>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What journald and systemd write: a line of the unit's process, and one about the unit.
    const LINE: &str = r#"{"_SYSTEMD_UNIT":"ostree-finalize-staged.service","_COMM":"ostree","_TRANSPORT":"stdout","PRIORITY":"6","MESSAGE":"error: Bootloader write config: No space left on device"}"#;
    const FAILED: &str = r#"{"_SYSTEMD_UNIT":"init.scope","UNIT":"ostree-finalize-staged.service","MESSAGE_ID":"d9b373ed55a64feb8242e02dbe79a49c","MESSAGE":"ostree-finalize-staged.service: Failed with result 'exit-code'."}"#;

    #[test]
    fn only_a_unit_that_failed_has_last_words() {
        assert_eq!(of_lines("").unwrap(), None);
        assert_eq!(of_lines(LINE).unwrap(), None);
        let words = "error: Bootloader write config: No space left on device";
        for lines in [[LINE, FAILED], [FAILED, LINE]] {
            assert_eq!(of_lines(&lines.join("\n")).unwrap().as_deref(), Some(words));
        }
        // Another unit's failure, and words that are no text.
        let other = FAILED.replace("\"UNIT\":\"ostree-", "\"UNIT\":\"other-");
        assert_eq!(of_lines(&format!("{LINE}\n{other}")).unwrap(), None);
        let bytes = r#"{"_SYSTEMD_UNIT":"ostree-finalize-staged.service","MESSAGE":[255,10]}"#;
        let found = of_lines(&format!("{LINE}\n{bytes}\n{FAILED}")).unwrap();
        assert_eq!(found.as_deref(), Some(words));
        let found = of_lines(FAILED).unwrap();
        assert_eq!(found.as_deref(), Some("ostree-finalize-staged.service failed"));
        assert!(of_lines("no JSON").is_err());
    }
}
