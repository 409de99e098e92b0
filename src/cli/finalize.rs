//! `finalize-deployment` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::finalize;
use crate::ops::request::Request;
use anyhow::Result;
use clap::Args;

/// Restart into a deployment that was staged locked
///
/// A deployment that was made with `--lock-finalization` does not boot at a restart; this lets it, and restarts
/// at once. The checksum makes sure that it is the deployment that is meant.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree finalize-deployment --allow-missing-checksum
      Restart into what is staged, whatever it is
  apt-ostree finalize-deployment 4aca19a59f72...
      Restart into exactly this one")]
pub(crate) struct Arguments {
    /// The staged deployment's commit checksum or manifest digest
    #[arg(required_unless_present = "allow_missing_checksum")]
    checksum: Option<String>,
    /// Do without the checksum
    #[arg(long)]
    allow_missing_checksum: bool,
    /// Accept a staged deployment that is not locked
    #[arg(long)]
    allow_unlocked: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let outcome = context.perform(&Request::FinalizeDeployment(finalize::Options {
        checksum: arguments.checksum.clone(),
        allow_missing_checksum: arguments.allow_missing_checksum,
        allow_unlocked: arguments.allow_unlocked,
        target: context.target(),
    }))?;
    finish(
        &outcome,
        After {
            reboot: true,
            ..After::default()
        },
        context,
    )
}
