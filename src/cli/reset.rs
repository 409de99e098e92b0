//! `reset` on the command line.

use crate::cli::Context;
use crate::cli::layering::{PackageArguments, SetUpArguments};
use crate::cli::outcome::{After, finish};
use crate::ops::request::Request;
use crate::ops::reset;
use anyhow::Result;
use clap::Args;

/// Drop what stands on top of the image
///
/// Makes a new deployment of the image as it is: without packages on top, overrides and an initramfs made here,
/// or without one of these. It boots at the next restart. Files in /etc and /var stay. `apt-ostree rollback`
/// goes back.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree reset
      Boot the image as it was built
  apt-ostree reset --overlays
      Drop the packages on top only")]
pub(crate) struct Arguments {
    /// Drop packages on top
    #[arg(short = 'l', long)]
    overlays: bool,
    /// Drop overrides
    #[arg(short, long)]
    overrides: bool,
    /// Take the image's initramfs, without files of /etc
    #[arg(short, long)]
    initramfs: bool,
    #[command(flatten)]
    packages: PackageArguments,
    #[command(flatten)]
    set_up: SetUpArguments,
    /// Stage the deployment, but do not apply it before `finalize-deployment`
    #[arg(long)]
    lock_finalization: bool,
    /// Reboot when a new deployment was made
    #[arg(short, long)]
    reboot: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let outcome = context.perform(&Request::Reset(reset::Options {
        overlays: arguments.overlays,
        overrides: arguments.overrides,
        initramfs: arguments.initramfs,
        on_top: arguments.packages.packages(),
        set_up: arguments.set_up.set_up(),
        target: context.target(),
        lock_finalization: arguments.lock_finalization,
        reboot: arguments.reboot,
    }))?;
    let after = After {
        reboot: arguments.reboot,
        ..After::default()
    };
    finish(&outcome, after, context)
}
