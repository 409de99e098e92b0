//! `rollback` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::request::Request;
use crate::ops::rollback;
use anyhow::Result;
use clap::Args;

/// Boot the previous deployment next
///
/// Takes effect at the next restart; run again, it takes that back. Nothing is fetched and nothing is lost:
/// /etc of the previous deployment is as it was left, /var is not rolled back.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree rollback
      Boot at the next restart what ran before
  apt-ostree rollback --reboot
      Restart into it now")]
pub(crate) struct Arguments {
    /// Reboot afterwards
    #[arg(short, long)]
    reboot: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let outcome = context.perform(&Request::Rollback(rollback::Options {
        target: context.target(),
        reboot: arguments.reboot,
    }))?;
    finish(
        &outcome,
        After {
            reboot: arguments.reboot,
            ..After::default()
        },
        context,
    )
}
