//! The boots of each deployment, noted while the machine starts: without the lock, which an update may hold then.

use super::{Facts, KEPT};
use crate::deployment::journal::{open_to_read, shared_folder};
use crate::deployment::live;
use crate::deployment::origin;
use crate::deployment::sysroot::{Host, Patience};
use crate::fault::{Fault, Kind};
use crate::host::{clock, durable, process};
use crate::report::Silent;
use anyhow::{Context, Result};
use ostree_ext::ostree;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

/// The version of [`Boots`]; a file of a later one is left alone.
const FORMAT: u32 = 1;

/// How many boots of a deployment are remembered one by one.
const REMEMBERED: usize = 100;

const FOLDER: &str = "boots";
const SUFFIX: &str = ".json";

/// The boots of one deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Boots {
    /// The version of the format.
    pub format: u32,
    /// The deployment.
    pub deployment: String,
    /// Its stateroot.
    pub stateroot: String,
    /// What it consists of: for a deployment that other programs made this is all there is.
    pub facts: Facts,
    /// How many boots were forgotten: only the latest are remembered one by one.
    #[serde(default)]
    pub forgotten: u64,
    /// The boots, the oldest first.
    pub boots: Vec<Boot>,
}

/// One boot of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Boot {
    /// The kernel's id of the boot.
    pub id: String,
    /// When it was noted, in seconds since 1970.
    pub at: u64,
    /// The release of the kernel.
    pub kernel: String,
}

/// Notes this boot of the deployment the machine runs from; returns whether it was new.
///
/// Fails on a sysroot that this machine did not boot from.
pub fn record_this_boot(host: &Host) -> Result<bool> {
    let booted = live::require_booted(host, "record-boot")?;
    // libostree makes the sysroot writable in this mount namespace before it looks whether the lock is free, and more
    // is not needed here.
    let _lock = match host.acquire("record-boot", Patience::Fail, &Silent) {
        Ok(lock) => Some(lock),
        Err(error) if Fault::find(&error).is_some_and(|fault| fault.kind == Kind::Busy) => None,
        Err(error) => return Err(error),
    };
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("Reading the kernel's release")?;
    let boot = Boot {
        id: process::boot_id()?,
        at: clock::seconds(),
        kernel: release.trim().to_owned(),
    };
    record_boot(host, &booted, boot)
}

/// Notes a boot of a deployment; noting the same boot again changes nothing. Returns whether it was new.
///
/// The caller may write to the sysroot, and is alone: it runs once while the machine starts.
#[fn_error_context::context("Noting the boot")]
pub fn record_boot(host: &Host, deployment: &ostree::Deployment, boot: Boot) -> Result<bool> {
    let folder = durable::folder(shared_folder(host.path())?, FOLDER, 0o755)?;
    let id = origin::id(deployment);
    let name = format!("{id}{SUFFIX}");
    let mut known = match load(&folder, &name)? {
        Some(known) => known,
        None => Boots {
            format: FORMAT,
            stateroot: deployment.osname().to_string(),
            facts: Facts::of_deployment(host, deployment),
            deployment: id,
            ..Boots::default()
        },
    };
    if known.boots.iter().any(|other| other.id == boot.id) {
        return Ok(false);
    }
    known.boots.push(boot);
    let surplus = known.boots.len().saturating_sub(REMEMBERED);
    known.boots.drain(..surplus);
    known.forgotten += surplus as u64;
    let mut text = serde_json::to_vec_pretty(&known)?;
    text.push(b'\n');
    durable::replace(&folder, &name, &text, 0o644)?;
    Ok(true)
}

/// Returns the boots of every deployment, by its id, and a sentence for each file that cannot be read.
pub(super) fn read(sysroot: &Path) -> Result<(BTreeMap<String, Boots>, Vec<String>)> {
    let path = sysroot.join("ostree/apt-ostree").join(FOLDER);
    let (mut all, mut problems) = (BTreeMap::new(), Vec::new());
    let Some(folder) = open_to_read(&path)? else {
        return Ok((all, problems));
    };
    for name in durable::names(&folder, SUFFIX)? {
        match load(&folder, &name) {
            Ok(Some(boots)) => drop(all.insert(boots.deployment.clone(), boots)),
            Ok(None) => {}
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    Ok((all, problems))
}

/// Forgets the boots of deployments that the history has forgotten.
pub(super) fn forget(shared: impl AsFd, deployments: &[String]) -> Result<()> {
    let folder = durable::folder(shared, FOLDER, 0o755)?;
    for id in deployments {
        durable::remove(&folder, &format!("{id}{SUFFIX}"))?;
    }
    Ok(())
}

/// Forgets the deployments of other programs that were booted longest ago, beyond as many as the history keeps.
pub(super) fn prune(shared: impl AsFd, present: &[String]) -> Result<()> {
    let folder = durable::folder(shared, FOLDER, 0o755)?;
    let mut gone = Vec::new();
    for name in durable::names(&folder, SUFFIX)? {
        let is_present = name
            .strip_suffix(SUFFIX)
            .is_some_and(|id| present.iter().any(|other| other == id));
        if is_present {
            continue;
        }
        // What cannot be read is of no use, and the first to go.
        let last = load(&folder, &name)
            .ok()
            .flatten()
            .and_then(|boots| boots.boots.last().map(|boot| boot.at));
        gone.push((last, name));
    }
    gone.sort();
    let surplus = gone.len().saturating_sub(KEPT);
    for (_, name) in gone.drain(..surplus) {
        durable::remove(&folder, &name)?;
    }
    Ok(())
}

fn load(folder: impl AsFd, name: &str) -> Result<Option<Boots>> {
    let reading = || format!("Reading the boots of {}", name.trim_end_matches(SUFFIX));
    let Some(bytes) = durable::read(folder, name).with_context(reading)? else {
        return Ok(None);
    };
    let boots: Boots = serde_json::from_slice(&bytes).with_context(reading)?;
    anyhow::ensure!(
        boots.format <= FORMAT,
        "{name} was written by a later version of this program"
    );
    Ok(Some(boots))
}
