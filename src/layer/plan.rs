//! What a solved transaction consists of: data that `--dry-run` prints and the sandbox replays.

use serde::{Deserialize, Serialize};

/// A solved transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// Packages that are installed or replaced, in the order of their names.
    pub packages: Vec<PlannedPackage>,
    /// Packages of the image that are taken out.
    pub removals: Vec<PackageId>,
    /// apt's own order, folded into runs of the same action.
    pub steps: Vec<Step>,
    /// Requests that the image provides already, with what provides them.
    pub dormant: Vec<Dormant>,
    /// Foreign architectures that dpkg must know before it unpacks.
    pub foreign_architectures: Vec<String>,
}

/// Names one package of one architecture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PackageId {
    /// The name.
    pub name: String,
    /// The architecture, `all` for a package without one.
    pub architecture: String,
    /// The version.
    pub version: String,
}

/// A package that is installed or replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedPackage {
    /// What it is.
    pub id: PackageId,
    /// The version in the image that it replaces.
    pub replaces: Option<String>,
    /// Where it comes from, as apt names it (`Debian:13.1/stable`), or `local`.
    pub repository: String,
    /// Where apt fetches it from; none for a local package.
    pub uri: Option<String>,
    /// SHA-256 of the package file, in hexadecimal.
    pub sha256: String,
    /// Bytes of the package file.
    pub download_size: u64,
    /// Bytes on disk as the package states them.
    pub installed_size: u64,
    /// Whether it was pulled in by a dependency and not asked for.
    pub automatic: bool,
}

/// A run of the same action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action", content = "packages")]
pub enum Step {
    /// `dpkg --unpack`
    Unpack(Vec<PackageId>),
    /// `dpkg --configure`
    Configure(Vec<PackageId>),
    /// `dpkg --remove`
    Remove(Vec<PackageId>),
}

/// A request that the image provides already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Dormant {
    /// The request as the origin has it.
    pub request: String,
    /// `name version` of the image's package that provides it.
    pub provided_by: String,
}

/// A package whose file is in the cache, verified and with uncompressed data.
#[derive(Clone, Debug)]
pub struct FetchedPackage {
    /// What it is.
    pub id: PackageId,
    /// The file, a .deb whose `data.tar` is not compressed.
    pub path: std::path::PathBuf,
}

impl Plan {
    /// Returns whether there is nothing to install, replace or remove.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.removals.is_empty()
    }
}
