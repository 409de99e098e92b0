//! Publishing a deployment: the one step that changes what boots next.
//!
//! On a booted host the deployment is staged (libostree finalizes it at shutdown, merging `/etc` then); on another
//! sysroot it is written at once. Until the libostree call at the end of [`publish`] nothing that boots has changed.

use crate::boot::kargs::{Change, KernelArguments};
use crate::boot::kargs_d;
use crate::boot::loader::{self, Loader};
use crate::deployment::history::{self, Facts};
use crate::deployment::journal::Journal;
use crate::deployment::origin::{self, Origin};
use crate::deployment::overlay_initrd;
use crate::deployment::sysroot::{Host, WriteLock};
use crate::fault::{Fault, Kind};
use crate::host::{checkpoint, clock, stderr};
use crate::image::content::CommitTree;
use crate::report::Report;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use ostree_ext::{gio, ostree};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// libostree does not finalize a staged deployment while this file exists.
const FINALIZATION_LOCK: &str = "/run/ostree/staged-deployment-locked";

/// A deployment that is to be published.
#[derive(Debug)]
pub struct NewDeployment<'a> {
    /// The stateroot it goes to.
    pub stateroot: &'a str,
    /// The commit it is a checkout of.
    pub commit: &'a str,
    /// The intent it records.
    pub origin: &'a Origin,
    /// The deployment it continues: source of `/etc`, of kernel arguments where none are given.
    pub merge: Option<&'a ostree::Deployment>,
    /// All its kernel arguments.
    pub kernel_arguments: &'a KernelArguments,
    /// Stage it, and do not apply it at shutdown until `finalize-deployment`.
    pub lock_finalization: bool,
}

/// How a deployment was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Published {
    /// It waits for the shutdown of the booted host.
    Staged,
    /// It is the first boot entry already.
    Written,
}

/// Publishes a deployment as the next to boot.
///
/// Fails without a change to the boot order. A deployment directory that an interrupted run left behind is removed
/// by the next [`crate::deployment::prune::clean`]. A history that cannot be written is a warning: the deployment is
/// there then.
#[context("Publishing the deployment")]
pub fn publish(lock: &WriteLock<'_>, new: &NewDeployment<'_>, report: &dyn Report) -> Result<Published> {
    let host = lock.host();
    let sysroot = host.sysroot();
    // A staged deployment goes when the next one is staged, so `/etc` comes from what libostree chooses.
    let merge = new
        .merge
        .and_then(|_| sysroot.merge_deployment(Some(new.stateroot)));
    let merge = merge.as_ref();
    require_loader(host)?;
    let overlay = overlay_initrd::stage(host, merge, &new.origin.intent()?.initramfs_etc)?;
    let mut arguments = new.kernel_arguments.clone();
    if let Some(name) = &overlay {
        loader::refresh(&boot_dir(host)?)?;
        arguments.apply(&Change::Append(format!("{}={name}", loader::OVERLAY_ARGUMENT)))?;
    }
    let words: Vec<&str> = arguments.words().iter().map(String::as_str).collect();
    let overlays: Vec<&str> = overlay.iter().map(String::as_str).collect();
    let options = ostree::SysrootDeployTreeOpts {
        override_kernel_argv: Some(&words),
        overlay_initrds: overlay.as_ref().map(|_| overlays.as_slice()),
    };
    let entry = announce(host, new)?;
    checkpoint::reach("publish-before")?;
    if host.booted().is_some() {
        set_finalization_locked(new.lock_finalization)?;
        let deployment = stderr::to_log(|| {
            Ok(sysroot.stage_tree_with_options(
                Some(new.stateroot),
                new.commit,
                Some(new.origin.key_file()),
                merge,
                &options,
                gio::Cancellable::NONE,
            )?)
        })?;
        // libostree drops the lock file while it stages, so it is made again.
        set_finalization_locked(new.lock_finalization)?;
        checkpoint::reach("publish-after")?;
        remember(host, &deployment, entry, report);
        return Ok(Published::Staged);
    }
    let deployment = stderr::to_log(|| {
        Ok(sysroot.deploy_tree_with_options(
            Some(new.stateroot),
            new.commit,
            Some(new.origin.key_file()),
            merge,
            Some(&options),
            gio::Cancellable::NONE,
        )?)
    })?;
    checkpoint::reach("publish-deployed")?;
    sysroot.simple_write_deployment(
        Some(new.stateroot),
        &deployment,
        merge,
        ostree::SysrootSimpleWriteDeploymentFlags::NO_CLEAN,
        gio::Cancellable::NONE,
    )?;
    checkpoint::reach("publish-after")?;
    remember(host, &deployment, entry, report);
    Ok(Published::Written)
}

/// Records in the transaction journal what is about to be published, and returns its entry in the history, in which
/// the deployment's id is still missing.
fn announce(host: &Host, new: &NewDeployment<'_>) -> Result<history::Entry> {
    let from = new.merge.map(origin::id);
    let to = Facts::of(&host.repo(), new.commit, Some(new.origin));
    if let Some(journal) = host.journal() {
        journal.publishing(new.stateroot, from.clone(), to.clone())?;
    }
    let entry = host.journal().map(Journal::entry);
    Ok(history::Entry {
        format: history::FORMAT,
        created: clock::seconds(),
        transaction: host.journal().and_then(Journal::number),
        verb: entry.map(|entry| entry.verb.clone()),
        title: entry.map(|entry| entry.title.clone()),
        initiator: entry.map(|entry| entry.initiator.clone()),
        uid: entry.map(|entry| entry.uid),
        deployment: String::new(),
        stateroot: new.stateroot.to_owned(),
        from,
        to,
    })
}

