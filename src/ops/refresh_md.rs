//! `refresh-md`: fetch the indexes of the repositories.

use crate::deployment::archive::View;
use crate::deployment::sysroot::Host;
use crate::layer::refresh::Refresh;
use crate::ops::{Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What to fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Also indexes that are less than an hour old.
    pub force: bool,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
}

/// Fetches the indexes of the repositories of the deployment that boots next; young ones only when asked.
///
/// Fails when a repository cannot be reached or is not trusted; the stored indexes stay in use then.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let _lock = host.lock("refresh-md", options.target.patience(), report)?;
    let archive = View::of(host, options.target.stateroot.as_deref())?.open()?;
    let how = if options.force {
        Refresh::Always
    } else {
        Refresh::IfOld
    };
    if archive.refresh(how, report)? {
        return Ok(Outcome::Changed("The package lists are fetched.".to_owned()));
    }
    let reason = if archive.repositories().is_empty() {
        "There are no repositories."
    } else {
        "The package lists are less than an hour old."
    };
    Ok(Outcome::Unchanged(reason.to_owned()))
}
