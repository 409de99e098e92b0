//! The person's own editor on a text.

use crate::fault::{Fault, Kind};
use crate::host::environment;
use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use std::io::{IsTerminal, Write};

/// What Debian calls the editor of people who chose none.
const DEFAULT: &str = "editor";

/// Lets the person change `text` in `$VISUAL`, `$EDITOR` or Debian's `editor`, and returns what is left.
///
/// Fails without a terminal, and when the editor ends with an error, which is how a person gives up. `option` is what
/// was asked for.
pub(crate) fn edit(text: &str, option: &str) -> Result<String> {
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Err(Fault::new(
            Kind::Usage,
            format!("There is no terminal to run an editor on for `{option}`"),
        )
        .into());
    }
    let chosen = ["VISUAL", "EDITOR"].into_iter().find_map(environment::variable);
    let chosen = chosen.unwrap_or_else(|| DEFAULT.into());
    let chosen = chosen.to_string_lossy();
    // A program with options, as in `vim -f`; no shell reads it.
    let mut words = chosen.split_whitespace();
    let program = words.next().unwrap_or(DEFAULT);
    let mut file = tempfile::Builder::new()
        .prefix("apt-ostree-")
        .suffix(".txt")
        .tempfile()
        .context("Making a temporary file")?;
    file.write_all(text.as_bytes())?;
    let status = Cmd::new(program).args(words).arg(file.path()).on_terminal()?;
    if !status.success() {
        return Err(Fault::new(
            Kind::Cancelled,
            format!("The editor `{chosen}` failed ({status}), so nothing was changed"),
        )
        .into());
    }
    // Editors write a new file in the place of the old one.
    std::fs::read_to_string(file.path()).context("Reading what the editor left")
}
