//! `pin` and `unpin` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::pin;
use crate::ops::request::Request;
use anyhow::Result;
use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The deployment's index in `status --verbose`; the booted one when left out
    index: Option<usize>,
}

pub(crate) fn run(arguments: &Arguments, pinned: bool, context: &mut Context<'_>) -> Result<u8> {
    let options = pin::Options {
        index: arguments.index,
        target: context.target(),
    };
    let request = if pinned {
        Request::Pin(options)
    } else {
        Request::Unpin(options)
    };
    let outcome = context.perform(&request)?;
    finish(&outcome, After::default(), context)
}
