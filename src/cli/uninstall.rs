//! `uninstall` on the command line.

use crate::cli::layering::{SetUpArguments, Wanted};
use crate::cli::outcome::finish;
use crate::cli::{ChangeArguments, Context, build};
use crate::layer::assemble::Network;
use crate::ops::layer::{self, Options};
use anyhow::Result;
use clap::Args;

/// Take packages on top of the image away
#[derive(Args, Debug)]
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
    let wanted = Wanted::parse(&arguments.install)?;
    let network = if arguments.install.is_empty() {
        Network::Packages
    } else {
        Network::Usual
    };
    let mut layering = arguments.set_up.layering();
    layering.change.install = wanted.requests;
    layering.install_files = wanted.files;
    layering.change.uninstall.clone_from(&arguments.packages);
    layering.change.uninstall_all = arguments.all;
    layering.change.idempotent = arguments.idempotent;
    layering.allow_inactive = arguments.allow_inactive;
    let host = context.host_to_change("uninstall", arguments.change.reboot)?;
    let options = Options {
        verb: "uninstall",
        target: context.target(),
        layering,
        network,
        fetch: arguments.change.fetch(),
    };
    let outcome = layer::run(&host, &options, context.report)?;
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
