//! `install` on the command line.

use crate::cli::layering::SetUpArguments;
use crate::cli::outcome::{After, finish};
use crate::cli::{ChangeArguments, Context, build, transaction};
use crate::deployment::live;
use crate::fault::{Fault, Kind};
use crate::ops::layering::Wanted;
use crate::ops::request::Request;
use crate::ops::{Outcome, apply_live, install};
use anyhow::Result;
use clap::Args;
use std::io::IsTerminal;

/// Put packages on top of the image
///
/// The packages and what they depend on are fetched from the repositories in /etc/apt and set up in a new
/// deployment, which boots at the next restart; with `--apply-live` they are there at once, too. They are put
/// on each new image that `upgrade` brings. `apt-ostree uninstall PKG` takes them away again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree install htop
      Install htop; it is there after the next restart
  apt-ostree install --apply-live htop
      Have it in the running system as well
  apt-ostree install --dry-run nginx
      Show what would be installed, and from where
  apt-ostree install ./tool_1.0_amd64.deb
      Install a file")]
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
    /// Let files of packages take the place of other packages' files; the same as `--conflicts=keep-latest`
    #[arg(long, conflicts_with = "conflicts")]
    force_replacefiles: bool,
    #[command(flatten)]
    set_up: SetUpArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    if context.global.builds_image() {
        return run_in_build(arguments, context);
    }
    let mut fetch = arguments.change.fetch();
    fetch.cache_only = arguments.cache_only;
    fetch.download_only = arguments.download_only;
    let options = install::Options {
        packages: arguments.packages.clone(),
        uninstall: arguments.uninstall.clone(),
        idempotent: arguments.idempotent,
        allow_inactive: arguments.allow_inactive,
        force_replacefiles: arguments.force_replacefiles,
        set_up: arguments.set_up.set_up(),
        target: context.target(),
        fetch,
        reboot: arguments.change.reboot,
    };
    if arguments.apply_live {
        live::require_booted(&context.host("install")?, "install --apply-live")?;
        if !arguments.change.assumeyes && !confirm(&options, context)? {
            return Err(Fault::new(Kind::Cancelled, "Nothing was installed").into());
        }
    }
    let outcome = context.perform(&Request::Install(options))?;
    let status = finish(&outcome, arguments.change.after(), context)?;
    if arguments.apply_live {
        let live = apply_live::Options {
            target: context.target(),
            ..apply_live::Options::default()
        };
        let applied = context.perform(&Request::ApplyLive(live))?;
        finish(&applied, After::default(), context)?;
    }
    Ok(status)
}

fn run_in_build(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let own = [
        ("--cache-only", arguments.cache_only),
        ("--download-only", arguments.download_only),
        ("--apply-live", arguments.apply_live),
        ("--force-replacefiles", arguments.force_replacefiles),
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
fn confirm(options: &install::Options, context: &mut Context<'_>) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        context
            .report
            .note("There is no terminal to ask on, so the answer is taken to be yes.");
        return Ok(true);
    }
    let mut planned = options.clone();
    planned.fetch.dry_run = true;
    if let Outcome::Planned(plan) = context.perform(&Request::Install(planned))? {
        write!(context.out, "{}Continue? [y/N] ", transaction::text(&plan))?;
        context.out.flush()?;
    }
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
