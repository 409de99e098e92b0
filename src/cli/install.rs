//! `install` on the command line.

use crate::cli::layering::{SetUpArguments, Wanted};
use crate::cli::outcome::finish;
use crate::cli::{ChangeArguments, Context, apply_live as cli_apply_live, build, transaction};
use crate::deployment::advance::Extent;
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::layer::assemble::Network;
use crate::ops::layer::{self, Options};
use crate::ops::{Outcome, apply_live};
use anyhow::Result;
use clap::Args;
use std::io::IsTerminal;

/// Put packages on top of the image
#[derive(Args, Debug)]
#[command(alias = "pkg-add")]
pub(crate) struct Arguments {
    /// NAME, NAME=VERSION, NAME/SUITE, NAME:ARCH, the path of a .deb file, or its https:// address
    #[arg(value_name = "PKG", required = true)]
    packages: Vec<String>,
    /// Take a package on top away as well; may be given several times
    #[arg(long, value_name = "PKG")]
    uninstall: Vec<String>,
    /// Do nothing about packages that are requested already
    #[arg(long)]
    idempotent: bool,
    /// Accept packages that the image has already; they are put on top when an image drops them
    #[arg(long)]
    allow_inactive: bool,
    /// Use only what is stored on this host, no network
    #[arg(short = 'C', long, conflicts_with = "download_only")]
    cache_only: bool,
    /// Fetch and store the packages, and deploy nothing
    #[arg(long, conflicts_with = "dry_run")]
    download_only: bool,
    /// Bring the packages to the running system as well, see `apply-live`
    #[arg(short = 'A', long, conflicts_with_all = ["dry_run", "download_only", "reboot", "lock_finalization"])]
    apply_live: bool,
    #[command(flatten)]
    set_up: SetUpArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    if context.global.builds_image() {
        return run_in_build(arguments, context);
    }
    let wanted = Wanted::parse(&arguments.packages)?;
    let mut layering = arguments.set_up.layering();
    layering.change.install = wanted.requests;
    layering.install_files = wanted.files;
    layering.change.uninstall.clone_from(&arguments.uninstall);
    layering.change.idempotent = arguments.idempotent;
    layering.allow_inactive = arguments.allow_inactive;
    let mut fetch = arguments.change.fetch();
    fetch.cache_only = arguments.cache_only;
    if arguments.download_only {
        fetch.extent = Extent::Download;
    }
    let host = context.host_to_change("install", arguments.change.reboot)?;
    let options = Options {
        verb: "install",
        target: context.target(),
        layering,
        network: Network::Usual,
        fetch,
    };
    if arguments.apply_live && host.booted().is_none() {
        return Err(Fault::new(
            Kind::Usage,
            format!(
                "`--apply-live` makes no sense for {}, which this machine did not boot from",
                host.path().display()
            ),
        )
        .into());
    }
    if arguments.apply_live && !arguments.change.assumeyes && !confirm(&host, &options, context)? {
        return Err(Fault::new(Kind::Cancelled, "Nothing was installed").into());
    }
    let outcome = layer::run(&host, &options, context.report)?;
    let status = finish(&outcome, arguments.change.after(), context)?;
    if arguments.apply_live {
        let live = apply_live::Options {
            target: None,
            reset: false,
            allow_replacement: false,
            patience: context.patience(),
        };
        let applied = apply_live::run(&host, &live, context.report)?;
        cli_apply_live::print(applied.as_ref(), context)?;
    }
    Ok(status)
}

fn run_in_build(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let own = [
        ("--cache-only", arguments.cache_only),
        ("--download-only", arguments.download_only),
        ("--apply-live", arguments.apply_live),
        ("--stateroot", context.global.stateroot.is_some()),
    ];
    let common = arguments.set_up.given_in_build();
    build::refuse(
        own.into_iter()
            .chain(common)
            .chain(arguments.change.given_in_build()),
    )?;
    let mut options = build::Options {
        verb: "install",
        uninstall: Wanted::parse(&arguments.uninstall)?.only_requests("--uninstall")?,
        idempotent: arguments.idempotent,
        debconf: arguments.set_up.debconf(),
        ..build::Options::default()
    };
    build::add(&mut options, Wanted::parse(&arguments.packages)?)?;
    build::run(&options, context)
}

/// Shows what would come to the running system and asks; without a terminal there is nobody to ask, and that is told.
fn confirm(host: &Host, options: &Options, context: &mut Context<'_>) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        context
            .report
            .note("There is no terminal to ask on, so the answer is taken to be yes.");
        return Ok(true);
    }
    let mut planned = options.clone();
    planned.fetch.extent = Extent::Plan;
    if let Outcome::Planned(plan) = layer::run(host, &planned, context.report)? {
        write!(context.out, "{}Continue? [y/N] ", transaction::text(&plan))?;
        context.out.flush()?;
    }
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
