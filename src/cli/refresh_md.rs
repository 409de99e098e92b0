//! `refresh-md` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::refresh_md;
use crate::ops::request::Request;
use anyhow::Result;
use clap::Args;

/// Fetch the package lists of the repositories
///
/// What `apt update` is on other systems. `install` and `upgrade` do it by themselves when the lists are more
/// than an hour old. No deployment changes.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree refresh-md
      Fetch the lists when they are old
  apt-ostree refresh-md --force
      Fetch them in any case")]
pub(crate) struct Arguments {
    /// Fetch them also when they are less than an hour old
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let outcome = context.perform(&Request::RefreshMd(refresh_md::Options {
        force: arguments.force,
        target: context.target(),
    }))?;
    finish(&outcome, After::default(), context)
}
