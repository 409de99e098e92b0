//! The error a person or a program can act on.
//!
//! Everything else is an `anyhow` chain. A [`Fault`] names the thing, the reason and the next step; `cli` maps
//! its [`Kind`] to an exit status, and nothing decides by the text of a message.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What sort of trouble a [`Fault`] is, for callers that must tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The request itself makes no sense; nothing was looked at.
    Usage,
    /// The caller lacks a right, or a signature policy refuses.
    Denied,
    /// Somebody else holds what is needed; trying again later helps.
    Busy,
    /// The thing asked for does not exist.
    NotFound,
    /// A registry or the network does not answer, or broke off; trying again later may help.
    Unreachable,
    /// The thing exists and this host or program cannot use it.
    Unsupported,
    /// Data broke its own specification: a corrupt layer, a bad file.
    Invalid,
    /// Not enough space on a file system.
    NoSpace,
    /// A signal or a cancelled transaction stopped the work.
    Cancelled,
}

/// A user-visible error: one sentence naming the thing and the reason, and the next step where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What sort of trouble it is.
    pub kind: Kind,
    /// One sentence without a full stop that names the thing and the reason.
    pub message: String,
    /// What to do next, normally a command; printed behind `hint:`.
    pub hint: Option<String>,
    /// What is at fault, each by a name that a command takes; empty where that is no list of things.
    pub names: Vec<String>,
}

impl Fault {
    /// Returns a fault without a hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            names: Vec::new(),
        }
    }

    /// Adds the names of what is at fault.
    #[must_use]
    pub fn about(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.names.extend(names.into_iter().map(Into::into));
        self
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the fault within an error chain, if there is one.
    pub fn find(error: &anyhow::Error) -> Option<&Self> {
        error.chain().find_map(|cause| cause.downcast_ref::<Self>())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
