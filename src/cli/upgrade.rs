//! `upgrade` on the command line.

use crate::cli::layering::{PackageArguments, SetUpArguments};
use crate::cli::outcome::{After, finish};
use crate::cli::{Context, FetchArguments, UNCHANGED};
use crate::ops::check::{self, Available};
use crate::ops::request::{self, Request};
use crate::ops::upgrade;
use anyhow::Result;
use clap::Args;
use indicatif::HumanBytes;
use std::io::Write;

/// Fetch the newest image of the followed reference and boot it next
#[derive(Args, Debug)]
#[command(alias = "update")]
pub(crate) struct Arguments {
    #[command(flatten)]
    fetch: FetchArguments,
    #[command(flatten)]
    packages: PackageArguments,
    #[command(flatten)]
    set_up: SetUpArguments,
    /// Only say whether an update exists; ends with 77 when there is none
    #[arg(long, conflicts_with_all = ["reboot", "cache_only", "download_only"])]
    check: bool,
    /// Only show which packages an update would change; fetches the layers; ends with 77 when there is none
    #[arg(long, conflicts_with_all = ["reboot", "cache_only", "download_only"])]
    preview: bool,
    /// End with 77 when there is no new deployment
    #[arg(long)]
    unchanged_exit_77: bool,
    /// Accept an image that is older than the current one
    #[arg(long)]
    allow_downgrade: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    if arguments.check || arguments.preview {
        let stateroot = context.global.stateroot.as_deref();
        let found = if arguments.preview {
            let host = request::open("upgrade", context.global.sysroot.as_deref())?;
            check::preview(&host, stateroot, context.patience(), context.report)?
        } else {
            check::check(&context.host("upgrade")?, stateroot)?
        };
        let Some(available) = found else {
            writeln!(context.out, "No updates available.")?;
            return Ok(UNCHANGED);
        };
        print(&available, context.out)?;
        return Ok(0);
    }
    let outcome = context.perform(&Request::Upgrade(upgrade::Options {
        target: context.target(),
        fetch: arguments.fetch.fetch(),
        on_top: arguments.packages.packages(),
        set_up: arguments.set_up.set_up(),
        allow_downgrade: arguments.allow_downgrade,
        reboot: arguments.fetch.reboot,
    }))?;
    let after = After {
        reboot: arguments.fetch.reboot,
        unchanged_exit_77: arguments.unchanged_exit_77,
        ..After::default()
    };
    finish(&outcome, after, context)
}

fn print(available: &Available, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "AvailableUpdate:")?;
    let mut line = |key: &str, value: &str| writeln!(out, "  {key:>16}: {value}");
    line("Image", &available.reference.to_string())?;
    match (&available.version, &available.created) {
        (Some(version), Some(created)) => line("Version", &format!("{version} ({created})"))?,
        (Some(version), None) => line("Version", version)?,
        (None, Some(created)) => line("Timestamp", created)?,
        (None, None) => {}
    }
    line("Digest", &available.manifest_digest)?;
    let layers = &available.layers;
    line(
        "Total layers",
        &format!("{} ({})", layers.total, HumanBytes(layers.total_size)),
    )?;
    line(
        "Removed layers",
        &format!("{} ({})", layers.removed.len(), HumanBytes(layers.removed_size())),
    )?;
    line(
        "Added layers",
        &format!("{} ({})", layers.added.len(), HumanBytes(layers.added_size())),
    )?;
    let Some(packages) = &available.packages else {
        return Ok(());
    };
    line(
        "Diff",
        &format!(
            "{} upgraded, {} downgraded, {} removed, {} added",
            packages.upgraded.len(),
            packages.downgraded.len(),
            packages.removed.len(),
            packages.added.len()
        ),
    )?;
    for pair in packages.upgraded.iter().chain(&packages.downgraded) {
        let (before, after) = (&pair.before, &pair.after);
        writeln!(out, "    {} {} -> {}", after.name, before.version, after.version)?;
    }
    for id in &packages.removed {
        writeln!(out, "    -{} {}", id.name, id.version)?;
    }
    for id in &packages.added {
        writeln!(out, "    +{} {}", id.name, id.version)?;
    }
    Ok(())
}
