//! Images that can be fetched again: known by a reference and by the digest of their manifest.

use super::site::Site;
use crate::deployment::origin::Origin;
use crate::fault::{Fault, Kind};
use crate::image::pull::{self, PullOptions};
use crate::image::reference::{IMAGE_REF_PREFIX, ImageReference};
use crate::image::store::{self, StoredImage};
use crate::layer::record;
use crate::report::Report;
use anyhow::{Context, Result};
use ostree_ext::{gio, ostree};
use std::collections::BTreeSet;

/// An image of a deployment or of the repository.
#[derive(Debug)]
pub(super) struct KnownImage {
    reference: ImageReference,
    pub(super) digest: String,
    commits: BTreeSet<String>,
}

impl KnownImage {
    /// Returns the commits that an import of the image writes, and that are here under their refs.
    pub(super) fn commits(&self) -> impl Iterator<Item = &str> {
        self.commits.iter().map(String::as_str)
    }

    /// Returns whether an import of the image writes this commit.
    pub(super) fn makes(&self, commit: &str) -> bool {
        self.commits.contains(commit)
    }
}

/// Returns the images that can be asked for again, each once.
///
/// The way by which a deployment got its image comes first, because it says how signatures are verified.
pub(super) fn known(site: &Site<'_>) -> Result<Vec<KnownImage>> {
    let repo = &site.repo;
    let mut images: Vec<KnownImage> = Vec::new();
    let mut add = |reference: ImageReference, image: &StoredImage| -> Result<()> {
        if images.iter().any(|known| known.digest == image.manifest_digest) {
            return Ok(());
        }
        let mut commits = BTreeSet::from([image.commit.clone()]);
        let layers = image.manifest.layers().iter();
        let names = layers.map(|layer| store::layer_ref(layer.digest().as_ref()));
        for name in names.chain([store::merges_ref(&image.manifest_digest)?]) {
            commits.extend(repo.resolve_rev(&name, true)?.map(String::from));
        }
        images.push(KnownImage {
            reference,
            digest: image.manifest_digest.clone(),
            commits,
        });
        Ok(())
    };
    for found in &site.deployments {
        let origin = found.handle.as_ref().and_then(|handle| Origin::of(handle).ok());
        let reference = origin.and_then(|origin| origin.reference().ok().flatten());
        // What cannot be read cannot be asked for, and is found wanting elsewhere.
        let image = record::base_of(repo, &found.commit).and_then(|base| store::query_commit(repo, &base));
        if let (Some(reference), Ok(image)) = (reference, image) {
            add(reference, &image)?;
        }
    }
    for (name, image) in store::list(repo)? {
        if let Ok(image) = image {
            add(format!("ostree-unverified-image:{name}").parse()?, &image)?;
        }
    }
    Ok(images)
}

/// Imports an image again; only what is missing is fetched.
///
/// Fails when the source does not have exactly this image any more.
pub(super) fn fetch(repo: &ostree::Repo, image: &KnownImage, report: &dyn Report) -> Result<()> {
    let exact = match image.reference.registry_name() {
        Some(_) => image.reference.with_digest(&image.digest)?,
        None => {
            let remote = pull::inspect(&image.reference)?;
            if remote.manifest_digest != image.digest {
                return Err(Fault::new(
                    Kind::NotFound,
                    format!(
                        "{} names another image by now than {}",
                        image.reference, image.digest
                    ),
                )
                .into());
            }
            image.reference.clone()
        }
    };
    let name = exact.store_ref()?;
    let was_stored = repo.resolve_rev(&name, true)?.is_some();
    pull::pull(repo, &exact, &PullOptions::default(), report)
        .with_context(|| format!("Fetching {exact} again"))?;
    if !was_stored && name.starts_with(IMAGE_REF_PREFIX) {
        // The image has its own name; this one was for asking only.
        repo.set_ref_immediate(None, &name, None, gio::Cancellable::NONE)?;
    }
    Ok(())
}
