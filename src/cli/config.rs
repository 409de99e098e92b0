//! `config` on the command line.

use crate::cli::Context;
use crate::config::Effective;
use crate::ops::config;
use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value, json};
use std::io::Write;

/// Show the settings in force and where they come from
///
/// Settings are in /etc/apt-ostree/config.d and /usr/lib/apt-ostree/config.d. Changes nothing; tells every
/// mistake with its file and line.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree config
      Show the settings
  apt-ostree config --json
      Print them for a script")]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let effective = config::run(
        context.global.sysroot.as_deref(),
        context.global.stateroot.as_deref(),
    )?;
    if arguments.json {
        writeln!(context.out, "{:#}", as_json(&effective)?)?;
    } else {
        print(&effective, context.out)?;
    }
    Ok(0)
}

/// Prints what could be written into a fragment as it is.
fn print(effective: &Effective, out: &mut dyn Write) -> Result<()> {
    let mut last = "";
    for setting in effective.settings() {
        let (table, key) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if table != last {
            let gap = if last.is_empty() { "" } else { "\n" };
            writeln!(out, "{gap}[{table}]")?;
            last = table;
        }
        let source = setting
            .file
            .map_or_else(|| "default".to_owned(), |file| file.display().to_string());
        writeln!(out, "{key} = {}  # {source}", setting.value)?;
    }
    Ok(())
}

fn as_json(effective: &Effective) -> Result<Value> {
    let mut tables = Map::new();
    for setting in effective.settings() {
        let (table, key) = setting.key.split_once('.').unwrap_or(("", setting.key));
        tables.entry(table).or_insert_with(|| json!({}))[key] =
            json!({ "value": serde_json::to_value(&setting.value)?, "file": setting.file });
    }
    Ok(tables.into())
}
