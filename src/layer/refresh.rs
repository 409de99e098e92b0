//! Fetching the indexes of the repositories: verified by apt, all of them or a fault that names the ones that failed.

use super::acquire::{self, Failure, Trouble};
use super::archive::{self, Archive, make_folder, write_if_other};
use super::places::Places;
use super::sources::without_login;
use crate::fault::{Fault, Kind};
use crate::report::Report;
use anyhow::Result;
use fn_error_context::context;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Indexes that are younger than this are not fetched again.
const YOUNG: Duration = Duration::from_secs(60 * 60);

/// The file in apt's folder that tells of which sources the indexes are, and by its time how old they are.
const STAMP: &str = "refreshed";

/// When to fetch the indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// When there are none, they are older than an hour, or the sources are others.
    IfOld,
    /// In any case.
    Always,
}

/// Removes the stored indexes of a stateroot and what apt made of them; returns whether there were any.
///
/// Waits for another process that works with them. The caller holds the sysroot's lock.
#[context("Removing the package lists")]
pub fn forget(places: &Places) -> Result<bool> {
    let lists = archive::lists_below(&places.cache());
    if !lists.exists() {
        return Ok(false);
    }
    let folder = archive::apt_below(&places.cache());
    let _lock = archive::lock(&folder)?;
    // The stamp first: without it, what an interruption leaves counts for nothing.
    for name in [STAMP, "pkgcache.bin", "srcpkgcache.bin"] {
        archive::remove_if_there(&folder.join(name))?;
    }
    std::fs::remove_dir_all(&lists)?;
    Ok(true)
}

impl Archive {
    /// Fetches the indexes when they are due and returns whether it did.
    ///
    /// Fails when one repository cannot be reached, or has no valid signature by a key that its source trusts;
    /// what was stored before stays in use then.
    #[context("Refreshing the package lists")]
    pub fn refresh(&self, how: Refresh, report: &dyn Report) -> Result<bool> {
        for warning in &self.warnings {
            report.warning(warning);
        }
        if self.repositories.is_empty() || (how == Refresh::IfOld && self.is_fresh()) {
            return Ok(false);
        }
        let step = report.step("Refreshing the package lists");
        make_folder(&self.lists().join("partial"))?;
        let output = self
            .apt("apt-get")
            .args(["update", "-q", "-oAPT::Update::Error-Mode=any", acquire::OPTION])
            .output()?;
        let log = String::from_utf8_lossy(&output.stderr);
        let failures = acquire::failures(&log);
        // apt falls back to other forms of a file, so a failure alone means nothing; a bad signature always does.
        let refused = failures
            .iter()
            .any(|failure| failure.trouble == Trouble::Signature);
        if !output.status.success() || refused {
            return Err(self.blame(&failures, &acquire::errors(&log)).into());
        }
        write_if_other(&self.stamp(), self.identity.as_bytes(), 0o644)?;
        std::fs::File::open(self.stamp())?.set_modified(SystemTime::now())?;
        step.done("Refreshed the package lists");
        Ok(true)
    }

    /// Returns whether there are indexes of exactly these sources, however old.
    pub fn has_lists(&self) -> bool {
        self.repositories.is_empty()
            || std::fs::read(self.stamp()).is_ok_and(|known| known == self.identity.as_bytes())
    }

    fn is_fresh(&self) -> bool {
        let written = std::fs::metadata(self.stamp()).and_then(|state| state.modified());
        // A time in the future is no age.
        let young = written.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < YOUNG));
        young && self.has_lists()
    }

    fn stamp(&self) -> PathBuf {
        // Not beside the indexes: apt removes what it does not know there.
        archive::apt_below(&self.cache).join(STAMP)
    }

    /// Names each repository that failed, with the worst of its troubles.
    fn blame(&self, failures: &[Failure], errors: &str) -> Fault {
        let mut troubles: BTreeMap<String, (Trouble, String)> = BTreeMap::new();
        for (repository, failures) in self.by_repository(failures) {
            let missing = |end: &str| {
                failures
                    .iter()
                    .any(|failure| failure.trouble == Trouble::Missing && failure.uri.ends_with(end))
            };
            let unsigned = missing("/Release.gpg") && !missing("/Release");
            let worst = failures.iter().max_by_key(|failure| failure.trouble);
            let Some(worst) = worst else { continue };
            let found = if unsigned {
                (Trouble::Signature, "it is not signed".to_owned())
            } else {
                (worst.trouble, worst.message.clone())
            };
            troubles.insert(repository, found);
        }
        let Some(worst) = troubles.values().map(|(trouble, _)| *trouble).max() else {
            // No transfer failed: the content was refused (it is expired, or not what was signed).
            return Fault::new(Kind::Denied, format!("The package lists were refused: {errors}"))
                .hint("try again later; a mirror may be out of date or in the middle of an update");
        };
        let told: Vec<String> = troubles
            .iter()
            .map(|(repository, (trouble, message))| match trouble {
                Trouble::Network => format!("the repository {repository} cannot be reached ({message})"),
                Trouble::Missing => format!("{repository} is no repository ({message})"),
                Trouble::Login => format!("the repository {repository} refuses access ({message})"),
                Trouble::Signature => format!("the repository {repository} is not trusted: {message}"),
            })
            .collect();
        let text = told.join("; ");
        let text = text[..1].to_uppercase() + &text[1..];
        worst.advise(Fault::new(worst.kind(), text))
    }

    /// Sorts failures by the repository, `ADDRESS SUITE`, that their addresses lie below.
    fn by_repository<'a>(&self, failures: &'a [Failure]) -> BTreeMap<String, Vec<&'a Failure>> {
        let mut sorted: BTreeMap<String, Vec<&Failure>> = BTreeMap::new();
        for failure in failures {
            let uri = without_login(&failure.uri);
            let mut below = self.repositories.iter().filter(|(address, suite)| {
                let address = address.trim_end_matches('/');
                match suite.strip_suffix('/') {
                    Some(_) => uri.starts_with(address),
                    None => uri.starts_with(&format!("{address}/dists/{suite}/")),
                }
            });
            let name = below
                .next()
                .map_or_else(|| uri.clone(), |(address, suite)| format!("{address} {suite}"));
            sorted.entry(name).or_default().push(failure);
        }
        sorted
    }
}
