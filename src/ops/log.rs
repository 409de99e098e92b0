//! `log`: the deployments over time. Needs neither root nor the lock.

use crate::deployment::history::{self, Account};
use crate::deployment::sysroot::Host;
use anyhow::Result;
use serde::Serialize;

/// What happened to a sysroot.
#[derive(Clone, Debug, Serialize)]
pub struct Log {
    /// What happened, the newest first.
    pub entries: Vec<Account>,
    /// Sentences about what could not be read; empty where all of it could.
    pub problems: Vec<String>,
}

/// Reads what happened: in one stateroot where one is named, and no more than the latest `limit`.
///
/// Of a transaction without a deployment it is not known in which stateroot it was, so it is always told.
pub fn run(host: &Host, stateroot: Option<&str>, limit: Option<usize>) -> Result<Log> {
    let (mut entries, problems) = history::account(host)?;
    if let Some(stateroot) = stateroot {
        entries.retain(|entry| entry.stateroot.as_deref().is_none_or(|other| other == stateroot));
    }
    if let Some(limit) = limit {
        entries.truncate(limit);
    }
    Ok(Log { entries, problems })
}
