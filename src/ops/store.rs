//! The repository that `image` and `db` work on: that of a sysroot, or any other.

use crate::deployment::sysroot::{Host, Patience, WriteLock};
use crate::fault::{Fault, Kind};
use crate::report::Report;
use anyhow::Result;
use ostree_ext::{gio, ostree};
use std::path::Path;

/// The repository to work on.
#[derive(Debug)]
pub enum Store {
    /// A repository that belongs to no sysroot.
    Repo(ostree::Repo),
    /// The repository of a sysroot.
    Sysroot(Host),
}

impl Store {
    /// Opens a repository by its path.
    pub fn open_repo(path: &Path) -> Result<Self> {
        let repo = ostree::Repo::new(&gio::File::for_path(path));
        repo.open(gio::Cancellable::NONE).map_err(|error| {
            Fault::new(
                Kind::NotFound,
                format!(
                    "{} is not an OSTree repository: {}",
                    path.display(),
                    error.message()
                ),
            )
            .hint(format!(
                "make one with `ostree init --mode=bare --repo={}`",
                path.display()
            ))
        })?;
        Ok(Self::Repo(repo))
    }

    /// Returns the repository.
    pub fn repo(&self) -> ostree::Repo {
        match self {
            Self::Repo(repo) => repo.clone(),
            Self::Sysroot(host) => host.repo(),
        }
    }

    /// Returns the sysroot that the repository belongs to.
    pub fn host(&self) -> Option<&Host> {
        match self {
            Self::Repo(_) => None,
            Self::Sysroot(host) => Some(host),
        }
    }

    /// Takes the sysroot's lock; a repository of its own has none but libostree's transaction lock.
    pub(crate) fn lock(
        &self,
        verb: &str,
        patience: Patience,
        report: &dyn Report,
    ) -> Result<Option<WriteLock<'_>>> {
        match self {
            Self::Repo(_) => Ok(None),
            Self::Sysroot(host) => host.lock(verb, patience, report).map(Some),
        }
    }
}
