//! What packages a deployment would have: the requests are solved on the image, and nothing is fetched for them, made
//! or deployed.

use crate::deployment::advance::{self, Advance, Advanced, Extent};
use crate::deployment::origin::Origin;
use crate::deployment::sysroot::WriteLock;
use crate::image::store::StoredImage;
use crate::layer::assemble::{Network, SCRIPT_TIMEOUT};
use crate::layer::packages::{self, PackageDifference, Packages};
use crate::layer::plan::Plan;
use crate::report::Report;
use anyhow::{Result, bail};
use ostree_ext::ostree;

/// An image that might be deployed.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The stateroot it would go to.
    pub stateroot: &'a str,
    /// The image, already stored.
    pub image: &'a StoredImage,
    /// The requests on top of it.
    pub origin: &'a Origin,
    /// The deployment it would continue.
    pub merge: &'a ostree::Deployment,
}

/// Returns how the packages would differ from those of the deployment that is continued; package lists are fetched
/// anew where something is asked for.
///
/// Fails when a request cannot be met, as the deployment would.
pub fn packages(
    lock: &WriteLock<'_>,
    candidate: &Candidate<'_>,
    report: &dyn Report,
) -> Result<PackageDifference> {
    let step = Advance {
        stateroot: candidate.stateroot,
        image: candidate.image,
        origin: candidate.origin,
        merge: Some(candidate.merge),
        active: &[],
        network: Network::Fresh,
        script_timeout: SCRIPT_TIMEOUT,
        extent: Extent::Plan,
        lock_finalization: false,
    };
    let Advanced::Planned(plan) = advance::advance(lock, &step, report)? else {
        bail!("More than a plan was made");
    };
    let repo = lock.host().repo();
    let before = packages::of_commit(&repo, &candidate.merge.csum())?;
    let after = with(packages::of_commit(&repo, &candidate.image.commit)?, &plan);
    Ok(packages::difference(&before, &after))
}

/// Returns the packages of an image after a plan was carried out on it.
fn with(mut packages: Packages, plan: &Plan) -> Packages {
    for gone in &plan.removals {
        packages.remove(&(gone.name.clone(), gone.architecture.clone()));
    }
    for new in &plan.packages {
        // What it replaces may have had another architecture.
        packages.retain(|(name, _), version| *name != new.id.name || new.replaces.as_ref() != Some(version));
    }
    for new in &plan.packages {
        let id = &new.id;
        packages.insert((id.name.clone(), id.architecture.clone()), id.version.clone());
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::plan::{PackageId, PlannedPackage};

    #[test]
    fn a_plan_on_an_image() {
        let id = |name: &str, architecture: &str, version: &str| PackageId {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            version: version.to_owned(),
        };
        let planned = |id: PackageId, replaces: Option<&str>| PlannedPackage {
            id,
            replaces: replaces.map(str::to_owned),
            repository: String::new(),
            uri: None,
            sha256: String::new(),
            download_size: 0,
            installed_size: 0,
            automatic: false,
        };
        let key = |name: &str, architecture: &str| (name.to_owned(), architecture.to_owned());
        let image = Packages::from([
            (key("gone", "all"), "1".to_owned()),
            (key("lib", "amd64"), "1".to_owned()),
            (key("lib", "i386"), "1".to_owned()),
            (key("moves", "all"), "1".to_owned()),
        ]);
        let plan = Plan {
            packages: vec![
                planned(id("lib", "amd64", "2"), Some("1")),
                planned(id("lib", "i386", "2"), Some("1")),
                planned(id("moves", "amd64", "2"), Some("1")),
                planned(id("new", "all", "1"), None),
            ],
            removals: vec![id("gone", "all", "1")],
            ..Plan::default()
        };
        let expected = Packages::from([
            (key("lib", "amd64"), "2".to_owned()),
            (key("lib", "i386"), "2".to_owned()),
            (key("moves", "amd64"), "2".to_owned()),
            (key("new", "all"), "1".to_owned()),
        ]);
        assert_eq!(with(image, &plan), expected);
    }
}
