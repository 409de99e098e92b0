//! `cleanup` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::cleanup::{self, What};
use anyhow::Result;
use clap::Args;

/// Remove deployments, and what no deployment needs
#[derive(Args, Debug)]
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
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let host = context.host("cleanup", true)?;
    let what = What {
        base: arguments.base,
        pending: arguments.pending,
        rollback: arguments.rollback,
    };
    let outcome = cleanup::run(&host, &context.target(), what, context.report)?;
    finish(&outcome, After::default(), context)
}
