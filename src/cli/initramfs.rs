//! `initramfs` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::layer::assemble::Network;
use crate::layer::change::{Change, Initramfs};
use crate::ops::layer::{self, Options};
use crate::ops::layering::Layering;
use crate::ops::{Fetch, initramfs};
use anyhow::Result;
use clap::Args;

/// Show or choose where the initramfs comes from: the image, or dracut on this host
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Make the initramfs on this host with each deployment
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Pass this argument to dracut; may be given several times
    #[arg(long, value_name = "ARG", requires = "enable", allow_hyphen_values = true)]
    arg: Vec<String>,
    /// Use the image's initramfs
    #[arg(long)]
    disable: bool,
    /// Stage the deployment, but do not apply it before `finalize-deployment`
    #[arg(long)]
    lock_finalization: bool,
    /// Reboot when a new deployment was made
    #[arg(short, long)]
    reboot: bool,
}

impl Arguments {
    /// Returns whether nothing is changed.
    pub(crate) fn only_looks(&self) -> bool {
        !self.enable && !self.disable
    }
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    if arguments.only_looks() {
        let host = context.host("initramfs", false)?;
        let shown = initramfs::show(&host, context.global.stateroot.as_deref())?;
        writeln!(
            context.out,
            "Initramfs regeneration: {}",
            if shown.is_some() { "enabled" } else { "disabled" }
        )?;
        for argument in shown.unwrap_or_default() {
            writeln!(context.out, "  {argument}")?;
        }
        return Ok(0);
    }
    let initramfs = if arguments.enable {
        Initramfs::Regenerated(arguments.arg.clone())
    } else {
        Initramfs::OfImage
    };
    let host = context.host_to_change("initramfs", arguments.reboot)?;
    let options = Options {
        verb: "initramfs",
        target: context.target(),
        layering: Layering {
            change: Change {
                initramfs: Some(initramfs),
                ..Change::default()
            },
            ..Layering::default()
        },
        network: Network::Packages,
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
