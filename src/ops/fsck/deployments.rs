//! The deployments: folder, commit, content, the immutable bit, and the data of a staged one.

use super::checkout;
use super::finding::{Finding, Findings, Remedy, is_denied};
use super::site::{Found, Site};
use crate::host::folder;
use crate::report::Report;
use anyhow::{Context, Result};
use ostree_ext::{gio, ostree};
use rustix::fs::IFlags;

/// Where libostree keeps what it stages, below the root of the booted host.
const STAGED: &str = "run/ostree/staged-deployment";

/// Looks at every deployment.
pub(super) fn check(
    site: &Site<'_>,
    quick: bool,
    report: &dyn Report,
    findings: &mut Findings,
) -> Result<()> {
    let step = report.step("Checking deployments");
    if let Some(reason) = &site.refused {
        let message = format!("libostree refuses the sysroot, so nothing can be deployed: {reason}");
        findings.push(
            Finding::error("sysroot-refused", "sysroot", message)
                .hint("the other findings tell what keeps it from loading the sysroot"),
        );
    }
    for found in &site.deployments {
        findings.checked.deployments += 1;
        let kind = ostree::ObjectType::Commit;
        let is_here = site.root.is_dir(&found.folder);
        let has_commit = site
            .repo
            .has_object(kind, &found.commit, gio::Cancellable::NONE)?;
        if !is_here {
            // Told with the boot entry, which is what has to go.
            continue;
        }
        immutable(site, found, findings)?;
        if !has_commit {
            // Told with the objects; without it there is nothing to compare with.
            continue;
        }
        match checkout::check(site, found, quick, findings) {
            Ok(()) => {}
            Err(error) if is_denied(&error) => findings.unread("deployments", &found.id),
            // The tree of a damaged commit, whose objects are told of.
            Err(error) => tracing::debug!("comparing {}: {error:#}", found.id),
        }
    }
    staged(site, findings);
    step.done("Checked deployments");
    Ok(())
}

fn immutable(site: &Site<'_>, found: &Found, findings: &mut Findings) -> Result<()> {
    if found.is_staged {
        return Ok(());
    }
    let folder = match folder::open(&site.root, found.folder.as_path()) {
        Ok(folder) => folder,
        Err(error) if is_denied(&error) => {
            findings.unread("deployments", &found.id);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    // File systems without such flags are none of our business.
    let Ok(flags) = rustix::fs::ioctl_getflags(&folder) else {
        return Ok(());
    };
    if !flags.contains(IFlags::IMMUTABLE) {
        let message = format!("The top folder of the deployment {} can be changed", found.id);
        findings.push(
            Finding::warning("deployment-mutable", format!("{} (flag)", found.id), message)
                .remedy(Remedy::SetImmutable(found.id.clone())),
        );
    }
    Ok(())
}

/// Checks that libostree made a deployment of the data it staged.
fn staged(site: &Site<'_>, findings: &mut Findings) {
    let is_booted = site.deployments.iter().any(|found| found.is_booted);
    let is_staged = site.deployments.iter().any(|found| found.is_staged);
    if is_booted && !is_staged && site.root.exists(STAGED) {
        let message = format!("/{STAGED} exists, and libostree makes no deployment of it");
        findings.push(
            Finding::error("staged-unreadable", STAGED, message)
                .remedy(Remedy::DropStaged)
                .hint("`--repair` drops it; deploy again then"),
        );
    }
}

/// Drops what was staged; the folder of its deployment is a leftover then.
pub(super) fn drop_staged(site: &Site<'_>) -> Result<()> {
    site.root
        .remove_file(STAGED)
        .with_context(|| format!("Removing /{STAGED}"))
}

/// Makes the top folder of a deployment immutable.
pub(super) fn set_immutable(site: &Site<'_>, id: &str) -> Result<()> {
    if let Some(handle) = site.find(id).and_then(|found| found.handle.as_ref()) {
        site.host
            .sysroot()
            .deployment_set_mutable(handle, false, gio::Cancellable::NONE)?;
    }
    Ok(())
}
