//! `db`: the packages of commits, compared and listed from the repository alone. Needs neither root nor the lock.

use crate::layer::packages::{self, PackageDifference, Packages};
use crate::layer::record;
use crate::ops::revision::{self, Revision};
use crate::ops::store::Store;
use anyhow::Result;
use ostree_ext::ostree;

/// What differs between two revisions.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The old one.
    pub from: Revision,
    /// The new one.
    pub to: Revision,
    /// The packages.
    pub packages: PackageDifference,
}

/// Compares the packages of two revisions.
///
/// Without any the booted deployment is compared with the pending one, or the one to roll back to with the booted
/// one; with one the booted deployment with it. With `base` the images below the deployments are compared.
pub fn diff(store: &Store, from: Option<&str>, to: Option<&str>, base: bool) -> Result<Difference> {
    let (from, to) = revision::pair(store, from, to)?;
    let repo = store.repo();
    let [from, to] = [from, to].map(|revision| below(&repo, revision, base));
    let (from, to) = (from?, to?);
    Ok(Difference {
        packages: packages::between(&repo, &from.commit, &to.commit)?,
        from,
        to,
    })
}

/// Returns the packages of the revisions that `words` begins with, each list narrowed to names that one of the
/// patterns behind the revisions matches (`*` and `?`).
///
/// Fails when the first word is no revision: nothing says then whether it was meant as one.
pub fn list(store: &Store, words: &[String], base: bool) -> Result<Vec<(Revision, Packages)>> {
    let mut revisions = Vec::new();
    for word in words {
        match revision::resolve(store, word)? {
            Some(revision) => revisions.push(revision),
            None => break,
        }
    }
    let patterns = &words[revisions.len()..];
    if let (true, Some(word)) = (revisions.is_empty(), words.first()) {
        return Err(revision::unknown(word).into());
    }
    let repo = store.repo();
    let mut found = Vec::new();
    for revision in revisions {
        let revision = below(&repo, revision, base)?;
        let mut packages = packages::of_commit(&repo, &revision.commit)?;
        if !patterns.is_empty() {
            packages.retain(|(name, _), _| patterns.iter().any(|pattern| packages::matches(pattern, name)));
        }
        found.push((revision, packages));
    }
    Ok(found)
}

fn below(repo: &ostree::Repo, revision: Revision, base: bool) -> Result<Revision> {
    if !base {
        return Ok(revision);
    }
    Ok(Revision {
        commit: record::base_of(repo, &revision.commit)?,
        ..revision
    })
}
