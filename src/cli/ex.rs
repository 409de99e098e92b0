//! `ex`: verbs that rpm-ostree keeps, or once kept, among its experiments.

use crate::cli::{Context, apply_live, log};
use anyhow::Result;
use clap::Subcommand;

/// Verbs by rpm-ostree's older names.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(alias = "livefs")]
    ApplyLive(apply_live::Arguments),
    /// Show the deployments over time, as `log` does
    History {
        #[command(flatten)]
        log: log::Arguments,
        /// rpm-ostree's: every fact is shown in any case
        #[arg(short, long, hide = true)]
        verbose: bool,
    },
}

pub(crate) fn run(command: &Command, context: &mut Context<'_>) -> Result<u8> {
    match command {
        Command::ApplyLive(arguments) => apply_live::run(arguments, context),
        Command::History { log, verbose: _ } => log::run(log, context),
    }
}
