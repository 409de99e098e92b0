//! Where layering keeps what outlives a transaction, in the stateroot's `/var`.
//!
//! ```text
//! /var/cache/apt-ostree    repository indexes and packages: bounded, may be removed at any time
//! /var/lib/apt-ostree      ids of users and groups, local packages, debconf answers: kept
//! ```

use std::path::{Path, PathBuf};

/// The places of one stateroot.
#[derive(Clone, Debug)]
pub struct Places {
    var: PathBuf,
}

impl Places {
    /// Returns the places of a stateroot below the sysroot at `sysroot`; nothing is made or looked at.
    pub fn of(sysroot: &Path, stateroot: &str) -> Self {
        Self {
            var: sysroot.join("ostree/deploy").join(stateroot).join("var"),
        }
    }

    /// Returns the folder of the caches.
    pub fn cache(&self) -> PathBuf {
        self.var.join("cache/apt-ostree")
    }

    /// Returns the file that holds the answers for debconf with this SHA-256.
    pub fn debconf(&self, digest: &str) -> PathBuf {
        self.state().join("debconf").join(digest)
    }

    /// Returns the folder of what must be kept.
    pub fn state(&self) -> PathBuf {
        self.var.join("lib/apt-ostree")
    }
}
