//! `upgrade` on the command line.

use crate::cli::layering::{PackageArguments, SetUpArguments};
use crate::cli::outcome::{After, finish};
use crate::cli::{Context, DriverArguments, FetchArguments, UNCHANGED, available};
use crate::fault::{Fault, Kind};
use crate::ops::automatic;
use crate::ops::check;
use crate::ops::request::{self, Request};
use crate::ops::upgrade;
use anyhow::Result;
use clap::Args;
use indicatif::HumanDuration;
use rustix::process::geteuid;

/// Fetch the newest image and boot it next
///
/// The running system is not touched: the new image is stored beside it and boots at the next restart. Packages
/// that were put on top are put on the new image as well. `apt-ostree rollback` goes back, before the restart
/// or after it.
///
/// This is what `apt update` and `apt full-upgrade` are on other systems, for the whole system at once.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree upgrade --check
      Say whether there is a newer image, and do nothing
  apt-ostree upgrade
      Fetch it; it boots at the next restart
  apt-ostree upgrade --download-only
      Fetch it now, and deploy it later with `upgrade --cache-only`")]
#[command(alias = "update")]
pub(crate) struct Arguments {
    #[command(flatten)]
    fetch: FetchArguments,
    #[command(flatten)]
    driver: DriverArguments,
    #[command(flatten)]
    packages: PackageArguments,
    #[command(flatten)]
    set_up: SetUpArguments,
    /// Only say whether an update exists; ends with 77 when there is none
    #[arg(long, conflicts_with_all = ["reboot", "cache_only", "download_only"])]
    check: bool,
    /// Only show which packages an update would change; fetches the layers; ends with 77 when there is none
    #[arg(long, alias = "check-diff", conflicts_with_all = ["reboot", "cache_only", "download_only"])]
    preview: bool,
    /// End with 77 when there is no new deployment
    #[arg(long, alias = "upgrade-unchanged-exit-77")]
    unchanged_exit_77: bool,
    /// Accept an image that is older than the current one
    #[arg(long)]
    allow_downgrade: bool,
    /// Do what the policy for automatic updates says
    #[arg(long, hide = true, conflicts_with_all = ["check", "preview", "FetchArguments", "PackageArguments", "SetUpArguments", "allow_downgrade"])]
    trigger_automatic_update_policy: bool,
    /// Wait for this machine's share of the setting `random-delay` first
    #[arg(long, hide = true, requires = "trigger_automatic_update_policy")]
    random_delay: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    if arguments.trigger_automatic_update_policy {
        return run_automatic(arguments, context);
    }
    if arguments.check || arguments.preview {
        return look(arguments, context);
    }
    let outcome = context.perform(&Request::Upgrade(upgrade::Options {
        target: context.target(),
        fetch: arguments.fetch.fetch(),
        on_top: arguments.packages.packages(),
        set_up: arguments.set_up.set_up(),
        allow_downgrade: arguments.allow_downgrade,
        bypass_driver: arguments.driver.bypass_driver,
        reboot: arguments.fetch.reboot,
    }))?;
    let after = After {
        reboot: arguments.fetch.reboot,
        unchanged_exit_77: arguments.unchanged_exit_77,
        ..After::default()
    };
    finish(&outcome, after, context)
}

/// What a look at the image alone leaves out.
const NOT_ON_TOP: &str =
    "Packages on top of the image were not compared; that takes root: `sudo apt-ostree upgrade --preview`.";

/// Shows what an upgrade would bring, and lets `status` know.
fn look(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let stateroot = context.global.stateroot.as_deref();
    let preview = |context: &Context<'_>| {
        let host = request::open("upgrade", context.global.sysroot.as_deref())?;
        let found = check::preview(&host, stateroot, context.patience(), context.report)?;
        anyhow::Ok((host, found))
    };
    let is_root = geteuid().is_root();
    let (host, found) = if arguments.preview {
        preview(context)?
    } else {
        let host = context.host("upgrade")?;
        match (
            check::check(&host, stateroot)?,
            check::has_requests(&host, stateroot)?,
        ) {
            // The image is here, so that what stands on top of it can be looked at as well.
            (None, true) if is_root => preview(context)?,
            (found, has_requests) => {
                if has_requests {
                    context.report.note(NOT_ON_TOP);
                }
                (host, found)
            }
        }
    };
    if is_root {
        if let Err(error) = check::remember(&host, stateroot, found.as_ref()) {
            context.report.warning(&format!("{error:#}."));
        }
    }
    let Some(found) = found else {
        writeln!(context.out, "No updates available.")?;
        return Ok(UNCHANGED);
    };
    available::print(&found.cached(&host.stateroot(stateroot)?), 16, context.out)?;
    Ok(0)
}

/// Does what the policy says. The wait is here, before anything is asked for, so that nobody is kept from the sysroot
/// by it; a signal ends it.
fn run_automatic(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let (sysroot, stateroot) = (
        context.global.sysroot.as_deref(),
        context.global.stateroot.as_deref(),
    );
    if arguments.random_delay {
        let delay = automatic::delay(sysroot, stateroot)?;
        context.report.note(&format!("Waiting {}.", HumanDuration(delay)));
        std::thread::sleep(delay);
    }
    let options = automatic::Options {
        target: context.target(),
    };
    match context.perform(&Request::AutomaticUpdate(options)) {
        Ok(outcome) => finish(&outcome, After::default(), context),
        Err(error) => match Fault::find(&error) {
            // Another transaction runs, so that this one did not even begin.
            Some(fault) if fault.kind == Kind::Busy => {
                let sentence = automatic::skip(sysroot, stateroot, &fault.message)?;
                writeln!(context.out, "{sentence}")?;
                Ok(0)
            }
            _ => Err(error),
        },
    }
}
