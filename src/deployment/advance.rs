//! The way from an image to the next boot entry, shared by the verbs that take it.
//!
//! Obtain the image (registry or store), check that it can boot, work out the kernel arguments, publish, clean.

use crate::deployment::origin::Origin;
use crate::deployment::prune;
use crate::deployment::staging::{self, NewDeployment, Published};
use crate::deployment::sysroot::{Host, WriteLock};
use crate::fault::{Fault, Kind};
use crate::image::content::CommitTree;
use crate::image::pull::{self, PullOptions};
use crate::image::reference::ImageReference;
use crate::image::store::{self, StoredImage};
use crate::report::Report;
use anyhow::Result;
use ostree_ext::ostree;

/// Where an image may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The registry (or other transport) is asked; what is stored is not fetched again.
    Network,
    /// Only what the repository holds.
    CacheOnly,
}

/// An image on its way to being the next boot entry.
#[derive(Debug)]
pub struct Advance<'a> {
    /// The stateroot it goes to.
    pub stateroot: &'a str,
    /// The image, already stored.
    pub image: &'a StoredImage,
    /// The intent the new deployment records.
    pub origin: &'a Origin,
    /// The deployment it continues.
    pub merge: Option<&'a ostree::Deployment>,
    /// Stage it locked.
    pub lock_finalization: bool,
}

/// Returns the image, stored and checked to be bootable.
///
/// Fails with nothing stored under the image's ref unless the whole image is there; layers that were finished
/// before a failure are not fetched again.
pub fn obtain(
    lock: &WriteLock<'_>,
    reference: &ImageReference,
    source: Source,
    report: &dyn Report,
) -> Result<StoredImage> {
    let repo = lock.host().repo();
    // Before anything moves an image ref: what the current deployments run from must survive any collection.
    prune::protect(lock)?;
    let image = match source {
        Source::Network => {
            pull::pull(
                &repo,
                reference,
                &PullOptions {
                    require_bootable: true,
                    require_kernel: true,
                    ..PullOptions::default()
                },
                report,
            )?
            .image
        }
        Source::CacheOnly => store::find(&repo, reference)?.ok_or_else(|| {
            Fault::new(
                Kind::NotFound,
                format!("The image {reference} is not stored on this host"),
            )
            .hint("fetch it without `--cache-only`")
        })?,
    };
    CommitTree::open(&repo, &image.commit)?.require_bootable()?;
    Ok(image)
}

/// Publishes a stored image as the next boot entry and removes what is no longer needed.
///
/// A failure to remove is a warning: the next successful run removes it.
pub fn advance(lock: &WriteLock<'_>, step: &Advance<'_>, report: &dyn Report) -> Result<Published> {
    let kernel_arguments = staging::kernel_arguments(lock.host(), step.merge, &step.image.commit)?;
    report.step("Writing the deployment");
    let published = staging::publish(
        lock,
        &NewDeployment {
            stateroot: step.stateroot,
            commit: &step.image.commit,
            origin: step.origin,
            merge: step.merge,
            kernel_arguments: &kernel_arguments,
            lock_finalization: step.lock_finalization,
        },
    )?;
    clean(lock, report);
    Ok(published)
}

/// Fails when `new` was created before the image of `current`; images that do not say when they were made pass.
pub fn refuse_downgrade(
    host: &Host,
    current: &ostree::Deployment,
    new: &StoredImage,
    hint: &str,
) -> Result<()> {
    // A current deployment that is no readable image says nothing about its age.
    let Ok(before) = store::query_commit(&host.repo(), &current.csum()) else {
        return Ok(());
    };
    match (before.created(), new.created()) {
        (Some(before), Some(after)) if after < before => Err(Fault::new(
            Kind::Unsupported,
            format!(
                "The image {} is older ({after}) than the current one ({before})",
                new.manifest_digest
            ),
        )
        .hint(hint)
        .into()),
        _ => Ok(()),
    }
}

/// Removes what is no longer needed after a success that a failure here must not turn into an error.
pub fn clean(lock: &WriteLock<'_>, report: &dyn Report) {
    report.step("Removing what is no longer needed");
    match prune::clean(lock) {
        Ok(freed) if freed.images > 0 || freed.layers > 0 => report.note(&format!(
            "Removed {} images and {} layers ({} objects, {} bytes).",
            freed.images, freed.layers, freed.objects, freed.bytes
        )),
        Ok(_) => {}
        Err(error) => report.warning(&format!(
            "What is no longer needed could not be removed: {error:#}."
        )),
    }
}
