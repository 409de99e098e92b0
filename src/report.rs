//! Typed progress events: what an operation tells its watcher while it runs.
//!
//! The library never prints. Whoever starts an operation hands it a [`Report`]: the command line renders bars,
//! plain lines or JSON, tests record.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One thing worth telling while an operation runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// A step of the operation begins; the text is a gerund phrase such as `Importing layers`.
    Step {
        /// What begins.
        text: String,
    },
    /// A fact worth one line.
    Note {
        /// A full sentence.
        text: String,
    },
    /// Something the user should look at; the operation goes on.
    Warning {
        /// A full sentence.
        text: String,
    },
    /// Bytes of one item, for example of a layer.
    Bytes {
        /// What is transferred, for example a layer digest.
        item: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// One of many equal things was done, for example a package set up.
    Count {
        /// What is done now, for example `Setting up nginx`.
        text: String,
        /// Things done so far.
        done: u64,
        /// Things in all.
        total: u64,
    },
    /// How long a finished step took; for programs, not for people.
    Timing {
        /// The step.
        step: String,
        /// Thousandths of a second.
        milliseconds: u64,
    },
}

/// Receives the events of an operation, from any of its threads.
pub trait Report: Send + Sync {
    /// Takes one event; must not block for long.
    fn event(&self, event: Event);

    /// Reports that a step begins.
    fn step(&self, text: &str) {
        self.event(Event::Step {
            text: text.to_owned(),
        });
    }

    /// Reports a fact.
    fn note(&self, text: &str) {
        self.event(Event::Note {
            text: text.to_owned(),
        });
    }

    /// Reports how long a finished step took.
    fn timing(&self, step: &str, took: Duration) {
        self.event(Event::Timing {
            step: step.to_owned(),
            milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
    }

    /// Reports something the user should look at.
    fn warning(&self, text: &str) {
        self.event(Event::Warning {
            text: text.to_owned(),
        });
    }
}

/// Drops every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Report for Silent {
    fn event(&self, _event: Event) {}
}
