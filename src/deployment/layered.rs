//! What stands on top of an image, as `status` tells it.

use crate::image::store;
use crate::layer::intent::{Intent, LocalPackage};
use crate::layer::plan::PackageId;
use crate::layer::record::{self, Record};
use anyhow::Result;
use ostree_ext::ostree;
use serde::Serialize;
use std::collections::BTreeMap;

/// What stands on top of the image: the origin's requests, and the record of the derived commit.
///
/// Lists are there even when they are empty, as in rpm-ostree's JSON.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Layers {
    /// Requested packages that are layered, by name.
    pub packages: Vec<String>,
    /// Requests for packages from repositories.
    pub requested_packages: Vec<String>,
    /// Requests for packages from files, as `<sha256>:name_version_architecture`.
    pub requested_local_packages: Vec<String>,
    /// Requested removals from the image.
    pub requested_base_removals: Vec<String>,
    /// Requested replacements in the image by files.
    pub requested_base_local_replacements: Vec<String>,
    /// Requested replacements in the image from repositories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requested_base_remote_replacements: Vec<String>,
    /// Removals in force.
    pub base_removals: Vec<PackageId>,
    /// Replacements by files in force: the new package and the image's.
    pub base_local_replacements: Vec<(PackageId, PackageId)>,
    /// Replacements from repositories in force, by repository.
    pub base_remote_replacements: BTreeMap<String, Vec<(PackageId, PackageId)>>,
    /// Whether an initramfs is made on this host.
    pub regenerate_initramfs: bool,
    /// Arguments for dracut.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub initramfs_args: Vec<String>,
    /// Files of `/etc` that are added to the initramfs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub initramfs_etc: Vec<String>,
    /// Requests for packages that the image provides.
    pub inactive_requests: Vec<String>,
    /// Requested removals of what the image does not have.
    pub inactive_base_removals: Vec<String>,
    /// Requested replacements by files of what the image does not have, or has in that version.
    pub inactive_base_local_replacements: Vec<String>,
    /// The same from repositories.
    pub inactive_base_remote_replacements: Vec<String>,
    /// The commit of the image below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_checksum: Option<String>,
    /// The version of the image below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_version: Option<String>,
    /// The time of the image's commit, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_timestamp: Option<u64>,
    /// The record of the derived commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layered_commit_meta: Option<Record>,
}

impl Layers {
    /// Returns what is told of an intent and of what came of it; without a record nothing did.
    pub fn of(intent: &Intent, record: Option<&Record>) -> Self {
        let mut layers = Self::default();
        layers.request(intent);
        layers.result(intent, record);
        layers
    }

    fn request(&mut self, intent: &Intent) {
        self.requested_packages = texts(&intent.packages);
        self.requested_local_packages = texts(&intent.local_packages);
        self.requested_base_removals = texts(&intent.removals);
        self.requested_base_remote_replacements = texts(&intent.replacements);
        self.requested_base_local_replacements = texts(&intent.local_replacements);
        self.regenerate_initramfs = intent.regenerate_initramfs;
        self.initramfs_args.clone_from(&intent.initramfs_args);
        self.initramfs_etc = intent.initramfs_etc.iter().cloned().collect();
    }

    /// Returns what is told of an intent and of the commit that came of it.
    ///
    /// Fails when the commit, its record or its base cannot be read.
    pub fn read(repo: &ostree::Repo, commit: &str, intent: &Intent) -> Result<Self> {
        let record = record::read(repo, commit)?;
        let mut layers = Self::of(intent, record.as_ref());
        if record.is_none() {
            return Ok(layers);
        }
        layers.layered_commit_meta = record;
        let base = record::base_of(repo, commit)?;
        layers.base_version = store::query_commit(repo, &base)?.version();
        layers.base_timestamp = Some(ostree::commit_get_timestamp(&repo.load_commit(&base)?.0));
        layers.base_checksum = Some(base);
        Ok(layers)
    }

    fn result(&mut self, intent: &Intent, record: Option<&Record>) {
        let none = Record::default();
        let is_layered = record.is_some();
        let record = record.unwrap_or(&none);
        let dormant = |text: &str| !is_layered || record.dormant.iter().any(|idle| idle.request == text);
        let is_replaced = |name: &str| record.replaced.iter().any(|package| package.id.name == name);
        let is_removed = |name: &str| record.removed.iter().any(|package| package.name == name);
        let requests = intent.packages.iter().map(ToString::to_string);
        self.inactive_requests = requests.filter(|text| dormant(text)).collect();
        let local = intent.local_packages.iter();
        let local = local.filter(|package| dormant(&package.id()));
        self.inactive_requests.extend(local.map(LocalPackage::id));
        let removals = intent
            .removals
            .iter()
            .filter(|request| !is_removed(&request.name));
        self.inactive_base_removals = removals.map(ToString::to_string).collect();
        let local = intent
            .local_replacements
            .iter()
            .filter(|package| !is_replaced(&package.name));
        self.inactive_base_local_replacements = local.map(LocalPackage::id).collect();
        let remote = intent
            .replacements
            .iter()
            .filter(|request| !is_replaced(&request.name));
        self.inactive_base_remote_replacements = remote.map(ToString::to_string).collect();
        self.packages = record
            .packages
            .iter()
            .filter(|package| package.requested)
            .map(|package| package.id.name.clone())
            .collect();
        self.base_removals.clone_from(&record.removed);
        for package in &record.replaced {
            let before = PackageId {
                version: package.before.clone(),
                ..package.id.clone()
            };
            let pair = (package.id.clone(), before);
            if package.local {
                self.base_local_replacements.push(pair);
            } else {
                self.base_remote_replacements
                    .entry(package.repository.clone())
                    .or_default()
                    .push(pair);
            }
        }
    }
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}
