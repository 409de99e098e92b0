//! `db`: the packages of commits, compared and listed from the repository alone. Needs neither root nor the lock.

use crate::image::content::CommitTree;
use crate::layer::changelog;
use crate::layer::packages::{self, PackageDifference, Packages};
use crate::layer::plan::PackageId;
use crate::layer::record;
use crate::ops::revision::{self, Revision};
use crate::ops::store::Store;
use anyhow::Result;
use ostree_ext::ostree;
use std::collections::BTreeMap;

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

/// What changelogs tell of a package: the entries between its versions, or nothing where the image ships none.
pub type Changelogs = BTreeMap<PackageId, Option<Vec<String>>>;

/// Returns what the images' changelogs tell of each package that has another version, by its new one: for an earlier
/// version the entries that are lost.
pub fn changelogs(store: &Store, found: &Difference) -> Result<Changelogs> {
    let repo = store.repo();
    let from = CommitTree::open(&repo, &found.from.commit)?;
    let to = CommitTree::open(&repo, &found.to.commit)?;
    let upgraded = found.packages.upgraded.iter().map(|pair| {
        (
            pair,
            changelog::between((&from, &pair.before), (&to, &pair.after)),
        )
    });
    let downgraded = found.packages.downgraded.iter().map(|pair| {
        (
            pair,
            changelog::between((&to, &pair.after), (&from, &pair.before)),
        )
    });
    upgraded
        .chain(downgraded)
        .map(|(pair, entries)| Ok((pair.after.clone(), entries?)))
        .collect()
}

/// Returns the packages of the revisions that `words` begins with, each list narrowed to names that one of the
/// patterns behind the revisions matches (`*` and `?`). `A..B` means the deployments from A to B.
///
/// Fails when the first word is no revision: nothing says then whether it was meant as one.
pub fn list(store: &Store, words: &[String], base: bool) -> Result<Vec<(Revision, Packages)>> {
    let mut revisions = Vec::new();
    let mut patterns = words;
    while let Some((word, rest)) = patterns.split_first() {
        match (revision::resolve(store, word)?, revision::range(store, word)?) {
            (Some(revision), _) => revisions.push(revision),
            (None, Some(range)) => revisions.extend(range),
            (None, None) => break,
        }
        patterns = rest;
    }
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
