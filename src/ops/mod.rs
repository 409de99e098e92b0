//! One file per verb: plan (pure) -> prepare (invisible) -> publish (one atomic step) -> [`Outcome`].
//!
//! Siblings never call one another, but for `request` and `automatic`, which are made of other verbs; what several need
//! lies in `deployment`, `image` or `boot`.

pub mod apply_live;
pub mod automatic;
pub mod build;
pub mod check;
pub mod cleanup;
pub mod config;
pub mod countme;
pub mod db;
pub mod deploy;
pub mod diff;
pub mod finalize;
pub mod fsck;
pub mod image;
pub mod info;
pub mod initramfs;
pub mod initramfs_etc;
pub mod install;
pub mod kargs;
pub mod layering;
pub mod log;
pub mod override_list;
pub mod overrides;
pub mod pin;
pub mod provision;
pub mod rebase;
pub mod reboot;
pub mod record_boot;
pub mod recover;
pub mod refresh_md;
pub mod request;
pub mod reset;
pub mod revision;
pub mod rollback;
pub mod search;
pub mod status;
pub mod store;
pub mod uninstall;
pub mod upgrade;
pub mod usroverlay;

use crate::deployment::advance::{self, Advance, Advanced, Extent, Source};
use crate::deployment::origin::Origin;
use crate::deployment::staging::Published;
use crate::deployment::sysroot::{Patience, WriteLock};
use crate::image::gc::Collected;
use crate::image::pull::Pulled;
use crate::image::reference::ImageReference;
use crate::image::store::StoredImage;
use crate::layer::assemble::Network;
use crate::layer::packages::PackageDifference;
use crate::layer::plan::Plan;
use crate::report::Report;
use anyhow::Result;
use apply_live::Applied;
use layering::{Layering, Requested};
use ostree_ext::ostree;
use serde::{Deserialize, Serialize};

/// What a verb did, so that repeating it is safe and a script can tell.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing had to change; the sentence says why.
    Unchanged(String),
    /// What would be done on top of the image; nothing was changed.
    Planned(Plan),
    /// Everything is stored and nothing was deployed.
    Downloaded {
        /// The image.
        image: StoredImage,
        /// How many packages on top.
        packages: usize,
    },
    /// A new deployment boots next.
    Published {
        /// Staged until shutdown, or written.
        how: Published,
        /// The reference the host follows now.
        reference: ImageReference,
        /// What it was deployed from.
        image: StoredImage,
        /// How its packages differ from those of the deployment it continues.
        difference: PackageDifference,
    },
    /// The boot order or an entry changed without a new image; the sentence says how.
    Changed(String),
    /// The running system was brought to another commit, if it was not there already.
    Applied(Option<Box<Applied>>),
    /// An image was stored.
    Pulled(Box<Pulled>),
    /// Images, layers and objects that nothing needs were removed.
    Freed(Collected),
    /// The sysroot was looked at and mended as far as that goes.
    Checked(Box<fsck::Checkup>),
}

/// What every verb that writes takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Target {
    /// The stateroot, when one was named.
    pub stateroot: Option<String>,
    /// Fail while another writer runs instead of waiting for it.
    pub no_wait: bool,
}

/// Where a new deployment comes from and how far to go with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Fetch {
    /// Use only what is stored.
    pub cache_only: bool,
    /// Store everything that is needed, and deploy nothing.
    pub download_only: bool,
    /// Say what would be done, and change nothing.
    pub dry_run: bool,
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
    /// What the network may be used for where that is not forbidden.
    network: Network,
    /// What is said when the deployment is there already.
    unchanged: String,
}

impl Target {
    /// Returns what to do while another writer runs.
    pub fn patience(&self) -> Patience {
        if self.no_wait {
            Patience::Fail
        } else {
            Patience::Wait
        }
    }
}

impl Fetch {
    /// Returns how far to go.
    pub fn extent(self) -> Extent {
        match (self.dry_run, self.download_only) {
            (true, _) => Extent::Plan,
            (_, true) => Extent::Download,
            _ => Extent::Publish,
        }
    }

    /// Returns where the image may come from.
    pub fn source(self) -> Source {
        if self.cache_only {
            Source::CacheOnly
        } else {
            Source::Network
        }
    }

    /// Changes what is asked for on top of a stored image, and goes as far as asked.
    fn conclude(
        self,
        lock: &WriteLock<'_>,
        next: Next<'_>,
        layering: &Layering,
        report: &dyn Report,
    ) -> Result<Outcome> {
        let network = if self.cache_only {
            Network::Off
        } else {
            next.network
        };
        let Requested { active } = layering.request(lock, &next, network)?;
        let step = Advance {
            stateroot: next.stateroot,
            image: &next.image,
            origin: next.origin,
            merge: next.merge,
            active: &active,
            network,
            script_timeout: layering.script_timeout,
            extent: self.extent(),
            lock_finalization: self.lock_finalization,
        };
        Ok(match advance::advance(lock, &step, report)? {
            Advanced::Unchanged => Outcome::Unchanged(next.unchanged),
            Advanced::Planned(plan) => Outcome::Planned(plan),
            Advanced::Downloaded(packages) => Outcome::Downloaded {
                image: next.image,
                packages,
            },
            Advanced::Published { how, difference } => Outcome::Published {
                how,
                reference: next.reference,
                image: next.image,
                difference,
            },
        })
    }
}
