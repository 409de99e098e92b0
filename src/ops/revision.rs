//! What a user calls a tree: a deployment, an image or a commit, by any of its names. Needs neither root nor the lock.

use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::image::policy::Policy;
use crate::image::store::StoredImage;
use crate::image::{reference, store};
use crate::layer::record;
use crate::ops::store::Store;
use anyhow::Result;
use ostree_ext::ostree;

/// A commit that a user named.
#[derive(Clone, Debug)]
pub struct Revision {
    /// How it was named: the user's words, or what it is in the boot order.
    pub name: String,
    /// The commit.
    pub commit: String,
    /// The deployment, where one was named.
    pub deployment: Option<ostree::Deployment>,
}

/// Returns the two revisions to compare, the old one first.
///
/// Without any they are the booted deployment and the pending one, or the one to roll back to and the booted one; with
/// one they are the booted deployment and it.
pub fn pair(store: &Store, from: Option<&str>, to: Option<&str>) -> Result<(Revision, Revision)> {
    match (from, to) {
        (Some(from), Some(to)) => Ok((require(store, from)?, require(store, to)?)),
        (Some(to), None) => Ok((here(require_host(store)?)?, require(store, to)?)),
        _ => neighbours(require_host(store)?),
    }
}

/// Returns the commit that `text` names: a deployment by its index or its place (`booted`, `pending`, `rollback`), an
/// image by its manifest digest, its version (also as `version=V`) or its reference, a commit by its checksum or by the
/// beginning of it, a ref.
pub fn resolve(store: &Store, text: &str) -> Result<Option<Revision>> {
    let found = |commit: String| {
        Ok(Some(Revision {
            name: text.to_owned(),
            commit,
            deployment: None,
        }))
    };
    let repo = store.repo();
    if let Some(deployment) = store.host().and_then(|host| deployed(host, text)) {
        return Ok(Some(Revision {
            name: text.to_owned(),
            commit: deployment.csum().to_string(),
            deployment: Some(deployment),
        }));
    }
    if text.starts_with("sha256:") {
        return match image(store, |image| image.manifest_digest == text)? {
            Some(image) => found(record::base_of(&repo, &image.commit)?),
            None => Ok(None),
        };
    }
    let version = text.strip_prefix("version=").unwrap_or(text);
    if let Some(image) = image(store, |image| image.version().as_deref() == Some(version))? {
        return found(image.commit);
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

/// Returns the deployments from the one that `A..B` names first to the other, both of them included; none for a text
/// of another form.
///
/// Fails for what is no deployment: images have no history that something could lie between.
pub fn range(store: &Store, text: &str) -> Result<Option<Vec<Revision>>> {
    let Some((from, to)) = text.split_once("..") else {
        return Ok(None);
    };
    let (Some(from), Some(to)) = (resolve(store, from)?, resolve(store, to)?) else {
        return Ok(None);
    };
    let host = require_host(store)?;
    let (repo, deployments) = (store.repo(), host.deployments());
    let place = |revision: &Revision| {
        let is_it = |deployment: &ostree::Deployment| match &revision.deployment {
            Some(named) => named.equal(deployment),
            None => {
                let commit = deployment.csum();
                let is_base = || record::base_of(&repo, &commit).is_ok_and(|base| base == revision.commit);
                commit == revision.commit || is_base()
            }
        };
        deployments.iter().position(is_it).ok_or_else(|| {
            let what = format!(
                "`{text}` is no range: `{}` is no deployment, and images have no history",
                revision.name
            );
            Fault::new(Kind::NotFound, what).hint("name the revisions one by one")
        })
    };
    let (from, to) = (place(&from)?, place(&to)?);
    let mut between: Vec<Revision> = deployments[from.min(to)..=from.max(to)]
        .iter()
        .map(|deployment| named(host, deployment.clone()))
        .collect();
    if from > to {
        between.reverse();
    }
    Ok(Some(between))
}

/// Returns what `text` names, or the fault that it names nothing.
pub fn require(store: &Store, text: &str) -> Result<Revision> {
    resolve(store, text)?.ok_or_else(|| unknown(text).into())
}

/// Returns the fault that `text` names nothing.
pub fn unknown(text: &str) -> Fault {
    Fault::new(
        Kind::NotFound,
        format!("`{text}` names no deployment, image, commit or ref of the repository"),
    )
    .hint("see `apt-ostree status --verbose` and `apt-ostree image list`")
}

/// Returns the booted deployment, or the one that boots next where none is booted.
pub fn here(host: &Host) -> Result<Revision> {
    match host.booted().or_else(|| host.deployments().into_iter().next()) {
        Some(deployment) => Ok(named(host, deployment)),
        None => Err(Fault::new(Kind::NotFound, "There is no deployment")
            .hint("deploy a first image with `apt-ostree rebase REF`")
            .into()),
    }
}

/// Returns the sysroot, or the fault that a repository of its own has no deployments.
pub fn require_host(store: &Store) -> Result<&Host, Fault> {
    store.host().ok_or_else(|| {
        Fault::new(
            Kind::Usage,
            "A repository of its own has no deployments: name both revisions",
        )
    })
}

/// Returns the deployment at an index or at a place; without a booted one the first counts as pending.
fn deployed(host: &Host, text: &str) -> Option<ostree::Deployment> {
    let all = host.deployments();
    let booted = host
        .booted()
        .and_then(|booted| all.iter().position(|deployment| deployment.equal(&booted)));
    let index = match text {
        "booted" => booted,
        "pending" => (booted != Some(0)).then_some(0),
        "rollback" => Some(booted.unwrap_or(0) + 1),
        index => index.parse().ok(),
    };
    all.into_iter().nth(index?)
}

/// Returns an image of the deployments, else of the repository.
fn image(store: &Store, matches: impl Fn(&StoredImage) -> bool) -> Result<Option<StoredImage>> {
    let repo = store.repo();
    let deployments = store.host().map(Host::deployments).unwrap_or_default();
    let deployed = deployments
        .iter()
        .filter_map(|deployment| store::query_commit(&repo, &deployment.csum()).ok());
    let stored = store::list(&repo)?
        .into_iter()
        .filter_map(|(_, image)| image.ok());
    Ok(deployed.chain(stored).find(|image| matches(image)))
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
        (Some(old), Some(new)) => Ok((named(host, old.clone()), named(host, new.clone()))),
        _ => Err(
            Fault::new(Kind::NotFound, "There are no two deployments to compare")
                .hint("name two revisions, for example two images of `apt-ostree image list`")
                .into(),
        ),
    }
}

fn named(host: &Host, deployment: ostree::Deployment) -> Revision {
    let all = host.deployments();
    let place = |wanted: &ostree::Deployment| all.iter().position(|deployment| deployment.equal(wanted));
    let name = match (place(&deployment), host.booted().as_ref().and_then(place)) {
        (Some(index), Some(booted)) if index == booted => "booted deployment".to_owned(),
        (Some(0), Some(_)) => "pending deployment".to_owned(),
        (Some(index), Some(booted)) if index == booted + 1 => "rollback deployment".to_owned(),
        (index, _) => format!("deployment {}", index.unwrap_or_default()),
    };
    Revision {
        name,
        commit: deployment.csum().to_string(),
        deployment: Some(deployment),
    }
}
