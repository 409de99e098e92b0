//! `initramfs-etc`: files of the host's `/etc` that the initramfs gets.

use crate::deployment::advance;
use crate::deployment::origin::Origin;
use crate::deployment::overlay_initrd;
use crate::deployment::prune;
use crate::deployment::staging::{self, NewDeployment};
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::ops::{Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use ostree_ext::ostree;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What to change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Paths below `/etc` to add.
    pub track: Vec<String>,
    /// Paths to leave out again.
    pub untrack: Vec<String>,
    /// Leave out all that were added before.
    pub untrack_all: bool,
    /// Make a new deployment with the files as they are now, even when the list stays the same.
    pub force_sync: bool,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
    /// Stage it locked.
    pub lock_finalization: bool,
    /// Reboot when something changed.
    pub reboot: bool,
}

/// Returns the files that the next boot's initramfs gets. Needs neither root nor the lock.
pub fn show(host: &Host, stateroot: Option<&str>) -> Result<BTreeSet<String>> {
    let merge = current(host, &host.stateroot(stateroot)?)?;
    Ok(Origin::of(&merge)?.intent()?.initramfs_etc)
}

/// Makes a deployment of the same commit boot next whose initramfs has other files, or the same ones as they are now.
///
/// Fails when a file is not below `/etc`, is missing, or was to be untracked and is not tracked; and while the
/// initramfs is made on this host, which takes files of `/etc` itself.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let lock = host.lock("initramfs-etc", options.target.patience(), report)?;
    let stateroot = host.stateroot(options.target.stateroot.as_deref())?;
    let merge = current(host, &stateroot)?;
    let origin = Origin::of(&merge)?;
    let mut intent = origin.intent()?;
    let before = intent.initramfs_etc.clone();
    change(&mut intent.initramfs_etc, options)?;
    if intent.regenerate_initramfs && !intent.initramfs_etc.is_empty() {
        return Err(Fault::new(
            Kind::Unsupported,
            "Files of /etc cannot be tracked while the initramfs is made on this host",
        )
        .hint("turn that off with `apt-ostree initramfs --disable`")
        .into());
    }
    let unneeded = intent.initramfs_etc.is_empty() || !options.force_sync;
    if intent.initramfs_etc == before && unneeded {
        return Ok(Outcome::Unchanged("No changes.".to_owned()));
    }
    origin.set_intent(&intent);
    prune::protect(&lock)?;
    staging::publish(
        &lock,
        &NewDeployment {
            stateroot: &stateroot,
            commit: &merge.csum(),
            origin: &origin,
            merge: Some(&merge),
            kernel_arguments: &staging::current_arguments(&merge),
            lock_finalization: options.lock_finalization,
        },
        report,
    )?;
    advance::clean(&lock, report);
    Ok(Outcome::Changed(match intent.initramfs_etc.len() {
        0 => "The initramfs of the next boot gets no files of /etc.".to_owned(),
        _ => {
            let list: Vec<String> = intent.initramfs_etc.into_iter().collect();
            format!("The initramfs of the next boot gets: {}", list.join(" "))
        }
    }))
}

fn change(tracked: &mut BTreeSet<String>, options: &Options) -> Result<(), Fault> {
    if options.untrack_all {
        tracked.clear();
    }
    for path in &options.untrack {
        if !tracked.remove(path) {
            return Err(
                Fault::new(Kind::NotFound, format!("The file {path} is not tracked"))
                    .hint("see what is tracked with `apt-ostree initramfs-etc`"),
            );
        }
    }
    for path in &options.track {
        overlay_initrd::below_etc(path)?;
        tracked.insert(path.clone());
    }
    Ok(())
}

fn current(host: &Host, stateroot: &str) -> Result<ostree::Deployment> {
    host.merge_deployment(stateroot).ok_or_else(|| {
        Fault::new(
            Kind::NotFound,
            format!("The stateroot `{stateroot}` has no deployment"),
        )
        .into()
    })
}
