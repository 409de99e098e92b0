//! `usroverlay` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::request::Request;
use crate::ops::usroverlay;
use anyhow::Result;
use clap::Args;

/// Make /usr writable for trying something out
///
/// Takes effect at once. What is written to /usr goes at the next restart; with `--hotfix` it stays, for the
/// deployment that runs only. Other deployments are never changed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree usroverlay
      Write to /usr until the next restart
  apt-ostree usroverlay --hotfix
      Keep what is written, until the next upgrade")]
#[command(alias = "unlock")]
pub(crate) struct Arguments {
    /// Keep the changes across reboots, in this deployment only
    #[arg(long)]
    hotfix: bool,
    /// Leave /usr read-only for everybody who does not remount it in a mount namespace of their own
    #[arg(long, conflicts_with = "hotfix")]
    transient: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let outcome = context.perform(&Request::Usroverlay(usroverlay::Options {
        hotfix: arguments.hotfix,
        transient: arguments.transient,
    }))?;
    finish(&outcome, After::default(), context)
}
