//! `override` on the command line.

use crate::cli::layering::{PackageArguments, SetUpArguments};
use crate::cli::outcome::finish;
use crate::cli::{ChangeArguments, Context};
use crate::ops::request::Request;
use crate::ops::{override_list, overrides};
use anyhow::Result;
use clap::{Args, Subcommand};

/// Verbs for packages of the image.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take packages of the image from a repository or from files instead
    Replace(ReplaceArguments),
    /// Take packages out of the image
    Remove(RemoveArguments),
    /// Take overrides back
    Reset(ResetArguments),
    /// Show the overrides, those in force and those without effect
    List(ListArguments),
}

/// Arguments of `override replace`.
#[derive(Args, Debug)]
pub(crate) struct ReplaceArguments {
    /// NAME, NAME=VERSION, NAME/SUITE, the path of a .deb file, or its https:// address
    #[arg(value_name = "PKG", required = true)]
    packages: Vec<String>,
    /// Take a package out of the image as well; may be given several times
    #[arg(long, value_name = "PKG")]
    remove: Vec<String>,
    #[command(flatten)]
    common: CommonArguments,
}

/// Arguments of `override remove`.
#[derive(Args, Debug)]
pub(crate) struct RemoveArguments {
    /// The name of a package of the image
    #[arg(value_name = "PKG", required = true)]
    packages: Vec<String>,
    /// Replace a package of the image as well; may be given several times
    #[arg(long, value_name = "PKG")]
    replace: Vec<String>,
    #[command(flatten)]
    common: CommonArguments,
}

/// Arguments of `override reset`.
#[derive(Args, Debug)]
pub(crate) struct ResetArguments {
    /// A name, or NAME_VERSION_ARCH of a package that came as a file
    #[arg(value_name = "PKG", required_unless_present = "all")]
    packages: Vec<String>,
    /// Take all of them back
    #[arg(short, long, conflicts_with = "packages")]
    all: bool,
    #[command(flatten)]
    common: CommonArguments,
}

/// Arguments of `override list`.
#[derive(Args, Debug)]
pub(crate) struct ListArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct CommonArguments {
    #[command(flatten)]
    packages: PackageArguments,
    /// Use only what is stored on this host, no network
    #[arg(short = 'C', long)]
    cache_only: bool,
    #[command(flatten)]
    set_up: SetUpArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

pub(crate) fn run(command: &Command, context: &mut Context<'_>) -> Result<u8> {
    match command {
        Command::Replace(arguments) => arguments.common.finish(
            &Request::OverrideReplace(overrides::Replace {
                packages: arguments.packages.clone(),
                remove: arguments.remove.clone(),
                common: arguments.common.options(context),
            }),
            context,
        ),
        Command::Remove(arguments) => arguments.common.finish(
            &Request::OverrideRemove(overrides::Remove {
                packages: arguments.packages.clone(),
                replace: arguments.replace.clone(),
                common: arguments.common.options(context),
            }),
            context,
        ),
        Command::Reset(arguments) => arguments.common.finish(
            &Request::OverrideReset(overrides::Reset {
                packages: arguments.packages.clone(),
                all: arguments.all,
                common: arguments.common.options(context),
            }),
            context,
        ),
        Command::List(arguments) => list(arguments, context),
    }
}

impl CommonArguments {
    fn options(&self, context: &Context<'_>) -> overrides::Common {
        let mut fetch = self.change.fetch();
        fetch.cache_only = self.cache_only;
        overrides::Common {
            on_top: self.packages.packages(),
            set_up: self.set_up.set_up(),
            target: context.target(),
            fetch,
            reboot: self.change.reboot,
        }
    }

    fn finish(&self, request: &Request, context: &mut Context<'_>) -> Result<u8> {
        let outcome = context.perform(request)?;
        finish(&outcome, self.change.after(), context)
    }
}

fn list(arguments: &ListArguments, context: &mut Context<'_>) -> Result<u8> {
    let host = context.host("override")?;
    let overrides = override_list::run(&host, context.global.stateroot.as_deref())?;
    if arguments.json {
        writeln!(context.out, "{:#}", serde_json::to_value(&overrides)?)?;
        return Ok(0);
    }
    if overrides.is_empty() {
        writeln!(context.out, "No overrides.")?;
    }
    for found in &overrides {
        writeln!(context.out, "{found}")?;
    }
    Ok(0)
}
