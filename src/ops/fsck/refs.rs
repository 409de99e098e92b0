//! The refs of the repository: none names a missing commit, images have their layers, and what deployments need is held.

use super::finding::{Finding, Findings, Remedy};
use super::site::Site;
use crate::deployment::prune;
use crate::image::commit::Commit;
use crate::image::gc;
use crate::image::reference::IMAGE_REF_PREFIX;
use crate::image::store::{self, StoredImage};
use crate::layer::record;
use anyhow::Result;
use ostree_ext::{gio, ostree};
use std::collections::{BTreeMap, BTreeSet};

/// Below these libostree keeps the commits of the deployments of one boot version.
const OSTREE_PREFIXES: [&str; 2] = ["ostree/0", "ostree/1"];

/// Returns all refs with their commits, by name; a remote stands before a colon.
pub(super) fn all(repo: &ostree::Repo) -> Result<BTreeMap<String, String>> {
    let refs = repo.list_refs_ext(None, ostree::RepoListRefsExtFlags::NONE, gio::Cancellable::NONE)?;
    Ok(refs.into_iter().collect())
}

/// Looks at every ref.
pub(super) fn check(site: &Site<'_>, findings: &mut Findings) -> Result<()> {
    let refs = all(&site.repo)?;
    findings.checked.refs = refs.len() as u64;
    for (name, commit) in &refs {
        if !has_commit(site, commit)? {
            let message = format!("The ref {name} names the commit {commit}, which is missing");
            findings
                .push(Finding::error("ref-dangling", name, message).remedy(Remedy::DropRef(name.clone())));
        }
    }
    images(site, &refs, findings)?;
    held(site, findings)?;
    superfluous(site, findings)
}

fn has_commit(site: &Site<'_>, commit: &str) -> Result<bool> {
    Ok(site
        .repo
        .has_object(ostree::ObjectType::Commit, commit, gio::Cancellable::NONE)?)
}

/// Checks the layers of stored images and of those that deployments were made from.
fn images(site: &Site<'_>, refs: &BTreeMap<String, String>, findings: &mut Findings) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (name, commit) in refs.iter().filter(|(name, _)| name.starts_with(IMAGE_REF_PREFIX)) {
        if !has_commit(site, commit)? {
            continue;
        }
        match store::query_commit(&site.repo, commit) {
            Ok(image) => layers(site, &image, &mut seen, findings)?,
            Err(error) => findings.push(
                Finding::warning(
                    "image-unreadable",
                    name,
                    format!("The image of the ref {name} says nothing of itself: {error:#}"),
                )
                .hint("forget it with `apt-ostree image remove`"),
            ),
        }
    }
    for found in &site.deployments {
        // Deployments without an image have no layers, and a missing commit is found elsewhere.
        let base = record::base_of(&site.repo, &found.commit);
        if let Ok(image) = base.and_then(|base| store::query_commit(&site.repo, &base)) {
            layers(site, &image, &mut seen, findings)?;
        }
    }
    Ok(())
}

fn layers(
    site: &Site<'_>,
    image: &StoredImage,
    seen: &mut BTreeSet<String>,
    findings: &mut Findings,
) -> Result<()> {
    for layer in image.manifest.layers() {
        let digest = layer.digest().to_string();
        let name = store::layer_ref(&digest);
        if seen.insert(digest.clone()) && site.repo.resolve_rev(&name, true)?.is_none() {
            let message = format!(
                "The layer {digest} of the image {} is missing in the repository",
                image.manifest_digest
            );
            findings.push(
                Finding::warning("layer-missing", digest, message)
                    .remedy(Remedy::FetchImage(image.manifest_digest.clone())),
            );
        }
    }
    Ok(())
}

/// Checks that a collection of garbage would leave what deployments need.
fn held(site: &Site<'_>, findings: &mut Findings) -> Result<()> {
    let mut held = BTreeSet::new();
    for prefix in gc::DEPLOYMENT_REF_PREFIXES {
        held.extend(store::refs_below(&site.repo, prefix)?.into_values());
    }
    let mut told = BTreeSet::new();
    for found in &site.deployments {
        let mut needed = vec![(found.commit.clone(), "commit")];
        if let Ok(base) = record::base_of(&site.repo, &found.commit) {
            needed.push((base, "image"));
        }
        for (commit, what) in needed {
            // A ref cannot bring back what is missing.
            if held.contains(&commit) || !has_commit(site, &commit)? || !told.insert(commit.clone()) {
                continue;
            }
            let message = format!(
                "No ref keeps the {what} {commit} of the deployment {} from being collected as garbage",
                found.id
            );
            findings.push(
                Finding::warning("deployment-not-held", format!("{commit} (ref)"), message)
                    .remedy(Remedy::Hold),
            );
        }
    }
    Ok(())
}

/// Finds refs that keep what no deployment needs any more.
fn superfluous(site: &Site<'_>, findings: &mut Findings) -> Result<()> {
    if site.refused.is_some() {
        // Nobody knows all deployments then.
        return Ok(());
    }
    let mut needed = BTreeSet::new();
    for found in &site.deployments {
        needed.insert(found.commit.clone());
        let base = Commit::load(&site.repo, &found.commit).ok();
        needed.extend(base.and_then(|commit| commit.text(record::KEY_BASE)));
    }
    for prefix in [prune::PREFIX].into_iter().chain(OSTREE_PREFIXES) {
        for (name, commit) in store::refs_below(&site.repo, prefix)? {
            if needed.contains(&commit) || !has_commit(site, &commit)? {
                continue;
            }
            let message = format!("The ref {name} keeps the commit {commit}, which no deployment needs");
            findings
                .push(Finding::note("ref-superfluous", &name, message).remedy(Remedy::DropRef(name.clone())));
        }
    }
    Ok(())
}
