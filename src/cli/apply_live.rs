//! `apply-live` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::apply_live::{self, Applied};
use crate::ops::request::Request;
use anyhow::Result;
use clap::Args;

/// Have in the running system what boots next
///
/// For packages that are wanted now, without a restart. New files come at once; services are not started or
/// restarted, the output names those that would have to be. Only new packages are taken without `--allow-
/// replacement`. `apt-ostree apply-live --reset` or a restart takes it back.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree apply-live
      Bring new packages to the running system
  apt-ostree apply-live --reset
      Go back to what was booted")]
pub(crate) struct Arguments {
    /// Apply this commit instead of what boots next
    #[arg(long, value_name = "COMMIT", conflicts_with = "reset")]
    target: Option<String>,
    /// Go back to the commit that was booted
    #[arg(long)]
    reset: bool,
    /// Accept that packages of the running system are removed or change
    #[arg(long)]
    allow_replacement: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let outcome = context.perform(&Request::ApplyLive(apply_live::Options {
        commit: arguments.target.clone(),
        reset: arguments.reset,
        allow_replacement: arguments.allow_replacement,
        target: context.target(),
    }))?;
    finish(&outcome, After::default(), context)
}

/// Tells what was done to the running system.
pub(crate) fn print(applied: Option<&Applied>, context: &mut Context<'_>) -> Result<()> {
    let Some(applied) = applied else {
        writeln!(context.out, "The running system is there already.")?;
        return Ok(());
    };
    let packages = &applied.plan.packages;
    writeln!(
        context.out,
        "Applied to the running system: {} upgraded, {} downgraded, {} removed, {} added",
        packages.upgraded.len(),
        packages.downgraded.len(),
        packages.removed.len(),
        packages.added.len()
    )?;
    for (units, verb, what) in [
        (
            &applied.restart,
            "restart",
            "Services of changed packages run with what they had; restart them with:",
        ),
        (
            &applied.start,
            "start",
            "New services start at the next boot; start them now with:",
        ),
    ] {
        if !units.is_empty() {
            writeln!(context.out, "{what}\n  systemctl {verb} {}", units.join(" "))?;
        }
    }
    Ok(())
}
