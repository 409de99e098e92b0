//! `uninstall` on the command line.

use crate::cli::layering::SetUpArguments;
use crate::cli::outcome::finish;
use crate::cli::{ChangeArguments, Context, build};
use crate::ops::layering::Wanted;
use crate::ops::request::Request;
use crate::ops::uninstall;
use anyhow::Result;
use clap::Args;

/// Take packages on top of the image away
///
/// Makes a new deployment without the packages, and without what only they needed; it boots at the next
/// restart. Packages of the image itself are taken out with `apt-ostree override remove`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree uninstall htop
      Take htop away again
  apt-ostree uninstall --all
      Take all packages on top away")]
#[command(aliases = ["remove", "pkg-remove"])]
pub(crate) struct Arguments {
    /// A name, or NAME_VERSION_ARCH of a package that came as a file
    #[arg(value_name = "PKG", required_unless_present = "all")]
    packages: Vec<String>,
    /// Take all of them away; overrides stay
    #[arg(long, conflicts_with = "packages")]
    all: bool,
    /// Put a package on top of the image as well; may be given several times
    #[arg(long, value_name = "PKG")]
    install: Vec<String>,
    /// Do nothing about packages that are not requested
    #[arg(long)]
    idempotent: bool,
    /// Accept packages that the image has already; they are put on top when an image drops them
    #[arg(long)]
    allow_inactive: bool,
    #[command(flatten)]
    set_up: SetUpArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    if context.global.builds_image() {
        return run_in_build(arguments, context);
    }
    let outcome = context.perform(&Request::Uninstall(uninstall::Options {
        packages: arguments.packages.clone(),
        all: arguments.all,
        install: arguments.install.clone(),
        idempotent: arguments.idempotent,
        allow_inactive: arguments.allow_inactive,
        set_up: arguments.set_up.set_up(),
        target: context.target(),
        fetch: arguments.change.fetch(),
        reboot: arguments.change.reboot,
    }))?;
    finish(&outcome, arguments.change.after(), context)
}

fn run_in_build(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let own = [
        ("--all", arguments.all),
        ("--stateroot", context.global.stateroot.is_some()),
    ];
    let common = arguments.set_up.given_in_build();
    build::refuse(
        own.into_iter()
            .chain(common)
            .chain(arguments.change.given_in_build()),
    )?;
    let mut options = build::Options {
        verb: "uninstall",
        uninstall: Wanted::parse(&arguments.packages)?.only_requests("uninstall")?,
        idempotent: arguments.idempotent,
        debconf: arguments.set_up.debconf(),
        ..build::Options::default()
    };
    build::add(&mut options, Wanted::parse(&arguments.install)?)?;
    build::run(&options, context)
}
