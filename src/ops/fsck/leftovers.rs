//! What killed runs left: scratch folders in the repository, folders of deployments that were never published, records
//! of transactions without an end.

use super::entries;
use super::finding::{Finding, Findings, Remedy, is_denied};
use super::site::Site;
use crate::deployment::journal::Records;
use crate::host::folder;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::os::fd::AsFd;

/// How the names of our scratch folders begin, in the repository's `tmp`.
const SCRATCH: &str = "apt-ostree-";

/// Looks for what nobody works in any more.
pub(super) fn check(site: &Site<'_>, findings: &mut Findings) -> Result<()> {
    scratch(site, findings)?;
    if site.refused.is_some() {
        // Nobody knows all deployments then.
        return Ok(());
    }
    transactions(site, findings)?;
    deployments(site, findings)?;
    kernels(site, findings)
}

/// Finds records of transactions that never ended and whose process is gone.
fn transactions(site: &Site<'_>, findings: &mut Findings) -> Result<()> {
    let Some(records) = Records::open(site.host.path())? else {
        return Ok(());
    };
    for record in records.read()? {
        match record {
            Ok(record) if record.finished.is_some() || record.begun.process.is_alive() => {}
            Ok(record) => {
                let verb = &record.begun.verb;
                let message = format!("The transaction {} (`{verb}`) was interrupted", record.number);
                let thing = format!("transaction {}", record.number);
                findings
                    .push(Finding::note("transaction-unfinished", thing, message).remedy(Remedy::Recover));
            }
            Err(error) if is_denied(&error) => {
                findings.unread("records of transactions", format!("{error:#}"))
            }
            Err(error) => {
                let message = format!("A record of a transaction cannot be read: {error:#}");
                findings.push(
                    Finding::warning("record-unreadable", format!("{error:#}"), message)
                        .hint("remove the file that the message names"),
                );
            }
        }
    }
    Ok(())
}

fn scratch(site: &Site<'_>, findings: &mut Findings) -> Result<()> {
    let temporary = folder::open(site.repo.dfd_borrow(), "tmp")?;
    for entry in rustix::fs::Dir::read_from(&temporary)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with(SCRATCH) {
            continue;
        }
        match folder::open(&temporary, name.as_str()) {
            Ok(_) => {}
            Err(error) if is_denied(&error) => {
                findings.unread("scratch folders", name);
                continue;
            }
            Err(_) => continue,
        }
        // Whoever works in it holds its lock.
        if folder::lock(temporary.as_fd(), &name)?.is_some() {
            let message = format!("A run that was killed left ostree/repo/tmp/{name}");
            findings.push(
                Finding::note("leftover-scratch", &name, message).remedy(Remedy::RemoveScratch(name.clone())),
            );
        }
    }
    Ok(())
}

/// Finds folders of deployments that neither an entry nor a link for booting names.
fn deployments(site: &Site<'_>, findings: &mut Findings) -> Result<()> {
    let linked: BTreeSet<_> = entries::linked(site, &site.boot()?)?
        .iter()
        .map(|entry| entry.folder())
        .collect();
    for stateroot in entries::names(&site.root, "ostree/deploy".as_ref())? {
        let top = std::path::Path::new("ostree/deploy")
            .join(stateroot)
            .join("deploy");
        if !site.root.is_dir(&top) {
            continue;
        }
        for name in entries::names(&site.root, &top)? {
            let folder = top.join(name);
            let is_known = site.deployments.iter().any(|found| found.folder == folder);
            if is_known || linked.contains(&folder) || !site.root.is_dir(&folder) {
                continue;
            }
            let thing = folder.display().to_string();
            let message = format!("/{thing} is the folder of a deployment that was not published or is gone");
            findings.push(Finding::note("leftover-deployment", thing, message).remedy(Remedy::CleanUp));
        }
    }
    Ok(())
}

/// Finds kernels on `/boot` that no deployment starts.
fn kernels(site: &Site<'_>, findings: &mut Findings) -> Result<()> {
    let boot = site.boot()?;
    if !boot.is_dir("ostree") {
        return Ok(());
    }
    let used: BTreeSet<String> = entries::linked(site, &boot)?
        .iter()
        .map(|entry| format!("{}-{}", entry.stateroot, entry.bootcsum))
        .collect();
    for name in entries::names(&boot, "ostree".as_ref())? {
        let is_checksum = name.rsplit('-').next().is_some_and(|end| end.len() == 64);
        if is_checksum && !used.contains(&name) {
            let message = format!("/boot/ostree/{name} holds a kernel that no deployment starts");
            findings.push(
                Finding::note("leftover-kernel", format!("boot/ostree/{name}"), message)
                    .remedy(Remedy::CleanUp),
            );
        }
    }
    Ok(())
}

/// Removes a scratch folder, unless somebody works in it by now.
pub(super) fn remove(site: &Site<'_>, name: &str) -> Result<()> {
    let temporary = folder::open(site.repo.dfd_borrow(), "tmp")?;
    match folder::lock(temporary.as_fd(), name)? {
        Some(_held) => folder::remove_tree(temporary.as_fd(), name)
            .with_context(|| format!("Removing ostree/repo/tmp/{name}")),
        None => Ok(()),
    }
}
