//! `completion`: a completion script for a shell.

use crate::cli::Context;
use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

/// Print a completion script for a shell
///
/// The packages of this program bring the scripts for bash, zsh and fish; this is for other installations and
/// shells.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree completion bash
      Print the script, to be read with `source`
  apt-ostree completion elvish
      Print the one for elvish")]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, program: clap::Command, context: &mut Context<'_>) -> Result<u8> {
    context
        .out
        .write_all(script(arguments.shell, program)?.as_bytes())?;
    Ok(0)
}

/// Returns the script that completes the program's command line in a shell.
pub(crate) fn script(shell: Shell, mut program: clap::Command) -> Result<String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, "apt-ostree", &mut script);
    // The script for bash spells a hyphen in the program's name in two ways and then completes no option of a verb
    // (clap issue 6421).
    Ok(String::from_utf8(script)?.replace("apt__subcmd__ostree", "apt__ostree"))
}
