//! `reset` on the command line.

use crate::cli::Context;
use crate::cli::layering::{PackageArguments, SetUpArguments};
use crate::cli::outcome::{After, finish};
use crate::layer::assemble::Network;
use crate::ops::Fetch;
use crate::ops::layer::{self, Options};
use anyhow::Result;
use clap::Args;

/// Drop what stands on top of the image: packages, overrides, the initramfs made here; all of it without an option
#[derive(Args, Debug)]
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
    let all = !(arguments.overlays || arguments.overrides || arguments.initramfs);
    let mut layering = arguments.set_up.layering();
    layering.change.uninstall_all = all || arguments.overlays;
    layering.change.reset_all = all || arguments.overrides;
    layering.change.reset_initramfs = all || arguments.initramfs;
    arguments.packages.add_to(&mut layering)?;
    let network = if arguments.packages.installs() {
        Network::Usual
    } else {
        Network::Packages
    };
    let host = context.host_to_change("reset", arguments.reboot)?;
    let options = Options {
        verb: "reset",
        target: context.target(),
        layering,
        network,
        fetch: Fetch {
            lock_finalization: arguments.lock_finalization,
            ..Fetch::default()
        },
    };
    let outcome = layer::run(&host, &options, context.report)?;
    let after = After {
        reboot: arguments.reboot,
        ..After::default()
    };
    finish(&outcome, after, context)
}
