//! `countme`: lets this host be counted once a week, without telling which one it is.
//!
//! ```text
//! <state>/countme.json   { "first-week": 2917, "last-week": 2921 }
//! ```
//!
//! What is sent is the address of the settings with what `query` makes, and nothing else: no id, no cookie. The
//! weeks begin on Monday, 00:00 UTC, everywhere.

use crate::config::Config;
use crate::host::durable;
use crate::layer::download;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

const NAME: &str = "countme.json";

/// Where the state is when the service manager names no other place.
pub const STATE: &str = "/var/lib/apt-ostree-countme";

/// What a counting host calls itself.
const AGENT: &str = concat!("apt-ostree/", env!("CARGO_PKG_VERSION"));

/// Seconds of a week.
const WEEK: u64 = 7 * 86400;

/// The first Monday after the epoch began, which was a Thursday.
const FIRST_MONDAY: u64 = 4 * 86400;

/// The ages in weeks from which on the next bucket counts: a week, a month, half a year.
const BUCKETS: [u64; 3] = [1, 4, 24];

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// The settings say no.
    Off,
    /// It was counted in this week before.
    Already,
    /// It was counted at this address.
    Now(String),
}

/// The weeks, counted from [`FIRST_MONDAY`] on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct State {
    /// In which it was counted first.
    first_week: u64,
    /// In which it was counted last.
    last_week: u64,
}

/// Counts the system at `root` if the settings there say so and it was not counted in the week of `now` (seconds since
/// 1970).
///
/// A failure leaves the state as it was, so that the next call tries again.
pub fn run(root: &Path, state: &Path, now: u64) -> Result<Counted> {
    let settings = Config::load(root)?.countme;
    if !settings.enabled {
        return Ok(Counted::Off);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(state)
        .with_context(|| format!("Making the folder {}", state.display()))?;
    let folder = File::open(state).with_context(|| format!("Opening {}", state.display()))?;
    let week = now.saturating_sub(FIRST_MONDAY) / WEEK;
    let before: Option<State> = durable::read(&folder, NAME)?
        .map(|bytes| serde_json::from_slice(&bytes).with_context(|| format!("{NAME} has another form")))
        .transpose()?;
    // A clock that was set back counts no week twice.
    if before.is_some_and(|before| before.last_week >= week) {
        return Ok(Counted::Already);
    }
    let first_week = before.map_or(week, |before| before.first_week);
    let release = std::fs::read_to_string(root.join("usr/lib/os-release"))
        .with_context(|| format!("Reading {}", root.join("usr/lib/os-release").display()))?;
    let separator = if settings.url.contains('?') { '&' } else { '?' };
    let uri = format!(
        "{}{separator}{}",
        settings.url,
        query(&release, week - first_week)
    );
    let answer = tempfile::tempdir().context("Making a temporary folder")?;
    download::fetch(&uri, &answer.path().join("answer"), Some(AGENT)).context("Being counted")?;
    let text = serde_json::to_vec(&State {
        first_week,
        last_week: week,
    })?;
    durable::replace(&folder, NAME, &text, 0o644)?;
    Ok(Counted::Now(uri))
}

/// Returns everything that is told about this host.
fn query(release: &str, weeks: u64) -> String {
    let field = |name: &str| {
        let line = release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\''])
    };
    let bucket = 1 + BUCKETS.iter().filter(|start| weeks >= **start).count();
    [
        ("os", field("ID")),
        ("version", field("VERSION_ID")),
        ("variant", field("VARIANT_ID")),
        ("arch", std::env::consts::ARCH),
        ("countme", &bucket.to_string()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| format!("{key}={}", escaped(value)))
    .collect::<Vec<_>>()
    .join("&")
}

/// Returns text as it may stand in a query.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_told_in_four_buckets() {
        for (weeks, bucket) in [(0, 1), (1, 2), (3, 2), (4, 3), (23, 3), (24, 4), (999, 4)] {
            let query = query("ID=debian\n", weeks);
            assert!(query.ends_with(&format!("&countme={bucket}")), "{weeks}: {query}");
        }
    }

    #[test]
    fn only_these_facts_are_told() {
        let release = "PRETTY_NAME=\"Ada's box\"\nID=debian\nVERSION_ID=\"13\"\nVARIANT_ID='my kiosk&x=1'\nBUILD_ID=7\n";
        let arch = std::env::consts::ARCH;
        assert_eq!(
            query(release, 0),
            format!("os=debian&version=13&variant=my%20kiosk%26x%3D1&arch={arch}&countme=1")
        );
        assert_eq!(query("", 0), format!("arch={arch}&countme=1"));
    }
}
