//! `fsck`: whether a sysroot is what it should be, and mending what is not.
//!
//! Looking needs neither root nor the lock and writes nothing; what the caller may not read is said. It works on a
//! sysroot that libostree refuses to load. Mending looks, does what the findings ask for, and looks again, until
//! nothing more changes: what counts as mended was seen to be mended.
//!
//! One file looks at one subject: objects, refs, deployments (and their content), origins, boot entries, dpkg's
//! database, leftovers.

mod census;
mod checkout;
mod database;
mod deployments;
mod entries;
mod entry_repair;
mod finding;
mod images;
mod leftovers;
mod mend;
mod objects;
mod origins;
mod refs;
mod site;

pub use finding::{Checked, Finding, Severity};

use crate::deployment::sysroot::Host;
use crate::ops::{Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use finding::Findings;
use serde::{Deserialize, Serialize};
use site::Site;
use std::path::Path;

/// Rounds of mending; what was mended may show what lay behind it, such as a file behind its object.
const ROUNDS: usize = 4;

/// What to look at, and how patient to be with another writer when mending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Do not read the content of files and packages.
    pub quick: bool,
    /// Where to work and how long to wait.
    #[serde(flatten)]
    pub target: Target,
}

/// What was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Checkup {
    /// Everything that was found, the worst first; also what is mended by now.
    pub findings: Vec<Finding>,
    /// How much was looked at.
    pub checked: Checked,
}

impl Checkup {
    /// Returns whether no error and no warning is left; notes do not count.
    pub fn is_sound(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.mended || finding.severity == Severity::Note)
    }

    /// Returns how much was mended.
    pub fn mended(&self) -> usize {
        self.findings.iter().filter(|finding| finding.mended).count()
    }

    /// Returns what came of it in a sentence or two, with the next step.
    pub fn conclusion(&self) -> String {
        let left = || self.findings.iter().filter(|finding| !finding.mended);
        let mended = self.mended();
        if left().next().is_none() {
            return match mended {
                0 => "The sysroot is sound.".to_owned(),
                _ => format!("Everything was mended: {mended}."),
            };
        }
        let count = |severity: Severity| left().filter(|finding| finding.severity == severity).count();
        let mut text = format!(
            "Errors: {}, warnings: {}, notes: {}",
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Note)
        );
        if mended > 0 {
            text += &format!(", mended: {mended}");
        }
        match left().filter(|finding| finding.repairable).count() {
            0 => text + ".",
            // After a repair it failed, and the warnings say why.
            _ if mended > 0 => text + ".",
            repairable => format!("{text}. `apt-ostree fsck --repair` mends {repairable} of them."),
        }
    }
}

/// Looks at everything and writes nothing.
///
/// The sysroot is the one at `path`, or the booted one. Fails when there is none.
pub fn check(path: Option<&Path>, quick: bool, report: &dyn Report) -> Result<Checkup> {
    let host = Host::open_unloaded(path, "fsck", false)?;
    let (findings, checked) = look(&Site::read(&host)?, quick, report);
    Ok(Checkup { findings, checked })
}

/// Looks at everything and mends what can be mended.
///
/// `host` may be one that libostree has not loaded, or refuses to. What cannot be mended is told. Fails without the
/// lock.
pub fn repair(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let lock = host.lock_to_mend("fsck", options.target.patience(), report)?;
    let mut site = Site::read(host)?;
    let (mut left, checked) = look(&site, options.quick, report);
    let mut seen: Vec<Finding> = Vec::new();
    for _ in 0..ROUNDS {
        if left.iter().all(|finding| finding.remedy.is_none()) {
            break;
        }
        let step = report.step("Mending");
        mend::mend(&lock, &site, &left, report);
        step.done("Mended what could be mended");
        site = Site::read(host)?;
        let (now, _) = look(&site, options.quick, report);
        let is_stuck = things(&now) == things(&left);
        seen.append(&mut left);
        left = now;
        if is_stuck {
            break;
        }
    }
    let mut findings = left;
    for mut finding in seen {
        if !findings.iter().any(|known| known.thing == finding.thing) {
            finding.mended = true;
            findings.push(finding);
        }
    }
    findings.sort_by(|a, b| (a.severity, &a.code, &a.thing).cmp(&(b.severity, &b.code, &b.thing)));
    Ok(Outcome::Checked(Box::new(Checkup { findings, checked })))
}

fn things(findings: &[Finding]) -> Vec<(&str, &str)> {
    findings
        .iter()
        .map(|finding| (finding.code.as_str(), finding.thing.as_str()))
        .collect()
}

/// Looks at one subject after the other; one that cannot be looked at does not hide the rest.
fn look(site: &Site<'_>, quick: bool, report: &dyn Report) -> (Vec<Finding>, Checked) {
    let mut findings = Findings::default();
    type Look<'a> = dyn Fn(&mut Findings) -> Result<()> + 'a;
    let subjects: [(&'static str, &Look<'_>); 7] = [
        ("objects", &|findings| {
            objects::check(site, quick, report, findings)
        }),
        ("refs", &|findings| refs::check(site, findings)),
        ("deployments", &|findings| {
            deployments::check(site, quick, report, findings)
        }),
        ("origins", &|findings| origins::check(site, quick, findings)),
        ("boot entries", &|findings| entries::check(site, quick, findings)),
        ("package databases", &|findings| {
            database::check(site, quick, report, findings)
        }),
        ("leftovers", &|findings| leftovers::check(site, findings)),
    ];
    for (name, check) in subjects {
        if let Err(error) = check(&mut findings) {
            findings.failed(name, &error);
        }
    }
    findings.into_sorted()
}
