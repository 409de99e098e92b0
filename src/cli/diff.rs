//! `diff` on the command line.

use crate::cli::{Context, db};
use crate::ops::diff::{self, Difference, TreeDifference, What};
use crate::ops::revision::Revision;
use crate::ops::store::Store;
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

/// Show what differs between two deployments or images
///
/// Packages, files, defaults in /etc and kernel arguments; without arguments it compares what runs with what
/// boots next. Changes nothing and fetches nothing.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree diff
      Show what the next restart changes
  apt-ostree diff rollback booted --packages
      Show which packages the last update changed")]
pub(crate) struct Arguments {
    /// The old one: an index, `booted`, `pending`, `rollback`, a version, a digest, a reference, a commit or a ref
    from: Option<String>,
    /// The new one
    to: Option<String>,
    /// Show only the packages
    #[arg(long, conflicts_with = "files")]
    packages: bool,
    /// Show only files, defaults below /etc and kernel arguments
    #[arg(long)]
    files: bool,
    /// The repository; that of the sysroot when left out
    #[arg(short, long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let store = match &arguments.repo {
        Some(path) => Store::open_repo(path)?,
        None => Store::Sysroot(context.host("diff")?),
    };
    let what = What {
        packages: !arguments.files,
        files: !arguments.packages,
    };
    let found = diff::run(&store, arguments.from.as_deref(), arguments.to.as_deref(), what)?;
    if arguments.json {
        writeln!(context.out, "{:#}", as_json(&found)?)?;
        return Ok(0);
    }
    for (word, revision) in [("from:", &found.from), ("to:  ", &found.to)] {
        writeln!(context.out, "{word} {} ({})", revision.name, revision.commit)?;
    }
    if let Some(packages) = &found.packages {
        if packages.is_empty() {
            writeln!(context.out, "Packages: the same")?;
        }
        db::print_block(packages, context.out)?;
    }
    if let Some(tree) = &found.tree {
        print(tree, context.out)?;
    }
    Ok(0)
}

/// Prints paths with the letters of `ostree diff`: A added, D removed, M changed.
fn print(tree: &TreeDifference, out: &mut dyn Write) -> Result<()> {
    let words = &tree.kernel_arguments;
    for (heading, words) in [
        ("Kernel arguments added", &words.added),
        ("Kernel arguments removed", &words.removed),
    ] {
        if !words.is_empty() {
            writeln!(out, "{heading}: {}", words.join(" "))?;
        }
    }
    let files = &tree.files;
    writeln!(
        out,
        "Files: {} added, {} removed, {} changed",
        files.added.len(),
        files.removed.len(),
        files.changed.len()
    )?;
    let etc = tree.etc;
    if etc.added + etc.removed + etc.changed > 0 {
        writeln!(
            out,
            "  of them defaults below /etc: {} added, {} removed, {} changed",
            etc.added, etc.removed, etc.changed
        )?;
    }
    let mut lines: Vec<(&str, char)> = [(&files.added, 'A'), (&files.removed, 'D'), (&files.changed, 'M')]
        .into_iter()
        .flat_map(|(paths, letter)| paths.iter().map(move |path| (path.as_str(), letter)))
        .collect();
    lines.sort_unstable();
    for (path, letter) in lines {
        writeln!(out, "{letter}    {path}")?;
    }
    Ok(())
}

fn as_json(found: &Difference) -> Result<Value> {
    let revision = |revision: &Revision| json!({ "name": revision.name, "commit": revision.commit });
    let mut value = match &found.tree {
        Some(tree) => serde_json::to_value(tree)?,
        None => json!({}),
    };
    value["from"] = revision(&found.from);
    value["to"] = revision(&found.to);
    if let Some(packages) = &found.packages {
        value["packages"] = serde_json::to_value(packages)?;
    }
    Ok(value)
}
