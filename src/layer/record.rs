//! What a derived commit says of itself: the layering record in its metadata.
//!
//! The origin holds what was asked for, the record what came of it. `status` and `db` work from it alone.

use crate::image::commit::Commit;
use crate::layer::plan::{Dormant, PackageId};
use anyhow::{Context, Result};
use ostree_ext::ostree;
use serde::{Deserialize, Serialize};

/// The metadata key that holds the record as JSON.
pub const KEY_RECORD: &str = "apt-ostree.layering";

/// The metadata key that names the base commit; bootc uses the same.
pub const KEY_BASE: &str = "bootc.derived";

/// Changes whenever a derived commit of the same input comes out differently.
pub const FORMAT: u32 = 1;

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Record {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// Digest over everything the commit was made from; equal input needs no new commit.
    pub state: String,
    /// Packages on top, requested and pulled in.
    pub packages: Vec<LayeredPackage>,
    /// Packages of the image that were taken out.
    pub removed: Vec<PackageId>,
    /// Packages of the image that were replaced.
    pub replaced: Vec<ReplacedPackage>,
    /// Requests that the image provides already.
    pub dormant: Vec<Dormant>,
    /// Maintainer scripts that were not run, as `package.script: reason`.
    pub skipped_scripts: Vec<String>,
    /// What the user was warned of.
    pub warnings: Vec<String>,
    /// Whether the initramfs was made on this host.
    pub initramfs: bool,
}

/// A package on top of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LayeredPackage {
    /// What it is.
    pub id: PackageId,
    /// Whether it was asked for, rather than pulled in.
    pub requested: bool,
    /// Whether it came as a file.
    pub local: bool,
    /// Where it came from, as apt names it.
    #[serde(default)]
    pub repository: String,
}

/// A package of the image in another version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReplacedPackage {
    /// What it is now.
    pub id: PackageId,
    /// The image's version.
    pub before: String,
    /// Whether it came as a file.
    pub local: bool,
    /// Where it came from, as apt names it.
    #[serde(default)]
    pub repository: String,
}

/// Returns the record of a commit; none when it is no derived commit.
///
/// Fails when the commit is missing or its record cannot be read.
pub fn read(repo: &ostree::Repo, commit: &str) -> Result<Option<Record>> {
    let Some(text) = Commit::load(repo, commit)?.text(KEY_RECORD) else {
        return Ok(None);
    };
    serde_json::from_str(&text)
        .map(Some)
        .with_context(|| format!("Reading the layering record of the commit {commit}"))
}

/// Returns the image's commit below a commit: the one it was derived from, else itself.
pub fn base_of(repo: &ostree::Repo, commit: &str) -> Result<String> {
    Ok(Commit::load(repo, commit)?
        .text(KEY_BASE)
        .unwrap_or_else(|| commit.to_owned()))
}
