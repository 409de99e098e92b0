//! `rebase` on the command line.

use crate::cli::layering::{PackageArguments, SetUpArguments};
use crate::cli::outcome::{After, finish};
use crate::cli::{Context, DriverArguments, FetchArguments};
use crate::fault::{Fault, Kind};
use crate::ops::rebase;
use crate::ops::request::Request;
use anyhow::Result;
use clap::Args;

/// Follow another image and boot it next
///
/// The host follows one image; this makes it follow another one, such as the next release of the system. It
/// boots at the next restart, and `upgrade` looks for newer versions of it from then on. Files in /etc and /var
/// and the packages on top are kept. `apt-ostree rollback` goes back to the old image.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree rebase registry.example/os/debian:14
      Follow another tag
  apt-ostree rebase local://my-os:latest
      Follow an image that podman built on this host")]
pub(crate) struct Arguments {
    /// The image: NAME or NAME:TAG, docker://NAME, local://NAME or a full ostree-... reference
    reference: String,
    /// Deploy the image with this digest instead of what the tag names now
    revision: Option<String>,
    #[command(flatten)]
    fetch: FetchArguments,
    #[command(flatten)]
    packages: PackageArguments,
    driver: DriverArguments,
    #[command(flatten)]
    #[command(flatten)]
    set_up: SetUpArguments,
    /// Refuse an image that is older than the current one
    #[arg(long)]
    disallow_downgrade: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let outcome = context.perform(&Request::Rebase(rebase::Options {
        reference: arguments.reference.clone(),
        revision: arguments.revision.clone(),
        target: context.target(),
        fetch: arguments.fetch.fetch(),
        on_top: arguments.packages.packages(),
        set_up: arguments.set_up.set_up(),
        disallow_downgrade: arguments.disallow_downgrade,
        reboot: arguments.fetch.reboot,
    }))?;
    finish(
        &outcome,
        After {
            reboot: arguments.fetch.reboot,
            ..After::default()
        },
        context,
    )
}
        bypass_driver: arguments.driver.bypass_driver,
