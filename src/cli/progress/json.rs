//! Progress for programs: each event as one line of JSON, as it comes.

use crate::report::Event;
use std::io::Write;

/// Writes an event; lines of several threads do not mix.
pub(super) fn write(event: &Event) {
    let line = serde_json::to_string(event).expect("an event has only text and numbers");
    // A closed standard error must not end an operation, and there is nowhere left to report it.
    drop(std::io::stderr().lock().write_all(format!("{line}\n").as_bytes()));
}
