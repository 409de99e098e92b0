//! `upgrade --check` and `--preview`: what an upgrade would bring, with nothing deployed.

use crate::deployment::advance;
use crate::deployment::automatic::{self, CachedUpdate};
use crate::deployment::origin::Origin;
use crate::deployment::outlook::{self, Candidate};
use crate::deployment::sysroot::{Host, Patience};
use crate::fault::{Fault, Kind};
use crate::host::clock;
use crate::image::difference::ManifestDifference;
use crate::image::pull;
use crate::image::reference::ImageReference;
use crate::layer::packages::PackageDifference;
use crate::report::Report;
use anyhow::{Context, Result};
use ostree_ext::glib;

/// An update that this host does not have: of its image, or of what stands on top of it.
#[derive(Clone, Debug)]
pub struct Available {
    /// What the host follows.
    pub reference: ImageReference,
    /// Whether the image is another one; otherwise only packages on top of it are.
    pub is_new_image: bool,
    /// The digest of the new manifest.
    pub manifest_digest: String,
    /// The version the new image states.
    pub version: Option<String>,
    /// When the new image was created, RFC 3339.
    pub created: Option<String>,
    /// Layers that come and go.
    pub layers: ManifestDifference,
    /// Packages that come, go and change; only a preview knows them.
    pub packages: Option<PackageDifference>,
}

/// Compares the registry's manifest with the current deployment; no layer is fetched and nothing is written.
pub fn check(host: &Host, stateroot: Option<&str>) -> Result<Option<Available>> {
    let stateroot = host.stateroot(stateroot)?;
    let merge = host.merge_deployment(&stateroot).ok_or_else(|| {
        Fault::new(
            Kind::NotFound,
            format!("The stateroot `{stateroot}` has no deployment to check"),
        )
    })?;
    let origin = Origin::of(&merge)?;
    let reference = origin.require_reference()?;
    origin.refuse_custom()?;
    let remote = pull::inspect(&reference).with_context(|| format!("Checking {reference}"))?;
    let current = advance::image_of(host, &merge).ok();
    if current
        .as_ref()
        .is_some_and(|current| current.manifest_digest == remote.manifest_digest)
    {
        return Ok(None);
    }
    Ok(Some(Available {
        reference,
        is_new_image: true,
        version: remote.version(),
        created: remote.created(),
        layers: ManifestDifference::between(
            current.as_ref().map(|current| &current.manifest),
            &remote.manifest,
        ),
        manifest_digest: remote.manifest_digest,
        packages: None,
    }))
}

/// Notes what a check found, for `status`; an earlier find is forgotten when nothing is found now.
pub fn remember(host: &Host, stateroot: Option<&str>, found: Option<&Available>) -> Result<()> {
    let stateroot = host.stateroot(stateroot)?;
    if found.is_none() && automatic::read(host, &stateroot).is_ok_and(|notes| notes.cached_update.is_none()) {
        return Ok(());
    }
    let update = found.map(|found| found.cached(&stateroot));
    automatic::note(host, &stateroot, |notes| notes.cached_update = update)
}

impl Available {
    /// Returns what is noted and shown of it.
    pub fn cached(&self, stateroot: &str) -> CachedUpdate {
        let created = self.created.as_deref();
        let created =
            created.and_then(|text| glib::DateTime::from_iso8601(text, Some(&glib::TimeZone::utc())).ok());
        CachedUpdate {
            osname: stateroot.to_owned(),
            container_image_reference: self.reference.to_string(),
            container_image_reference_digest: self.manifest_digest.clone(),
            version: self.version.clone(),
            timestamp: created.and_then(|time| u64::try_from(time.to_unix()).ok()),
            ref_has_new_commit: self.is_new_image,
            manifest_diff: (&self.layers).into(),
            package_diff: self.packages.clone(),
            noticed: clock::seconds(),
        }
    }
}

/// Returns whether anything is asked for on top of the image of the next boot.
pub fn has_requests(host: &Host, stateroot: Option<&str>) -> Result<bool> {
    let stateroot = host.stateroot(stateroot)?;
    match host.merge_deployment(&stateroot) {
        Some(merge) => Ok(!Origin::of(&merge)?.intent()?.is_empty()),
        None => Ok(false),
    }
}

/// Checks as [`check`] does, and compares all packages: those of the images, and those that the requests on top mean
/// on the new one, or on the same one by now.
///
/// The layers are fetched, and the package lists where something is asked for; an `upgrade` that follows does not fetch
/// the layers again. Fails when a request cannot be met on the new image, as the upgrade would.
pub fn preview(
    host: &Host,
    stateroot: Option<&str>,
    patience: Patience,
    report: &dyn Report,
) -> Result<Option<Available>> {
    let found = check(host, stateroot)?;
    if found.is_none() && !has_requests(host, stateroot)? {
        return Ok(None);
    }
    let lock = host.lock("upgrade --preview", patience, report)?;
    let stateroot = host.stateroot(stateroot)?;
    let merge = host.require_merge_deployment(&stateroot, "to upgrade")?;
    let origin = Origin::of(&merge)?;
    let image = match &found {
        Some(found) => advance::obtain(&lock, &found.reference, advance::Source::Network, report)?,
        None => advance::image_of(host, &merge)?,
    };
    let candidate = Candidate {
        stateroot: &stateroot,
        image: &image,
        origin: &origin,
        merge: &merge,
    };
    let difference = outlook::packages(&lock, &candidate, report)?;
    if found.is_none() && difference.is_empty() {
        return Ok(None);
    }
    let available = match found {
        Some(found) => found,
        None => Available {
            reference: origin.require_reference()?,
            is_new_image: false,
            version: image.version(),
            created: image.created(),
            layers: ManifestDifference::between(Some(&image.manifest), &image.manifest),
            manifest_digest: image.manifest_digest,
            packages: None,
        },
    };
    Ok(Some(Available {
        packages: Some(difference),
        ..available
    }))
}
