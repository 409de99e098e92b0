//! How a transaction ended, for its watchers.

use crate::fault::{Fault, Kind};
use crate::ops::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use zbus::zvariant::{OwnedValue, Str, Value};

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// What sort of trouble it is; none for an error that nobody can act on.
    pub(super) kind: Option<Kind>,
    /// The sentence with all it was doing.
    pub(super) message: String,
    /// What to do next.
    pub(super) hint: Option<String>,
    /// What is at fault.
    pub(super) names: Vec<String>,
}

impl From<&anyhow::Error> for Failure {
    fn from(error: &anyhow::Error) -> Self {
        let fault = Fault::find(error);
        Self {
            kind: fault.map(|fault| fault.kind),
            message: format!("{error:#}"),
            hint: fault.and_then(|fault| fault.hint.clone()),
            names: fault.map(|fault| fault.names.clone()).unwrap_or_default(),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self {
            kind: Some(fault.kind),
            message: fault.message,
            hint: fault.hint,
            names: fault.names,
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// The request was carried out.
    Done {
        /// What was done, as JSON.
        outcome: String,
        /// Whether the next boot is another one than before.
        changed: bool,
    },
    /// It was not.
    Failed(Failure),
}

impl Ended {
    /// Returns the end with this outcome.
    pub(super) fn with(outcome: &Outcome) -> Self {
        Self::Done {
            // An outcome is plain data, which always has a JSON form.
            outcome: serde_json::to_string(outcome).unwrap_or_default(),
            changed: matches!(outcome, Outcome::Published { .. } | Outcome::Changed(_)),
        }
    }

    /// Returns whether the request was carried out.
    pub(super) fn is_success(&self) -> bool {
        matches!(self, Self::Done { .. })
    }

    /// Returns why not; empty after a success.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Done { .. } => "",
            Self::Failed(failure) => &failure.message,
        }
    }

    /// Returns everything, by the names of the property `Result`.
    pub(super) fn fields(&self) -> HashMap<String, OwnedValue> {
        let text = |text: &str| OwnedValue::from(Str::from(text.to_owned()));
        let mut fields = HashMap::from([
            ("success".to_owned(), OwnedValue::from(self.is_success())),
            ("message".to_owned(), text(self.message())),
        ]);
        match self {
            Self::Done { outcome, .. } => {
                fields.insert("outcome".to_owned(), text(outcome));
            }
            Self::Failed(failure) => {
                fields.insert("kind".to_owned(), text(kind_name(failure.kind)));
                fields.insert("hint".to_owned(), text(failure.hint.as_deref().unwrap_or("")));
                let names = Value::from(failure.names.clone());
                // A list of strings holds no descriptor, the only thing that can fail to be copied.
                fields.extend(
                    names
                        .try_into_owned()
                        .ok()
                        .map(|names| ("names".to_owned(), names)),
                );
            }
        }
        fields
    }
}

/// Returns the word for a kind of fault; `failed` for an error that is none.
pub(super) fn kind_name(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Usage) => "usage",
        Some(Kind::Denied) => "denied",
        Some(Kind::Busy) => "busy",
        Some(Kind::NotFound) => "not-found",
        Some(Kind::Unreachable) => "unreachable",
        Some(Kind::Unsupported) => "unsupported",
        Some(Kind::Invalid) => "invalid",
        Some(Kind::NoSpace) => "no-space",
        Some(Kind::Cancelled) => "cancelled",
        None => "failed",
    }
}
