//! `kargs`: show or change kernel arguments.

use crate::boot::kargs::{Change, KernelArguments};
use crate::boot::loader;
use crate::deployment::advance;
use crate::deployment::origin::Origin;
use crate::deployment::prune;
use crate::deployment::staging::{self, NewDeployment};
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::ops::{Outcome, Target};
use crate::report::Report;
use anyhow::{Context, Result};
use ostree_ext::ostree;

/// How to change kernel arguments.
#[derive(Clone, Debug)]
pub struct Options {
    /// Stateroot and patience.
    pub target: Target,
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// Take the arguments of this deployment, counted from the first boot entry, instead of the pending one's.
    pub deploy_index: Option<usize>,
    /// Take the arguments the running kernel was started with.
    pub import_proc_cmdline: bool,
    /// Stage the new deployment locked.
    pub lock_finalization: bool,
}

/// Returns the kernel arguments a change would begin with, without the `ostree=` of the deployment.
///
/// Needs neither root nor the lock.
pub fn show(
    host: &Host,
    stateroot: Option<&str>,
    deploy_index: Option<usize>,
    proc_cmdline: bool,
) -> Result<KernelArguments> {
    if proc_cmdline {
        let line =
            std::fs::read_to_string("/proc/cmdline").context("Reading the running kernel's arguments")?;
        let mut current = KernelArguments::parse(&line);
        for key in ["ostree", "BOOT_IMAGE", "initrd", loader::OVERLAY_ARGUMENT] {
            current.remove_key(key);
        }
        return Ok(current);
    }
    Ok(staging::current_arguments(&source(
        host,
        &host.stateroot(stateroot)?,
        deploy_index,
    )?))
}

/// Makes a deployment of the same commit with changed kernel arguments boot next.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let lock = host.lock("kargs", options.target.patience, report)?;
    let stateroot = host.stateroot(options.target.stateroot.as_deref())?;
    let before = show(
        host,
        Some(&stateroot),
        options.deploy_index,
        options.import_proc_cmdline,
    )?;
    let mut after = before.clone();
    for change in &options.changes {
        after.apply(change)?;
    }
    if after == before && !options.import_proc_cmdline {
        return Ok(Outcome::Unchanged("No changes.".to_owned()));
    }
    let merge = source(host, &stateroot, options.deploy_index)?;
    prune::protect(&lock)?;
    staging::publish(
        &lock,
        &NewDeployment {
            stateroot: &stateroot,
            commit: &merge.csum(),
            origin: &Origin::of(&merge)?,
            merge: Some(&merge),
            kernel_arguments: &after,
            lock_finalization: options.lock_finalization,
        },
    )?;
    advance::clean(&lock, report);
    Ok(Outcome::Changed(format!(
        "Kernel arguments of the next boot: {after}"
    )))
}

fn source(host: &Host, stateroot: &str, index: Option<usize>) -> Result<ostree::Deployment> {
    match index {
        Some(index) => host.deployments().get(index).cloned().ok_or_else(|| {
            Fault::new(
                Kind::NotFound,
                format!("There is no deployment with the index {index}"),
            )
            .hint("the indexes are those of `apt-ostree status --verbose`")
            .into()
        }),
        None => host.merge_deployment(stateroot).ok_or_else(|| {
            Fault::new(
                Kind::NotFound,
                format!("The stateroot `{stateroot}` has no deployment"),
            )
            .into()
        }),
    }
}
