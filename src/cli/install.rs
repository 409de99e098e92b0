//! `install` on the command line.

use crate::cli::layering::{SetUpArguments, Wanted};
use crate::cli::outcome::finish;
use crate::cli::{ChangeArguments, Context};
use crate::deployment::advance::Extent;
use crate::layer::assemble::Network;
use crate::ops::layer::{self, Options};
use anyhow::Result;
use clap::Args;

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
    #[command(flatten)]
    set_up: SetUpArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
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
    let outcome = layer::run(&host, &options, context.report)?;
    finish(&outcome, arguments.change.after(), context)
}
