//! `db` on the command line: rpm-ostree's formats, with Debian's identity of a package.

use crate::cli::Context;
use crate::cli::status::NO_ADVISORIES;
use crate::fault::{Fault, Kind};
use crate::layer::packages::{self, Changed, PackageDifference, Packages};
use crate::layer::plan::PackageId;
use crate::ops::db::{self, Changelogs, Difference};
use crate::ops::revision::Revision;
use crate::ops::store::Store;
use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show which packages differ
    ///
    /// Without revisions it compares what runs with what boots next. A revision is the index of a deployment
    /// (as `status -v` shows it), a stored image, or a commit. Needs neither root nor network.
    #[command(after_help = "\
Examples:
  apt-ostree db diff
      Show what the next restart changes
  apt-ostree db diff 1 0
      Compare two deployments
  apt-ostree db diff --format=json
      Print the difference for a script")]
    Diff(Diff),
    /// List the packages of a deployment or an image
    ///
    /// What `dpkg -l` is on other systems, for any deployment, stored image or commit. Needs neither root nor
    /// network.
    #[command(after_help = "\
Examples:
  apt-ostree db list 0
      List the packages of the first deployment
  apt-ostree db list 0 linux-image*
      List those whose names begin so")]
    List(List),
    /// Print a short name for all packages together
    ///
    /// Two revisions with the same packages have the same name: a quick way to compare hosts. Needs neither
    /// root nor network.
    #[command(after_help = "\
Examples:
  apt-ostree db version 0
      Print it for the first deployment
  apt-ostree db version 0 1
      Print it for two, to compare them")]
    Version(Version),
}

