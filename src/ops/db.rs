//! `db`: the packages of commits, compared and listed from the repository alone. Needs neither root nor the lock.

use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::image::policy::Policy;
use crate::image::{reference, store};
use crate::layer::packages::{self, PackageDifference, Packages};
use crate::layer::record;
use crate::ops::store::Store;
use anyhow::Result;
use ostree_ext::ostree;

/// A commit that a user named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// How it was named: the user's words, or what it is in the boot order.
    pub name: String,
    /// The commit.
    pub commit: String,
}

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
    let (from, to) = match (from, to) {
        (Some(from), Some(to)) => (require(store, from)?, require(store, to)?),
        (Some(to), None) => (here(require_host(store)?)?, require(store, to)?),
        _ => neighbours(require_host(store)?)?,
    };
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
        match resolve(store, word)? {
            Some(revision) => revisions.push(revision),
            None => break,
        }
    }
    let patterns = &words[revisions.len()..];
    if let (true, Some(word)) = (revisions.is_empty(), words.first()) {
        return Err(unknown(word).into());
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

/// Returns the commit that `text` names: a deployment by its index, an image by its manifest digest or reference,
/// a commit by its checksum or by the beginning of it, a ref.
pub fn resolve(store: &Store, text: &str) -> Result<Option<Revision>> {
    let found = |commit: String| {
        Ok(Some(Revision {
            name: text.to_owned(),
            commit,
        }))
    };
    let repo = store.repo();
    let deployments = store.host().map(Host::deployments).unwrap_or_default();
    if let Some(deployment) = text
        .parse::<usize>()
        .ok()
        .and_then(|index| deployments.get(index))
    {
        return found(deployment.csum().to_string());
    }
    if text.starts_with("sha256:") {
        let commits = deployments.iter().map(|deployment| deployment.csum().to_string());
        let stored = store::list(&repo)?
            .into_iter()
            .filter_map(|(_, image)| image.ok());
        let matching = commits
            .filter_map(|commit| store::query_commit(&repo, &commit).ok())
            .chain(stored)
            .find(|image| image.manifest_digest == text);
        return match matching {
            Some(image) => found(record::base_of(&repo, &image.commit)?),
            None => Ok(None),
        };
    }
    if text.contains(['/', ':']) {
        if let Ok(named) = reference::resolve(text, &Policy::load()?) {
            if let Some(image) = store::find(&repo, &named.reference)? {
                return found(image.commit);
            }
        }
    }
    if ostree::validate_rev(text).is_ok() {
        if let Some(commit) = repo.resolve_rev(text, true)? {
            return found(commit.to_string());
        }
    }
    Ok(None)
}

fn require(store: &Store, text: &str) -> Result<Revision> {
    resolve(store, text)?.ok_or_else(|| unknown(text).into())
}

fn unknown(text: &str) -> Fault {
    Fault::new(
        Kind::NotFound,
        format!("`{text}` names no deployment, image, commit or ref of the repository"),
    )
    .hint("see `apt-ostree status --verbose` and `apt-ostree image list`")
}

fn require_host(store: &Store) -> Result<&Host, Fault> {
    store.host().ok_or_else(|| {
        Fault::new(
            Kind::Usage,
            "A repository of its own has no deployments: name both revisions",
        )
    })
}

/// Returns the booted deployment, or the one that boots next where none is booted.
fn here(host: &Host) -> Result<Revision> {
    match host.booted().or_else(|| host.deployments().into_iter().next()) {
        Some(deployment) => Ok(named(host, &deployment)),
        None => Err(too_few()),
    }
}

/// Returns the two deployments around the place this machine is at, the older one first.
fn neighbours(host: &Host) -> Result<(Revision, Revision)> {
    let all = host.deployments();
    let at = host
        .booted()
        .and_then(|booted| all.iter().position(|deployment| deployment.equal(&booted)))
        .unwrap_or(0);
    let (old, new) = match at {
        0 => (all.get(1), all.first()),
        _ => (all.get(at), all.first()),
    };
    match (old, new) {
        (Some(old), Some(new)) => Ok((named(host, old), named(host, new))),
        _ => Err(too_few()),
    }
}

fn too_few() -> anyhow::Error {
    Fault::new(Kind::NotFound, "There are no two deployments to compare")
        .hint("name two revisions, for example two images of `apt-ostree image list`")
        .into()
}

fn named(host: &Host, deployment: &ostree::Deployment) -> Revision {
    let all = host.deployments();
    let place = |wanted: &ostree::Deployment| all.iter().position(|deployment| deployment.equal(wanted));
    let name = match (place(deployment), host.booted().as_ref().and_then(place)) {
        (Some(index), Some(booted)) if index == booted => "booted deployment".to_owned(),
        (Some(0), Some(_)) => "pending deployment".to_owned(),
        (Some(index), Some(booted)) if index == booted + 1 => "rollback deployment".to_owned(),
        (index, _) => format!("deployment {}", index.unwrap_or_default()),
    };
    Revision {
        name,
        commit: deployment.csum().to_string(),
    }
}

fn below(repo: &ostree::Repo, revision: Revision, base: bool) -> Result<Revision> {
    if !base {
        return Ok(revision);
    }
    Ok(Revision {
        commit: record::base_of(repo, &revision.commit)?,
        name: revision.name,
    })
}
