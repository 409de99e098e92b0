//! `completion`: a completion script for a shell.

use crate::cli::Context;
use anyhow::Result;
use clap::Args;

/// Print a completion script for a shell
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(
    arguments: &Arguments,
    mut command: clap::Command,
    context: &mut Context<'_>,
) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "apt-ostree", &mut script);
    context.out.write_all(&script)?;
    Ok(0)
}