/// Writes the history of a deployment that is published.
fn remember(host: &Host, deployment: &ostree::Deployment, mut entry: history::Entry, report: &dyn Report) {
    entry.deployment = origin::id(deployment);
    if let Some(journal) = host.journal() {
        journal.published(&entry.deployment);
    }
    if let Err(error) = history::write(host.path(), &host.deployments(), entry) {
        report.warning(&format!("{error:#}."));
    }
}

/// Makes `order` the deployments of the sysroot, in boot order.
///
/// Where libostree's GRUB backend writes the menu, the new menu is checked, and the former order is put back when
/// an entry is missing in it: the backend reports success for a menu without entries.
#[context("Writing the boot order")]
pub fn reorder(lock: &WriteLock<'_>, order: &[ostree::Deployment]) -> Result<()> {
    let host = lock.host();
    let loader = require_loader(host)?;
    let before: Vec<ostree::Deployment> = host
        .deployments()
        .into_iter()
        .filter(|deployment| !deployment.is_staged())
        .collect();
    if let Some(journal) = host.journal() {
        journal.reordering(order.iter().map(origin::id).collect())?;
    }
    checkpoint::reach("reorder-before")?;
    let options = ostree::SysrootWriteDeploymentsOpts { do_postclean: false };
    host.sysroot()
        .write_deployments_with_options(order, &options, gio::Cancellable::NONE)?;
    if loader == Loader::Grub2 {
        if let Err(error) = loader::check_grub_cfg(&boot_dir(host)?) {
            host.sysroot()
                .write_deployments_with_options(&before, &options, gio::Cancellable::NONE)
                .with_context(|| format!("Putting the former boot order back after: {error:#}"))?;
            return Err(error);
        }
    }
    checkpoint::reach("reorder-after")
}

/// Returns the boot loader of the sysroot, after checking that it can take a new deployment.
fn require_loader(host: &Host) -> Result<Loader> {
    let loader = Loader::detect(&boot_dir(host)?)?;
    if loader == Loader::Grub2 {
        if host.booted().is_none() {
            return Err(Fault::new(
                Kind::Unsupported,
                format!(
                    "The sysroot {} uses libostree's GRUB backend, which works on the booted host only",
                    host.path().display()
                ),
            )
            .hint("boot it and run the command there, or provision with `--bootloader grub`")
            .into());
        }
        loader::check_ready(&Dir::open_ambient_dir("/", ambient_authority()).context("Opening /")?)?;
    }
    Ok(loader)
}

fn boot_dir(host: &Host) -> Result<Dir> {
    let path = host.path().join("boot");
    Dir::open_ambient_dir(&path, ambient_authority()).with_context(|| format!("Opening {}", path.display()))
}

/// Returns the kernel arguments for a deployment of `commit` that continues `merge`: the current ones with the
/// difference between what the two images ask for.
#[context("Working out the kernel arguments")]
pub fn kernel_arguments(
    host: &Host,
    merge: Option<&ostree::Deployment>,
    commit: &str,
) -> Result<KernelArguments> {
    let repo = host.repo();
    let wanted = CommitTree::open(&repo, commit)?.kernel_arguments()?;
    let (mut current, before) = match merge {
        None => (KernelArguments::default(), Vec::new()),
        // A tree that can no longer be read asked for nothing that we could take back.
        Some(merge) => {
            let before = CommitTree::open(&repo, &merge.csum()).and_then(|tree| tree.kernel_arguments());
            if let Err(error) = &before {
                tracing::warn!("The previous image's kernel arguments cannot be read: {error:#}");
            }
            (current_arguments(merge), before.unwrap_or_default())
        }
    };
    kargs_d::apply_difference(&mut current, &before, &wanted);
    Ok(current)
}

/// Returns the kernel arguments of a deployment, without those that belong to it alone: libostree's `ostree=`
/// and the name of its archive for the initramfs.
pub fn current_arguments(deployment: &ostree::Deployment) -> KernelArguments {
    let line = deployment
        .bootconfig()
        .and_then(|entry| entry.get("options"))
        .unwrap_or_default();
    let mut current = KernelArguments::parse(&line);
    for key in ["ostree", loader::OVERLAY_ARGUMENT] {
        current.remove_key(key);
    }
    current
}

/// Returns whether the staged deployment waits for `finalize-deployment`.
pub fn finalization_locked() -> bool {
    Path::new(FINALIZATION_LOCK).exists()
}

/// Makes the staged deployment wait for `finalize-deployment`, or lets the next shutdown apply it.
pub fn set_finalization_locked(locked: bool) -> Result<()> {
    let done = if locked {
        std::fs::write(FINALIZATION_LOCK, "")
    } else {
        std::fs::remove_file(FINALIZATION_LOCK)
    };
    match done {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !locked => Ok(()),
        done => done.with_context(|| format!("Changing {FINALIZATION_LOCK}")),
    }
}
