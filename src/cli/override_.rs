//! `override` on the command line.

use crate::cli::layering::{PackageArguments, SetUpArguments};
use crate::cli::outcome::finish;
use crate::cli::{ChangeArguments, Context};
use crate::fault::{Fault, Kind};
use crate::ops::request::Request;
use crate::ops::{override_list, overrides};
use anyhow::Result;
use clap::{Args, Subcommand};

/// Verbs for packages of the image.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Use other versions of packages of the image
    ///
    /// Makes a new deployment in which these packages come from a repository or a file instead of the image; it
    /// boots at the next restart, and is made again on each new image. `apt-ostree override reset PKG` takes it
    /// back.
    #[command(after_help = "\
Examples:
  apt-ostree override replace openssh-server
      Take the newest version of the repositories
  apt-ostree override replace ./bash_5.3_amd64.deb
      Take the package from a file")]
    Replace(ReplaceArguments),
    /// Take packages out of the image
    ///
    /// Makes a new deployment without these packages; it boots at the next restart, and they are taken out of
    /// each new image as well. `apt-ostree override reset PKG` takes it back.
    #[command(after_help = "\
Examples:
  apt-ostree override remove nano
      Have no nano
  apt-ostree override remove nano --install vim
      Have vim instead of nano")]
    Remove(RemoveArguments),
    /// Go back to the packages of the image
    ///
    /// Makes a new deployment in which these packages are as the image has them; it boots at the next restart.
    #[command(after_help = "\
Examples:
  apt-ostree override reset nano
      Have nano of the image again
  apt-ostree override reset --all
      Take all overrides back")]
    Reset(ResetArguments),
    /// Show which packages of the image are replaced or removed
    ///
    /// Shows the overrides of the deployment that boots next, with both versions, and those that have no effect
    /// on its image. Needs no root and changes nothing.
    #[command(after_help = "\
Examples:
  apt-ostree override list
      Show them
  apt-ostree override list --json
      Print them for a script")]
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
    /// rpm-ostree's: take them from this suite, as NAME/SUITE does
    #[arg(long, value_name = "repo=SUITE", hide = true)]
    from: Option<String>,
    /// rpm-ostree's, which allows names there; they are always allowed here
    #[arg(long, hide = true)]
    experimental: bool,
    /// rpm-ostree's: refused
    #[arg(long, hide = true)]
    freeze: bool,
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
        Command::Replace(arguments) if arguments.freeze => Err(Fault::new(
            Kind::Usage,
            "There is no `--freeze`: a replacement by name follows its repository",
        )
        .hint("name the version as NAME=VERSION, or fetch the package with `apt-get download` and name its file")
        .into()),
        Command::Replace(arguments) => arguments.common.finish(
            &Request::OverrideReplace(overrides::Replace {
                packages: arguments.packages.clone(),
                from: arguments.from.clone(),
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
