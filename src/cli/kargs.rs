//! `kargs` on the command line.

use crate::boot::kargs::Change;
use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::kargs::{self, Options};
use anyhow::Result;
use clap::Args;

/// Show or change the kernel arguments of the next boot
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Add KEY=VALUE or KEY at the end
    #[arg(long, value_name = "ARG")]
    append: Vec<String>,
    /// Add KEY=VALUE or KEY unless it is there already
    #[arg(long, value_name = "ARG")]
    append_if_missing: Vec<String>,
    /// Remove KEY or KEY=VALUE
    #[arg(long, value_name = "ARG", conflicts_with = "replace")]
    delete: Vec<String>,
    /// Remove KEY or KEY=VALUE if it is there
    #[arg(long, value_name = "ARG")]
    delete_if_present: Vec<String>,
    /// Replace a value: KEY=VALUE, or KEY=VALUE=NEW where KEY has several values
    #[arg(long, value_name = "ARG")]
    replace: Vec<String>,
    /// Take the arguments of this deployment instead of those of the next boot
    #[arg(long, value_name = "INDEX", conflicts_with = "import_proc_cmdline")]
    deploy_index: Option<usize>,
    /// Take the arguments the running kernel was started with
    #[arg(long)]
    import_proc_cmdline: bool,
    /// Stage the deployment, but do not apply it before `finalize-deployment`
    #[arg(long)]
    lock_finalization: bool,
    /// End with 77 when nothing changed
    #[arg(long)]
    unchanged_exit_77: bool,
    /// Reboot when the arguments changed
    #[arg(long)]
    reboot: bool,
}

impl Arguments {
    fn changes(&self) -> Vec<Change> {
        let made =
            |list: &[String], make: fn(String) -> Change| list.iter().cloned().map(make).collect::<Vec<_>>();
        let mut changes = made(&self.delete, Change::Delete);
        changes.extend(made(&self.delete_if_present, Change::DeleteIfPresent));
        changes.extend(made(&self.replace, Change::Replace));
        changes.extend(made(&self.append, Change::Append));
        changes.extend(made(&self.append_if_missing, Change::AppendIfMissing));
        changes
    }

    /// Returns whether the arguments are only shown.
    pub(crate) fn only_looks(&self) -> bool {
        self.changes().is_empty() && !self.import_proc_cmdline
    }
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    if arguments.only_looks() {
        let host = context.host("kargs", false)?;
        let shown = kargs::show(
            &host,
            context.global.stateroot.as_deref(),
            arguments.deploy_index,
            false,
        )?;
        writeln!(context.out, "{shown}")?;
        return Ok(0);
    }
    let host = context.host_to_change("kargs", arguments.reboot)?;
    let options = Options {
        target: context.target(),
        changes: arguments.changes(),
        deploy_index: arguments.deploy_index,
        import_proc_cmdline: arguments.import_proc_cmdline,
        lock_finalization: arguments.lock_finalization,
    };
    let outcome = kargs::run(&host, &options, context.report)?;
    finish(
        &outcome,
        After {
            reboot: arguments.reboot,
            unchanged_exit_77: arguments.unchanged_exit_77,
            ..After::default()
        },
        context,
    )
}
