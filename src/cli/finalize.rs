//! `finalize-deployment` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::finalize;
use crate::ops::request::Request;
use anyhow::Result;
use clap::Args;

/// Unlock the staged deployment and reboot into it
#[derive(Args, Debug)]
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