#[derive(Args, Debug)]
pub(crate) struct Place {
    /// The repository; that of the sysroot when left out
    #[arg(short, long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// Look at the images below the deployments, without layered packages
    #[arg(long)]
    base: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Diff {
    #[command(flatten)]
    place: Place,
    /// The old revision; the booted deployment when only one is given
    from: Option<String>,
    /// The new revision
    to: Option<String>,
    /// Show what the images' changelogs tell of packages with another version
    #[arg(short, long)]
    changelogs: bool,
    /// Show security advisories; they are not known yet, and that is told
    #[arg(short, long)]
    advisories: bool,
    /// How to print it
    #[arg(short = 'F', long, value_enum, value_name = "FORMAT", default_value = "block")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Under headings
    Block,
    /// One sign for each line
    Diff,
    /// For programs
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    #[command(flatten)]
    place: Place,
    /// Revisions, and behind them patterns for names of packages; A..B are the deployments from A to B
    #[arg(required = true, value_name = "REVISION|PATTERN")]
    words: Vec<String>,
    /// Show security advisories; they are not known yet, and that is told
    #[arg(short, long)]
    advisories: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Version {
    #[command(flatten)]
    place: Place,
    /// Revisions
    #[arg(required = true, value_name = "REVISION")]
    revisions: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: &Command, context: &mut Context<'_>) -> Result<u8> {
    let open = |place: &Place| match &place.repo {
        Some(path) => Store::open_repo(path),
        None => context.host("db").map(Store::Sysroot),
    };
    match command {
        Command::Diff(arguments) => {
            diff(arguments, &open(&arguments.place)?, context)?;
            tell_advisories(arguments.advisories, context);
        }
        Command::List(arguments) => {
            let found = db::list(&open(&arguments.place)?, &arguments.words, arguments.place.base)?;
            print_each(&found, arguments.json, context.out, |packages| {
                let ids: Vec<PackageId> = packages::ids(packages).collect();
                let lines = ids.iter().map(|id| format!(" {}", shown(id))).collect();
                (
                    lines,
                    json!({ "packages": ids.iter().map(tuple).collect::<Vec<_>>() }),
                )
            })?;
            tell_advisories(arguments.advisories, context);
        }
        Command::Version(arguments) => {
            let found = db::list(
                &open(&arguments.place)?,
                &arguments.revisions,
                arguments.place.base,
            )?;
            print_each(&found, arguments.json, context.out, |packages| {
                let version = version(packages);
                (
                    vec![format!("  dpkgdbv is: {version}")],
                    json!({ "dpkgdbv": version }),
                )
            })?;
        }
    }
    Ok(0)
}

fn tell_advisories(wanted: bool, context: &Context<'_>) {
    if wanted {
        context.report.note(NO_ADVISORIES);
    }
}

fn diff(arguments: &Diff, store: &Store, context: &mut Context<'_>) -> Result<()> {
    if arguments.changelogs && arguments.format == Format::Diff {
        return Err(Fault::new(Kind::Usage, "`--format=diff` has no place for changelogs").into());
    }
    let (from, to) = (arguments.from.as_deref(), arguments.to.as_deref());
    let found = db::diff(store, from, to, arguments.place.base)?;
    let changelogs = match arguments.changelogs {
        true => db::changelogs(store, &found)?,
        false => Changelogs::new(),
    };
    if arguments.format == Format::Json {
        let mut value = as_json(&found);
        if arguments.changelogs {
            let named = changelogs
                .iter()
                .map(|(id, entries)| (id.name.clone(), json!(entries)));
            value["changelogs"] = named.collect::<Map<_, _>>().into();
        }
        writeln!(context.out, "{value:#}")?;
        return Ok(());
    }
    print(&found, arguments.format, &changelogs, context.out)?;
    if !changelogs.is_empty() && changelogs.values().all(Option::is_none) {
        writeln!(context.out, "The images ship no changelogs of these packages.")?;
    }
    Ok(())
}

fn print(found: &Difference, format: Format, changelogs: &Changelogs, out: &mut dyn Write) -> Result<()> {
    for (what, revision) in [("from: ", &found.from), ("to:   ", &found.to)] {
        writeln!(
            out,
            "ostree diff commit {what}{} ({})",
            revision.name, revision.commit
        )?;
    }
    let packages = &found.packages;
    if format == Format::Diff {
        let mut lines: Vec<(&str, Vec<String>)> = Vec::new();
        for pair in packages.upgraded.iter().chain(&packages.downgraded) {
            let both = vec![
                format!("!{}", shown(&pair.before)),
                format!("={}", shown(&pair.after)),
            ];
            lines.push((&pair.after.name, both));
        }
        lines.extend(
            packages
                .removed
                .iter()
                .map(|id| (id.name.as_str(), vec![format!("-{}", shown(id))])),
        );
        lines.extend(
            packages
                .added
                .iter()
                .map(|id| (id.name.as_str(), vec![format!("+{}", shown(id))])),
        );
        lines.sort();
        for line in lines.iter().flat_map(|(_, lines)| lines) {
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    print_block_with(packages, changelogs, out)
}

/// Prints what differs between two lists of packages under headings; nothing where nothing differs.
pub(crate) fn print_block(packages: &PackageDifference, out: &mut dyn Write) -> Result<()> {
    print_block_with(packages, &Changelogs::new(), out)
}

/// Prints as [`print_block`] does, with entries of changelogs below the packages they are about.
fn print_block_with(
    packages: &PackageDifference,
    changelogs: &Changelogs,
    out: &mut dyn Write,
) -> Result<()> {
    let change = |pair: &Changed| {
        let mut text = format!(
            "{} {} -> {}",
            pair.after.name, pair.before.version, pair.after.version
        );
        let entries = changelogs.get(&pair.after).and_then(Option::as_ref);
        let lines = entries.into_iter().flatten().flat_map(|entry| entry.lines());
        for line in lines.filter(|line| !line.trim().is_empty()) {
            text += &format!("\n    {line}");
        }
        text
    };
    for (heading, lines) in [
        (
            "Upgraded",
            packages.upgraded.iter().map(change).collect::<Vec<_>>(),
        ),
        ("Downgraded", packages.downgraded.iter().map(change).collect()),
        ("Removed", packages.removed.iter().map(shown).collect()),
        ("Added", packages.added.iter().map(shown).collect()),
    ] {
        if !lines.is_empty() {
            writeln!(out, "{heading}:")?;
        }
        for line in lines {
            writeln!(out, "  {line}")?;
        }
    }
    Ok(())
}

/// Returns rpm-ostree's layout: `[name, 0 added|1 removed|2 upgraded|3 downgraded, {PreviousPackage, NewPackage}]`.
fn as_json(found: &Difference) -> Value {
    let packages = &found.packages;
    let change = |kind: u32, pair: &Changed| json!([pair.after.name, kind, { "PreviousPackage": tuple(&pair.before), "NewPackage": tuple(&pair.after) }]);
    let mut rows = Vec::new();
    rows.extend(
        packages
            .added
            .iter()
            .map(|id| json!([id.name, 0, { "NewPackage": tuple(id) }])),
    );
    rows.extend(
        packages
            .removed
            .iter()
            .map(|id| json!([id.name, 1, { "PreviousPackage": tuple(id) }])),
    );
    rows.extend(packages.upgraded.iter().map(|pair| change(2, pair)));
    rows.extend(packages.downgraded.iter().map(|pair| change(3, pair)));
    rows.sort_by_key(|row| row[0].as_str().map(str::to_owned));
    json!({
        "ostree-commit-from": found.from.commit,
        "ostree-commit-to": found.to.commit,
        "pkgdiff": rows,
        "advisories": [],
    })
}

fn print_each(
    found: &[(Revision, Packages)],
    json: bool,
    out: &mut dyn Write,
    tell: impl Fn(&Packages) -> (Vec<String>, Value),
) -> Result<()> {
    let mut rows = Vec::new();
    for (revision, packages) in found {
        let (lines, mut value) = tell(packages);
        if json {
            value["revision"] = json!(revision.name);
            value["ostree-commit"] = json!(revision.commit);
            rows.push(value);
            continue;
        }
        writeln!(out, "ostree commit: {} ({})", revision.name, revision.commit)?;
        for line in lines {
            writeln!(out, "{line}")?;
        }
    }
    if json {
        writeln!(out, "{:#}", Value::Array(rows))?;
    }
    Ok(())
}

/// Returns the count of packages and a digest over their identities.
fn version(packages: &Packages) -> String {
    let mut digest = Sha256::new();
    for id in packages::ids(packages) {
        digest.update(format!("{}\n", shown(&id)));
    }
    format!("{}:{}", packages.len(), hex::encode(digest.finalize()))
}

fn shown(id: &PackageId) -> String {
    format!("{}_{}_{}", id.name, id.version, id.architecture)
}

fn tuple(id: &PackageId) -> Value {
    json!([id.name, id.version, id.architecture])
}
