//! `upgrade --check` and `--preview`: what an upgrade would bring, with nothing deployed.

use crate::deployment::advance;
use crate::deployment::automatic::{self, CachedUpdate};
use crate::deployment::origin::Origin;
use crate::deployment::sysroot::{Host, Patience};
use crate::fault::{Fault, Kind};
use crate::host::clock;
use crate::image::difference::ManifestDifference;
use crate::image::pull;
use crate::image::reference::ImageReference;
use crate::layer::packages::{self, PackageDifference};
use crate::layer::record;
use crate::report::Report;
use anyhow::{Context, Result};
use ostree_ext::glib;

/// An update that the registry has and this host does not.
#[derive(Clone, Debug)]
pub struct Available {
    /// What the host follows.
    pub reference: ImageReference,
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
            ref_has_new_commit: true,
            manifest_diff: (&self.layers).into(),
            package_diff: self.packages.clone(),
            noticed: clock::seconds(),
        }
    }
}

/// Checks as [`check`] does and compares packages, for which the layers must be fetched; an `upgrade` that follows
/// does not fetch them again.
pub fn preview(
    host: &Host,
    stateroot: Option<&str>,
    patience: Patience,
    report: &dyn Report,
) -> Result<Option<Available>> {
    let Some(mut available) = check(host, stateroot)? else {
        return Ok(None);
    };
    let lock = host.lock("upgrade --preview", patience, report)?;
    let stateroot = host.stateroot(stateroot)?;
    let image = advance::obtain(&lock, &available.reference, advance::Source::Network, report)?;
    let repo = host.repo();
    let before = match host.merge_deployment(&stateroot) {
        // What is layered comes on top of both.
        Some(merge) => packages::of_commit(&repo, &record::base_of(&repo, &merge.csum())?)?,
        None => packages::Packages::new(),
    };
    let after = packages::of_commit(&repo, &image.commit)?;
    available.packages = Some(packages::difference(&before, &after));
    Ok(Some(available))
}
