//! The history of a sysroot: which deployments there were, who made them and how, and how often each was booted.
//!
//! ```text
//! <sysroot>/ostree/apt-ostree/    0755, readable by everyone
//!     history/000007.json         a deployment that was published; written once, by whoever holds the lock
//!     boots/<deployment>.json     the boots of a deployment; written at boot alone
//! ```
//!
//! A deployment is known by `STATEROOT-CHECKSUM.SERIAL`. The same id can come again once the first deployment of it is
//! gone; its boots are told apart by their times.

mod account;
mod boots;

pub use account::{Account, State, account};
pub use boots::{Boot, Boots, record_boot, record_this_boot};

use crate::deployment::journal::{open_to_read, shared_folder};
use crate::deployment::origin::{self, Origin};
use crate::deployment::sysroot::Host;
use crate::host::durable;
use crate::image::store;
use crate::layer::record;
use anyhow::{Context, Result};
use ostree_ext::ostree;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;
use std::path::Path;

/// The version of [`Entry`]; one of a later version is passed over.
pub const FORMAT: u32 = 1;

/// How many deployments are remembered; those that exist stay beyond that.
pub const KEPT: usize = 200;

const FOLDER: &str = "history";
const SUFFIX: &str = ".json";

/// What a deployment consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// Its commit.
    pub commit: String,
    /// The image it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The digest of the image's manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The version the image states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The packages that were asked for on top of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
}

/// A deployment that was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// When it was published, in seconds since 1970.
    pub created: u64,
    /// The number of the transaction that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<u64>,
    /// The verb that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// The command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who asked, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    /// The user id of who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The deployment.
    pub deployment: String,
    /// Its stateroot.
    pub stateroot: String,
    /// The deployment it continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it consists of.
    pub to: Facts,
}

impl Facts {
    /// Returns what is known of a commit and of the origin that goes with it; what cannot be read is left out.
    pub fn of(repo: &ostree::Repo, commit: &str, origin: Option<&Origin>) -> Self {
        let image = store::query_commit(repo, commit).ok();
        let layers = record::read(repo, commit).ok().flatten().unwrap_or_default();
        Self {
            commit: commit.to_owned(),
            image: origin
                .and_then(|origin| origin.reference().ok().flatten())
                .map(|reference| reference.to_string()),
            digest: image.as_ref().map(|image| image.manifest_digest.clone()),
            version: image.as_ref().and_then(store::StoredImage::version),
            packages: layers
                .packages
                .into_iter()
                .filter(|package| package.requested)
                .map(|package| package.id.name)
                .collect(),
        }
    }

    /// Returns what is known of a deployment.
    pub fn of_deployment(host: &Host, deployment: &ostree::Deployment) -> Self {
        let origin = Origin::of(deployment).ok();
        Self::of(&host.repo(), &deployment.csum(), origin.as_ref())
    }
}

/// Remembers a deployment that was published, and forgets the oldest ones beyond [`KEPT`] that are gone.
///
/// The caller holds the sysroot's lock; `present` are the deployments there are.
#[fn_error_context::context("Writing the history")]
pub(super) fn write(sysroot: &Path, present: &[ostree::Deployment], entry: Entry) -> Result<()> {
    let shared = shared_folder(sysroot)?;
    let folder = durable::folder(&shared, FOLDER, 0o755)?;
    let numbers = numbers(&folder)?;
    let number = numbers.last().map_or(1, |last| last + 1);
    let mut text = serde_json::to_vec_pretty(&entry)?;
    text.push(b'\n');
    durable::replace(&folder, &format!("{number:06}{SUFFIX}"), &text, 0o644)?;
    let present: Vec<String> = present.iter().map(origin::id).chain([entry.deployment]).collect();
    let mut forgotten = Vec::new();
    for number in numbers.iter().rev().skip(KEPT - 1) {
        let name = format!("{number:06}{SUFFIX}");
        // What cannot be read is of no use.
        let deployment = load(&folder, &name).ok().flatten().map(|entry| entry.deployment);
        if deployment.as_ref().is_some_and(|id| present.contains(id)) {
            continue;
        }
        durable::remove(&folder, &name)?;
        forgotten.extend(deployment);
    }
    if !forgotten.is_empty() {
        let (kept, _) = read(sysroot)?;
        forgotten.retain(|id| kept.iter().all(|entry| entry.deployment != *id));
    }
    boots::forget(&shared, &forgotten)?;
    boots::prune(&shared, &present)
}

/// Returns what is remembered, the newest first, and a sentence for each entry that cannot be read.
pub fn read(sysroot: &Path) -> Result<(Vec<Entry>, Vec<String>)> {
    let path = sysroot.join("ostree/apt-ostree").join(FOLDER);
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    let Some(folder) = open_to_read(&path)? else {
        return Ok((entries, problems));
    };
    for number in numbers(&folder)?.into_iter().rev() {
        match load(&folder, &format!("{number:06}{SUFFIX}")) {
            Ok(entry) => entries.extend(entry),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    Ok((entries, problems))
}

/// Returns whether the history has the deployment that a transaction made.
pub(super) fn knows(sysroot: &Path, transaction: u64, deployment: &str) -> Result<bool> {
    let (entries, _) = read(sysroot)?;
    Ok(entries
        .iter()
        .any(|entry| entry.transaction == Some(transaction) && entry.deployment == deployment))
}

fn load(folder: impl AsFd, name: &str) -> Result<Option<Entry>> {
    let reading = || format!("Reading the entry {name} of the history");
    let Some(bytes) = durable::read(folder, name).with_context(reading)? else {
        return Ok(None);
    };
    let value: serde_json::Value = serde_json::from_slice(&bytes).with_context(reading)?;
    if value["format"]
        .as_u64()
        .is_some_and(|format| format > u64::from(FORMAT))
    {
        return Ok(None);
    }
    serde_json::from_value(value).map(Some).with_context(reading)
}

fn numbers(folder: impl AsFd) -> Result<Vec<u64>> {
    let names = durable::names(folder, SUFFIX)?;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}
