//! `info` on the command line.

use crate::cli::Context;
use crate::layer::intent::PackageRequest;
use crate::ops::info::{self, Package};
use anyhow::Result;
use clap::Args;
use indicatif::HumanBytes;
use std::io::Write;

/// Show versions, sizes and relations of packages
///
/// Shows what `install` would take and from where, and whether the deployment that boots next has the package
/// already, in the image or on top of it. Nothing is fetched. Needs no root.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree info htop
      Show what is known of htop
  apt-ostree info libc6:i386
      Show a package of another architecture")]
pub(crate) struct Arguments {
    /// Names, with `:ARCH` for another architecture
    #[arg(required = true, value_name = "PKG")]
    names: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let names: Result<Vec<PackageRequest>, _> = arguments.names.iter().map(|name| name.parse()).collect();
    let host = context.host("info")?;
    let packages = info::run(&host, context.global.stateroot.as_deref(), &names?)?;
    for (index, package) in packages.iter().enumerate() {
        if index > 0 {
            writeln!(context.out)?;
        }
        print(package, context.out)?;
    }
    Ok(0)
}

fn print(package: &Package, out: &mut dyn Write) -> Result<()> {
    let information = &package.information;
    writeln!(out, "Name: {}", information.name)?;
    let place = match &information.installed {
        None => "not installed".to_owned(),
        Some((version, _)) if package.layered => format!("{version}, on top of the image"),
        Some((version, _)) => format!("{version}, in the image"),
    };
    writeln!(out, "Installed: {place}")?;
    let Some((candidate, others)) = information.versions.split_first() else {
        return Ok(());
    };
    writeln!(out, "Version: {}", candidate.version)?;
    writeln!(out, "Architecture: {}", candidate.architecture)?;
    for repository in &candidate.repositories {
        writeln!(out, "Repository: {repository}")?;
    }
    if candidate.download_size > 0 {
        writeln!(out, "Download-Size: {}", HumanBytes(candidate.download_size))?;
    }
    writeln!(out, "Installed-Size: {}", HumanBytes(candidate.installed_size))?;
    for (field, value) in &candidate.relations {
        writeln!(out, "{field}: {value}")?;
    }
    if let Some(homepage) = &candidate.homepage {
        writeln!(out, "Homepage: {homepage}")?;
    }
    writeln!(out, "Summary: {}", candidate.summary)?;
    for other in others {
        let places = other.repositories.join(", ");
        writeln!(out, "Other-Version: {} {places}", other.version)?;
    }
    Ok(())
}
