//! `cleanup` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::cleanup;
use crate::ops::request::Request;
use anyhow::Result;
use clap::Args;

/// Remove deployments, and what no deployment needs
///
/// Frees space at once. The booted deployment and pinned ones always stay. Without the deployment behind the
/// booted one there is nothing to roll back to until the next change.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree cleanup --pending
      Drop what would boot next, and stay with what runs
  apt-ostree cleanup --base
      Remove temporary files and what nothing needs")]
#[group(required = true, multiple = true)]
pub(crate) struct Arguments {
    /// Remove temporary files, and images, layers and objects that nothing needs
    #[arg(short, long)]
    base: bool,
    /// Remove the deployment that would boot next
    #[arg(short, long)]
    pending: bool,
    /// Remove the deployments behind the booted one
    #[arg(short, long)]
    rollback: bool,
    /// Remove the stored package lists of the repositories
    #[arg(short = 'm', long)]
    repomd: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let outcome = context.perform(&Request::Cleanup(cleanup::Options {
        base: arguments.base,
        pending: arguments.pending,
        rollback: arguments.rollback,
        repomd: arguments.repomd,
        target: context.target(),
    }))?;
    finish(&outcome, After::default(), context)
}
