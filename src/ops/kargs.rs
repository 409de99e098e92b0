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
use serde::{Deserialize, Serialize};

/// How to change kernel arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// `KEY=VALUE` or `KEY`, added at the end.
    pub append: Vec<String>,
    /// The same, where it is not there already.
    pub append_if_missing: Vec<String>,
    /// `KEY` or `KEY=VALUE`, removed.
    pub delete: Vec<String>,
    /// The same, where it is there.
    pub delete_if_present: Vec<String>,
    /// `KEY=VALUE`, or `KEY=VALUE=NEW` where the key has several values.
    pub replace: Vec<String>,
    /// The deployment to take the arguments of, by its place in the boot order.
    pub deploy_index: Option<usize>,
    /// Take the arguments of the running kernel.
    pub import_proc_cmdline: bool,
    /// All arguments as an editor left them, instead of any other change.
    pub editor: Option<String>,
    /// The arguments that stood in the editor first; others by now are no longer what the person saw.
    pub editor_from: Option<String>,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
    /// Stage it locked.
    pub lock_finalization: bool,
    /// Reboot when something changed.
    pub reboot: bool,
}

impl Options {
    /// Returns the changes in the order they are made: first what goes, then what comes.
    fn changes(&self) -> impl Iterator<Item = Change> {
        let made = |list: &[String], make: fn(String) -> Change| -> Vec<Change> {
            list.iter().cloned().map(make).collect()
        };
        [
            made(&self.delete, Change::Delete),
            made(&self.delete_if_present, Change::DeleteIfPresent),
            made(&self.replace, Change::Replace),
            made(&self.append, Change::Append),
            made(&self.append_if_missing, Change::AppendIfMissing),
        ]
        .into_iter()
        .flatten()
    }
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
    let lock = host.lock("kargs", options.target.patience(), report)?;
    let stateroot = host.stateroot(options.target.stateroot.as_deref())?;
    let before = show(
        host,
        Some(&stateroot),
        options.deploy_index,
        options.import_proc_cmdline,
    )?;
    let mut after = before.clone();
    if let Some(text) = &options.editor {
        after = edited(&before, text, options.editor_from.as_deref())?;
    }
    for change in options.changes() {
        after.apply(&change)?;
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
        report,
    )?;
    advance::clean(&lock, report);
    Ok(Outcome::Changed(format!(
        "Kernel arguments of the next boot: {after}"
    )))
}

/// Returns what an editor left, unless the arguments changed while somebody edited them.
fn edited(before: &KernelArguments, text: &str, from: Option<&str>) -> Result<KernelArguments, Fault> {
    if from.is_some_and(|from| before.to_string() != from) {
        return Err(Fault::new(
            Kind::Busy,
            format!("The kernel arguments changed while they were edited; they are now: {before}"),
        )
        .hint("edit them again with `apt-ostree kargs --editor`"));
    }
    before.edited(text)
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
