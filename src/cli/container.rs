//! `container prepare` and `container lint`: run inside the build of an image, or on a root directory.

use crate::compose::lint::{self, Finding, Level, RULES};
use crate::compose::prepare::{self, Prepared};
use crate::fault::{Fault, Kind};
use crate::report::Report;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Verbs for building images.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a plain Debian root bootable
    ///
    /// The last line of a Containerfile: `RUN apt-ostree container prepare`. It moves what an image may not
    /// hold, makes the initramfs, and changes nothing when it runs again.
    #[command(after_help = "\
Examples:
  apt-ostree container prepare
      Prepare the root of the build it runs in
  apt-ostree container prepare --rootfs /srv/root
      Prepare a directory")]
    Prepare(PrepareArgs),
    /// Check that an image works as a host
    ///
    /// Tells what would keep a host from booting, updating or keeping its data. Changes nothing; ends with 1
    /// when there is an error.
    #[command(after_help = "\
Examples:
  apt-ostree container lint
      Check the root of the build it runs in
  apt-ostree container lint --list
      Show all rules
  apt-ostree container lint --fatal-warnings --skip var-tmpfiles
      Take warnings as errors, but for one rule")]
    Lint(LintArgs),
}

/// Arguments of `container prepare`.
#[derive(Args, Debug)]
pub struct PrepareArgs {
    /// Root directory of the image
    #[arg(long, value_name = "DIR", default_value = "/")]
    rootfs: PathBuf,
}

/// Arguments of `container lint`.
#[derive(Args, Debug)]
pub struct LintArgs {
    /// Root directory of the image
    #[arg(long, value_name = "DIR", default_value = "/")]
    rootfs: PathBuf,
    /// Fail on warnings too
    #[arg(long)]
    fatal_warnings: bool,
    /// Leave out a rule; may be given several times
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// Print all rules and end
    #[arg(long)]
    list: bool,
    /// How to print the findings
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Runs one of the verbs and returns the exit status.
pub fn run(command: &Command, out: &mut dyn Write, report: &dyn Report) -> Result<u8> {
    match command {
        Command::Prepare(args) => run_prepare(args, out, report),
        Command::Lint(args) => run_lint(args, out),
    }
}

fn run_prepare(args: &PrepareArgs, out: &mut dyn Write, report: &dyn Report) -> Result<u8> {
    let path = resolve(&args.rootfs)?;
    refuse_a_host(&path)?;
    let root = open(&path)?;
    let prepared = prepare::run(
        &root,
        &prepare::Options {
            path,
            scope: prepare::Scope::Image,
        },
        report,
    )?;
    print_prepared(&prepared, out)?;
    Ok(0)
}

/// Prints what was done to make the image bootable.
pub(crate) fn print_prepared(prepared: &Prepared, out: &mut dyn Write) -> Result<()> {
    let initramfs = if prepared.initramfs_made {
        "was made"
    } else {
        "is unchanged"
    };
    writeln!(
        out,
        "The image is prepared: kernel {}, its initramfs {initramfs}.",
        prepared.kernel
    )?;
    Ok(())
}

/// Fails when the root is the one this machine runs from, rather than a container's.
fn refuse_a_host(path: &Path) -> Result<()> {
    let booted = path == Path::new("/") && Path::new("/run/systemd/system").is_dir();
    if !booted {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Usage,
        "`container prepare` would take this running machine apart",
    )
    .hint("run it in a Containerfile, or name the root directory of an image with --rootfs DIR")
    .into())
}

fn run_lint(args: &LintArgs, out: &mut dyn Write) -> Result<u8> {
    if args.list {
        return list(args.format, out);
    }
    let path = resolve(&args.rootfs)?;
    let options = lint::Options {
        skip: args.skip.clone(),
        in_container: path == Path::new("/"),
    };
    let findings = lint::run(&open(&path)?, &options)?;
    match args.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?,
        Format::Text => print(&findings, out)?,
    }
    let fatal = findings
        .iter()
        .any(|finding| args.fatal_warnings || finding.level == Level::Error);
    Ok(u8::from(fatal))
}

fn list(format: Format, out: &mut dyn Write) -> Result<u8> {
    if format == Format::Json {
        let rules: Vec<_> = RULES
            .iter()
            .map(|rule| json!({"name": rule.name, "level": rule.level, "description": rule.description}))
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&rules)?)?;
        return Ok(0);
    }
    for rule in RULES {
        writeln!(
            out,
            "{:<22}{:<9}{}",
            rule.name,
            word(rule.level),
            rule.description
        )?;
    }
    Ok(0)
}

fn print(findings: &[Finding], out: &mut dyn Write) -> Result<()> {
    for finding in findings {
        writeln!(
            out,
            "{}: {}: {} [{}]",
            word(finding.level),
            finding.path,
            finding.message,
            finding.rule
        )?;
        writeln!(out, "  remedy: {}", finding.remedy)?;
    }
    let errors = findings
        .iter()
        .filter(|finding| finding.level == Level::Error)
        .count();
    match (errors, findings.len() - errors) {
        (0, 0) => writeln!(out, "{} rules checked, nothing found.", RULES.len())?,
        (errors, warnings) => writeln!(out, "Errors: {errors}, warnings: {warnings}.")?,
    }
    Ok(())
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warning => "warning",
    }
}

fn resolve(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| {
        Fault::new(
            Kind::NotFound,
            format!("The root directory {} cannot be opened: {error}", path.display()),
        )
        .into()
    })
}

fn open(path: &Path) -> Result<Dir> {
    Dir::open_ambient_dir(path, ambient_authority()).with_context(|| format!("Opening {}", path.display()))
}
