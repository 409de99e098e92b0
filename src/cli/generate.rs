//! `generate`: manual pages and completion scripts, made from the definitions of the command line.
//!
//! Whoever packages the program runs it once; a user has no need for it, so it is left out of the help.

use crate::cli::{Context, completion, manual};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use clap_complete::{Generator, Shell};
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
    let files = match command {
        Command::Man(_) => manual::pages(program)?,
        Command::Completions(_) => completions(&program)?,
    };
    for path in write(folder, files)? {
        writeln!(context.out, "{}", path.display())?;
    }
    Ok(0)
}

/// Writes the files and returns where they are.
fn write(folder: &Path, files: Vec<(String, Vec<u8>)>) -> Result<Vec<PathBuf>> {
    files
        .into_iter()
        .map(|(name, content)| {
            let path = folder.join(name);
            std::fs::write(&path, content).with_context(|| format!("Writing {}", path.display()))?;
            Ok(path)
        })
        .collect()
}

fn completions(program: &clap::Command) -> Result<Vec<(String, Vec<u8>)>> {
    [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .map(|shell| {
            let script = completion::script(shell, program.clone())?;
            Ok((shell.file_name("apt-ostree"), script.into_bytes()))
        })
        .collect()
}
