//! `override` on the command line.

use crate::cli::layering::{PackageArguments, SetUpArguments, Wanted};
use crate::cli::outcome::finish;
use crate::cli::{ChangeArguments, Context};
use crate::layer::assemble::Network;
use crate::ops::layer::{self, Options};
use crate::ops::layering::Layering;
use crate::ops::override_list;
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

impl Command {
    /// Returns the verb's name when it changes a sysroot.
    pub(crate) fn writes(&self) -> Option<&'static str> {
        match self {
            Self::List(_) => None,
            _ => Some("override"),
        }
    }
}

pub(crate) fn run(command: &Command, context: &mut Context<'_>) -> Result<u8> {
    match command {
        Command::Replace(arguments) => {
            let remove = Wanted::parse(&arguments.remove)?.only_requests("--remove")?;
            let common = &arguments.common;
            let mut layering = common.layering()?;
            replace(&mut layering, &arguments.packages)?;
            layering.change.remove = remove;
            common.run(layering, Network::Usual, context)
        }
        Command::Remove(arguments) => {
            let common = &arguments.common;
            let mut layering = common.layering()?;
            replace(&mut layering, &arguments.replace)?;
            layering.change.remove = Wanted::parse(&arguments.packages)?.only_requests("override remove")?;
            let network = common.network(!arguments.replace.is_empty());
            common.run(layering, network, context)
        }
        Command::Reset(arguments) => {
            let common = &arguments.common;
            let mut layering = common.layering()?;
            layering.change.reset.clone_from(&arguments.packages);
            layering.change.reset_all = arguments.all;
            common.run(layering, common.network(false), context)
        }
        Command::List(arguments) => list(arguments, context),
    }
}

fn replace(layering: &mut Layering, packages: &[String]) -> Result<()> {
    let wanted = Wanted::parse(packages)?;
    layering.change.replace = wanted.requests;
    layering.replace_files = wanted.files;
    Ok(())
}

impl CommonArguments {
    fn layering(&self) -> Result<Layering> {
        let mut layering = self.set_up.layering();
        self.packages.add_to(&mut layering)?;
        Ok(layering)
    }

    /// Returns what the network is needed for: indexes only where something new is looked for.
    fn network(&self, looks: bool) -> Network {
        if looks || self.packages.installs() {
            Network::Usual
        } else {
            Network::Packages
        }
    }

    fn run(&self, layering: Layering, network: Network, context: &mut Context<'_>) -> Result<u8> {
        let host = context.host_to_change("override", self.change.reboot)?;
        let mut fetch = self.change.fetch();
        fetch.cache_only = self.cache_only;
        let options = Options {
            verb: "override",
            target: context.target(),
            layering,
            network,
            fetch,
        };
        let outcome = layer::run(&host, &options, context.report)?;
        finish(&outcome, self.change.after(), context)
    }
}

fn list(arguments: &ListArguments, context: &mut Context<'_>) -> Result<u8> {
    let host = context.host("override", false)?;
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
