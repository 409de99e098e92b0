//! `initramfs-etc` on the command line.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::initramfs_etc;
use crate::ops::request::Request;
use anyhow::Result;
use clap::Args;

/// Show or change which files of /etc the initramfs gets
///
/// For settings that are needed before the disk is found, such as /etc/crypttab. A change makes a new
/// deployment, which boots at the next restart; later deployments get the files as they are then.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree initramfs-etc --track /etc/crypttab
      Give the initramfs this file from now on
  apt-ostree initramfs-etc --force-sync
      Give it the files as they are now
  apt-ostree initramfs-etc --untrack-all
      Give it none any more")]
pub(crate) struct Arguments {
    /// Add FILE, a path below /etc, now and in each later deployment
    #[arg(long, value_name = "FILE")]
    track: Vec<String>,
    /// Leave FILE out again
    #[arg(long, value_name = "FILE")]
    untrack: Vec<String>,
    /// Leave out all files that were added before
    #[arg(long, conflicts_with = "untrack")]
    untrack_all: bool,
    /// Make a new deployment with the files as they are now, even when the list stays the same
    #[arg(long)]
    force_sync: bool,
    /// Stage the deployment, but do not apply it before `finalize-deployment`
    #[arg(long)]
    lock_finalization: bool,
    /// End with 77 when nothing changed
    #[arg(long)]
    unchanged_exit_77: bool,
    /// Reboot when something changed
    #[arg(short, long)]
    reboot: bool,
}

impl Arguments {
    /// Returns whether the files are only shown.
    fn only_looks(&self) -> bool {
        self.track.is_empty() && self.untrack.is_empty() && !self.untrack_all && !self.force_sync
    }
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    if arguments.only_looks() {
        let host = context.host("initramfs-etc")?;
        let tracked = initramfs_etc::show(&host, context.global.stateroot.as_deref())?;
        if tracked.is_empty() {
            writeln!(context.out, "No files are tracked.")?;
            return Ok(0);
        }
        writeln!(context.out, "Tracked files:")?;
        for path in tracked {
            writeln!(context.out, "  {path}")?;
        }
        return Ok(0);
    }
    let outcome = context.perform(&Request::InitramfsEtc(initramfs_etc::Options {
        track: arguments.track.clone(),
        untrack: arguments.untrack.clone(),
        untrack_all: arguments.untrack_all,
        force_sync: arguments.force_sync,
        target: context.target(),
        lock_finalization: arguments.lock_finalization,
        reboot: arguments.reboot,
    }))?;
    let after = After {
        reboot: arguments.reboot,
        unchanged_exit_77: arguments.unchanged_exit_77,
        ..After::default()
    };
    finish(&outcome, after, context)
}
