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
    #[arg(required_unless_present_any = ["branch", "remote"])]
    reference: Option<String>,
    /// Deploy the image with this digest instead of what the tag names now
    revision: Option<String>,
    #[command(flatten)]
    fetch: FetchArguments,
    #[command(flatten)]
    driver: DriverArguments,
    #[command(flatten)]
    packages: PackageArguments,
    #[command(flatten)]
    set_up: SetUpArguments,
    /// Refuse an image that is older than the current one
    #[arg(long)]
    disallow_downgrade: bool,
    /// What chooses the images of this host from now on: its address; the image must be named by its digest
    #[arg(long, value_name = "URL", requires = "custom_origin_description")]
    custom_origin_url: Option<String>,
    /// What that is, for people who read `status`
    #[arg(long, value_name = "TEXT", requires = "custom_origin_url")]
    custom_origin_description: Option<String>,
    /// rpm-ostree's: the former image stays as long as a deployment has it, with and without this
    #[arg(long, hide = true)]
    skip_purge: bool,
    /// rpm-ostree's, which does nothing there either
    #[arg(long, hide = true)]
    experimental: bool,
    /// rpm-ostree's: refused
    #[arg(short, long, hide = true)]
    branch: Option<String>,
    /// rpm-ostree's: refused
    #[arg(short = 'm', long, hide = true)]
    remote: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    for (option, given) in [("--branch", &arguments.branch), ("--remote", &arguments.remote)] {
        if given.is_some() {
            return Err(Fault::new(
                Kind::Usage,
                format!("There is no `{option}`: a host follows an image, and no branch of an OSTree remote"),
            )
            .hint("name the image: `apt-ostree rebase REGISTRY/NAME:TAG`")
            .into());
        }
    }
    let outcome = context.perform(&Request::Rebase(rebase::Options {
        reference: arguments.reference.clone().unwrap_or_default(),
        revision: arguments.revision.clone(),
        target: context.target(),
        fetch: arguments.fetch.fetch(),
        on_top: arguments.packages.packages(),
        set_up: arguments.set_up.set_up(),
        custom_origin_url: arguments.custom_origin_url.clone(),
        custom_origin_description: arguments.custom_origin_description.clone(),
        disallow_downgrade: arguments.disallow_downgrade,
        bypass_driver: arguments.driver.bypass_driver,
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
