//! `cleanup`: drop deployments and what nothing needs any more.

use crate::deployment::forget;
use crate::deployment::prune;
use crate::deployment::staging;
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::image::gc::Scope;
use crate::layer::places::Places;
use crate::layer::refresh;
use crate::ops::{Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use ostree_ext::ostree;
use serde::{Deserialize, Serialize};

/// What to clean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Temporary files, refs and objects that nothing needs.
    pub base: bool,
    /// The deployment that would boot next, when it is not the booted one.
    pub pending: bool,
    /// The deployments behind the booted one.
    pub rollback: bool,
    /// The stored indexes of the repositories.
    pub repomd: bool,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
}

/// Drops what was asked for; the booted deployment and pinned ones always stay.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    if !(options.base || options.pending || options.rollback || options.repomd) {
        return Err(Fault::new(
            Kind::Usage,
            "At least one of --base, --pending, --rollback and --repomd must be given",
        )
        .into());
    }
    let lock = host.lock("cleanup", options.target.patience(), report)?;
    let stateroot = host.stateroot(options.target.stateroot.as_deref())?;
    let before = host.deployments();
    let marks: Vec<Mark> = before
        .iter()
        .map(|deployment| Mark {
            ours: deployment.osname() == stateroot,
            booted: host.booted().is_some_and(|booted| booted.equal(deployment)),
            pinned: deployment.is_pinned(),
        })
        .collect();
    let keep = kept(&marks, options);
    let after: Vec<ostree::Deployment> = before
        .iter()
        .zip(&keep)
        .filter(|(_, keep)| **keep)
        .map(|(deployment, _)| deployment.clone())
        .collect();
    let dropped = before.len() - after.len();
    if dropped > 0 {
        staging::reorder(&lock, &after)?;
    }
    if dropped > 0 || options.base {
        let freed = prune::clean(&lock, Scope::Everything)?;
        forget::forget_unused(&lock)?;
        report.note(&format!(
            "Removed {} images and {} layers ({} objects, {} bytes).",
            freed.images, freed.layers, freed.objects, freed.bytes
        ));
    }
    let mut done = Vec::new();
    if dropped > 0 {
        done.push(format!("Deployments removed: {dropped}"));
    }
    if options.repomd && refresh::forget(&Places::of(host.path(), &stateroot))? {
        done.push("The package lists are removed; they are fetched again when they are needed.".to_owned());
    }
    Ok(if done.is_empty() {
        Outcome::Unchanged("Deployments unchanged.".to_owned())
    } else {
        Outcome::Changed(done.join("\n"))
    })
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    ours: bool,
    booted: bool,
    pinned: bool,
}

/// Returns which deployments stay, in boot order.
///
/// Where nothing is booted from the sysroot, its first deployment of the stateroot takes the booted one's place.
fn kept(marks: &[Mark], options: &Options) -> Vec<bool> {
    let current = marks
        .iter()
        .position(|mark| mark.booted)
        .or_else(|| marks.iter().position(|mark| mark.ours))
        .unwrap_or(marks.len());
    marks
        .iter()
        .enumerate()
        .map(|(place, mark)| {
            let drop = mark.ours
                && !mark.booted
                && !mark.pinned
                && ((options.pending && place < current) || (options.rollback && place > current));
            !drop
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(text: &str) -> Mark {
        Mark {
            ours: !text.contains('f'),
            booted: text.contains('b'),
            pinned: text.contains('p'),
        }
    }

    #[test]
    fn only_what_was_asked_for_goes() {
        let pending = Options {
            pending: true,
            ..Options::default()
        };
        let rollback = Options {
            rollback: true,
            ..Options::default()
        };
        for (marks, options, expected) in [
            (&["o", "b", "o"][..], &pending, &[false, true, true][..]),
            (&["o", "b", "o"], &rollback, &[true, true, false]),
            (&["o", "b", "p", "o"], &rollback, &[true, true, true, false]),
            (&["f", "b", "f"], &rollback, &[true, true, true]),
            (&["o", "o"], &rollback, &[true, false]),
            (&["o", "o"], &pending, &[true, true]),
        ] {
            let marks: Vec<Mark> = marks.iter().map(|text| mark(text)).collect();
            assert_eq!(kept(&marks, options), expected, "{marks:?} {options:?}");
        }
    }
}
