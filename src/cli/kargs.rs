//! `kargs` on the command line.

use crate::cli::outcome::{After, finish};
use crate::cli::{Context, editor};
use crate::ops::kargs;
use crate::ops::request::Request;
use anyhow::Result;
use clap::Args;

/// What stands above the arguments in an editor.
const INSTRUCTIONS: &str = "\
# The kernel arguments of the next boot: KEY or KEY=VALUE, with white space between them.
# Lines that begin with # do not count. The argument ostree= is written by libostree and does not stand here.
";

/// Show or change the kernel arguments
///
/// A change makes a new deployment of the same image with other arguments, which boots at the next restart and
/// keeps them with each new image. The arguments of the deployment that runs stay as they are, so `apt-ostree
/// rollback` takes a change back.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree kargs
      Print the arguments of the next boot
  apt-ostree kargs --append=console=ttyS0 --delete=quiet
      Add one argument and remove another
  apt-ostree kargs --replace=loglevel=7
      Give an argument another value")]
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
    /// Change the arguments in $VISUAL or $EDITOR
    #[arg(long, conflicts_with_all = ["append", "append_if_missing", "delete", "delete_if_present", "replace"])]
    editor: bool,
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
    /// Returns whether the arguments are only shown.
    fn only_looks(&self) -> bool {
        let changes = [
            &self.append,
            &self.append_if_missing,
            &self.delete,
            &self.delete_if_present,
            &self.replace,
        ];
        changes.iter().all(|list| list.is_empty()) && !self.import_proc_cmdline && !self.editor
    }
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    if arguments.only_looks() {
        let host = context.host("kargs")?;
        let shown = kargs::show(
            &host,
            context.global.stateroot.as_deref(),
            arguments.deploy_index,
            false,
        )?;
        writeln!(context.out, "{shown}")?;
        return Ok(0);
    }
    let edited = if arguments.editor {
        Some(edit(arguments, context)?)
    } else {
        None
    };
    let (editor_from, editor) = edited.unzip();
    let outcome = context.perform(&Request::Kargs(kargs::Options {
        append: arguments.append.clone(),
        append_if_missing: arguments.append_if_missing.clone(),
        delete: arguments.delete.clone(),
        delete_if_present: arguments.delete_if_present.clone(),
        replace: arguments.replace.clone(),
        deploy_index: arguments.deploy_index,
        import_proc_cmdline: arguments.import_proc_cmdline,
        editor,
        editor_from,
        target: context.target(),
        lock_finalization: arguments.lock_finalization,
        reboot: arguments.reboot,
    }))?;
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

/// Returns the arguments as they are and as the person's editor left them.
///
/// What cannot be used is told before anything else happens.
fn edit(arguments: &Arguments, context: &Context<'_>) -> Result<(String, String)> {
    let before = kargs::show(
        &context.host("kargs")?,
        context.global.stateroot.as_deref(),
        arguments.deploy_index,
        arguments.import_proc_cmdline,
    )?;
    let text = editor::edit(&format!("{INSTRUCTIONS}{before}\n"), "kargs --editor")?;
    before.edited(&text)?;
    Ok((before.to_string(), text))
}
