//! `pin` and `unpin` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::pin;
use anyhow::Result;
use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The deployment's index in `status --verbose`; the booted one when left out
    index: Option<usize>,
}

pub(crate) fn run(arguments: &Arguments, pinned: bool, context: &mut Context<'_>) -> Result<u8> {
    let host = context.host(if pinned { "pin" } else { "unpin" }, true)?;
    let outcome = pin::run(&host, arguments.index, pinned, context.patience(), context.report)?;
    finish(&outcome, After::default(), context)
}
