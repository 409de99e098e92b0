//! `generate`: manual pages and completion scripts, made from the definitions of the command line.
//!
//! Whoever packages the program runs it once; a user has no need for it, so it is left out of the help.

use super::manual;
use crate::cli::Context;
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use clap_complete::Shell;
use std::path::{Path, PathBuf};

/// Make manual pages and completion scripts, for packages of this program
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a manual page for the program and one for each verb
    Man(Arguments),
    /// Write completion scripts for bash, zsh and fish
    Completions(Arguments),
}

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Where to write them; made when it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn run(command: &Command, program: clap::Command, context: &mut Context<'_>) -> Result<u8> {
    let folder = match command {
        Command::Man(arguments) | Command::Completions(arguments) => &arguments.folder,
    };
    std::fs::create_dir_all(folder).with_context(|| format!("Making {}", folder.display()))?;
    let written = match command {
        Command::Man(_) => manual_pages(program, folder)?,
        Command::Completions(_) => completions(program, folder)?,
    };
    for path in written {
        writeln!(context.out, "{}", path.display())?;
    }
    Ok(0)
}

fn manual_pages(program: clap::Command, folder: &Path) -> Result<Vec<PathBuf>> {
    let pages = manual::pages(program)?;
    pages
        .into_iter()
        .map(|page| {
            let path = folder.join(page.name);
            std::fs::write(&path, page.text).with_context(|| format!("Writing {}", path.display()))?;
            Ok(path)
        })
        .collect()
}

fn completions(mut program: clap::Command, folder: &Path) -> Result<Vec<PathBuf>> {
    [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .map(|shell| {
            clap_complete::generate_to(shell, &mut program, "apt-ostree", folder).with_context(|| {
                format!(
                    "Writing the completion script for {shell} into {}",
                    folder.display()
                )
            })
        })
        .collect()
}
