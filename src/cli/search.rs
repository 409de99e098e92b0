//! `search` on the command line: rpm-ostree's groups and lines.

use crate::cli::Context;
use crate::layer::search::Match;
use crate::ops::search;
use anyhow::Result;
use clap::Args;

/// Search the repositories for packages
///
/// Looks in names and summaries, as `apt search` does. Nothing is fetched: the lists are those of the last
/// `refresh-md`, `install` or `upgrade`. Needs no root.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree search process viewer
      Find what has one of the words in name or summary
  apt-ostree search nginx*
      Find names that begin so")]
pub(crate) struct Arguments {
    /// Words that the name or the summary has; with `*` or `?` they must match the whole
    #[arg(required = true, value_name = "TERM")]
    terms: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let host = context.host("search")?;
    let found = search::run(&host, context.global.stateroot.as_deref(), &arguments.terms)?;
    let groups: [(&str, &[Match]); 3] = [
        ("Summary & Name Matched", &found.both),
        ("Name Matched", &found.name),
        ("Summary Matched", &found.summary),
    ];
    let mut some = false;
    for (title, matches) in groups.into_iter().filter(|(_, matches)| !matches.is_empty()) {
        if some {
            writeln!(context.out)?;
        }
        some = true;
        writeln!(context.out, "===== {title} =====")?;
        for found in matches {
            writeln!(context.out, "{} : {}", found.name, found.summary)?;
        }
    }
    if !some {
        writeln!(context.out, "No matches found.")?;
    }
    Ok(0)
}
