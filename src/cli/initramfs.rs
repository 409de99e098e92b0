//! `initramfs` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::initramfs;
use crate::ops::request::Request;
use anyhow::Result;
use clap::Args;

/// Show or choose who makes the initramfs
///
/// The initramfs is what the kernel starts from before it finds the disk. It comes with the image; a host that
/// needs other drivers or settings in it can have dracut make one with each deployment. A change boots at the
/// next restart.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree initramfs
      Show where it comes from
  apt-ostree initramfs --enable --arg=--add --arg=lvm
      Have dracut make it, with the module lvm
  apt-ostree initramfs --disable
      Take the image's again")]
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

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    if !arguments.enable && !arguments.disable {
        let host = context.host("initramfs")?;
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
    let outcome = context.perform(&Request::Initramfs(initramfs::Options {
        enable: arguments.enable,
        disable: arguments.disable,
        arg: arguments.arg.clone(),
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
