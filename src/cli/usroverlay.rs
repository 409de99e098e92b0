//! `usroverlay` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::request::Request;
use crate::ops::usroverlay;
use anyhow::Result;
use clap::Args;

/// Lay a writable overlay over /usr of the running system
#[derive(Args, Debug)]
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
