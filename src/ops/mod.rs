//! One file per verb: plan (pure) -> prepare (invisible) -> publish (one atomic step) -> [`Outcome`].
//!
//! Siblings never call one another; what several need lies in `deployment`, `image` or `boot`.

pub mod apply_live;
pub mod check;
pub mod cleanup;
pub mod db;
pub mod deploy;
pub mod finalize;
pub mod image;
pub mod initramfs_etc;
pub mod kargs;
pub mod pin;
pub mod provision;
pub mod rebase;
pub mod reboot;
pub mod rollback;
pub mod status;
pub mod store;
pub mod upgrade;
pub mod usroverlay;

use crate::deployment::advance::{self, Advance, Source};
use crate::deployment::origin::Origin;
use crate::deployment::staging::Published;
use crate::deployment::sysroot::{Patience, WriteLock};
use crate::image::reference::ImageReference;
use crate::image::store::StoredImage;
use crate::report::Report;
use anyhow::Result;
use ostree_ext::ostree;

/// What a verb did, so that repeating it is safe and a script can tell.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Nothing had to change; the sentence says why.
    Unchanged(String),
    /// The image is stored and nothing was deployed.
    Downloaded(StoredImage),
    /// A new deployment boots next.
    Published {
        /// Staged until shutdown, or written.
        how: Published,
        /// The reference the host follows now.
        reference: ImageReference,
        /// What it was deployed from.
        image: StoredImage,
    },
    /// The boot order or an entry changed without a new image; the sentence says how.
    Changed(String),
}

/// What every verb that writes takes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The stateroot, when one was named.
    pub stateroot: Option<String>,
    /// What to do while another writer runs.
    pub patience: Patience,
}

/// Where the image of a new deployment comes from and how far to go with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetch {
    /// Use only what is stored.
    pub cache_only: bool,
    /// Store the image and stop.
    pub download_only: bool,
    /// Stage, but do not apply at shutdown until `finalize-deployment`.
    pub lock_finalization: bool,
}

/// An image that is stored, on its way to being the next boot entry.
struct Next<'a> {
    stateroot: &'a str,
    origin: &'a Origin,
    merge: Option<&'a ostree::Deployment>,
    reference: ImageReference,
    image: StoredImage,
}

impl Fetch {
    /// Returns where the image may come from.
    pub fn source(self) -> Source {
        if self.cache_only {
            Source::CacheOnly
        } else {
            Source::Network
        }
    }

    /// Publishes a stored image, or stops here where only the download was asked for.
    fn conclude(self, lock: &WriteLock<'_>, next: Next<'_>, report: &dyn Report) -> Result<Outcome> {
        if self.download_only {
            return Ok(Outcome::Downloaded(next.image));
        }
        let step = Advance {
            stateroot: next.stateroot,
            image: &next.image,
            origin: next.origin,
            merge: next.merge,
            lock_finalization: self.lock_finalization,
        };
        let how = advance::advance(lock, &step, report)?;
        Ok(Outcome::Published {
            how,
            reference: next.reference,
            image: next.image,
        })
    }
}
