//! `deploy` on the command line.

use crate::cli::layering::{PackageArguments, SetUpArguments};
use crate::cli::outcome::{After, finish};
use crate::cli::{Context, DriverArguments, FetchArguments, db};
use crate::ops::deploy;
use crate::ops::request::{self, Request};
use anyhow::Result;
use clap::Args;

/// Boot one particular version of the image next
///
/// Goes to an older or newer version of the image that the host follows. It boots at the next restart. The host
/// goes on following its tag, so the next `upgrade` leaves this version again; `apt-ostree rollback` goes back.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree deploy 13.1
      Boot version 13.1 next
  apt-ostree deploy sha256:4aca19a59f72...
      Boot the image with this digest next")]
pub(crate) struct Arguments {
    /// A manifest digest, `version=V`, or a version
    #[arg(required_unless_present = "register_driver")]
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
    /// Only show which packages would differ; fetches the layers
    #[arg(long, conflicts_with_all = ["reboot", "download_only", "lock_finalization", "install", "uninstall", "register_driver"])]
    preview: bool,
    /// End with 77 when there is no new deployment
    #[arg(long)]
    unchanged_exit_77: bool,
    /// Register the systemd unit this runs in, as NAME, as what drives updates until the next boot
    #[arg(long, value_name = "NAME")]
    register_driver: Option<String>,
    /// rpm-ostree's: there are no branches to check
    #[arg(long, hide = true)]
    skip_branch_check: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let options = deploy::Options {
        revision: arguments.revision.clone().unwrap_or_default(),
        register_driver: arguments.register_driver.clone(),
        target: context.target(),
        fetch: arguments.fetch.fetch(),
        on_top: arguments.packages.packages(),
        set_up: arguments.set_up.set_up(),
        disallow_downgrade: arguments.disallow_downgrade,
        bypass_driver: arguments.driver.bypass_driver,
        reboot: arguments.fetch.reboot,
    };
    if arguments.preview {
        return preview(&options, context);
    }
    let outcome = context.perform(&Request::Deploy(options))?;
    let after = After {
        reboot: arguments.fetch.reboot,
        unchanged_exit_77: arguments.unchanged_exit_77,
        ..After::default()
    };
    finish(&outcome, after, context)
}

fn preview(options: &deploy::Options, context: &mut Context<'_>) -> Result<u8> {
    let host = request::open("deploy", context.global.sysroot.as_deref())?;
    let (image, difference) = deploy::preview(&host, options, context.report)?;
    if let Some(version) = image.version() {
        writeln!(context.out, "Version: {version}")?;
    }
    writeln!(context.out, "Digest: {}", image.manifest_digest)?;
    if difference.is_empty() {
        writeln!(context.out, "No package would change.")?;
    }
    db::print_block(&difference, context.out)?;
    Ok(0)
}
