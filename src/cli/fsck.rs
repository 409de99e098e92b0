//! `fsck` on the command line: findings as lines or as JSON, and the next step.

use crate::cli::Context;
use crate::cli::outcome::{After, finish};
use crate::ops::fsck::{self, Checkup, Finding, Severity};
use crate::ops::request::Request;
use anyhow::Result;
use clap::Args;
use std::io::Write;

/// Findings of one sort that are printed before the rest is counted.
const SHOWN: usize = 10;

/// Check that nothing is damaged or missing
///
/// Reads every file that is stored, and looks at deployments, boot entries and dpkg's database. Changes nothing
/// without `--repair`; that never touches files of the system that runs. Ends with 0 when all is well.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree fsck
      Check everything
  apt-ostree fsck --quick
      Do not read the content of files
  apt-ostree fsck --repair
      Mend what can be mended")]
pub(crate) struct Arguments {
    /// Mend what can be mended; the booted deployment's files are never touched
    #[arg(long)]
    repair: bool,
    /// Do not read the content of files, only look whether they are there
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let after = After {
        json: arguments.json,
        ..After::default()
    };
    if arguments.repair {
        let outcome = context.perform(&Request::Fsck(fsck::Options {
            quick: arguments.quick,
            target: context.target(),
        }))?;
        return finish(&outcome, after, context);
    }
    let sysroot = context.global.sysroot.as_deref();
    let checkup = fsck::check(sysroot, arguments.quick, context.report)?;
    print(&checkup, arguments.json, context.out)
}

/// Prints what was found and returns the exit status: 0 where nothing is wrong any more.
pub(crate) fn print(checkup: &Checkup, json: bool, out: &mut dyn Write) -> Result<u8> {
    let status = if checkup.is_sound() { 0 } else { 1 };
    if json {
        let mut value = serde_json::to_value(checkup)?;
        value["sound"] = checkup.is_sound().into();
        writeln!(out, "{value:#}")?;
        return Ok(status);
    }
    for sort in checkup
        .findings
        .chunk_by(|a, b| (a.severity, &a.code) == (b.severity, &b.code))
    {
        for finding in sort.iter().take(SHOWN) {
            print_one(finding, out)?;
        }
        if sort.len() > SHOWN {
            writeln!(
                out,
                "{} {}: {} more, see `--json`",
                word(sort[0].severity),
                sort[0].code,
                sort.len() - SHOWN
            )?;
        }
    }
    let checked = &checkup.checked;
    writeln!(
        out,
        "Checked {} objects, {} refs, {} deployments with {} files and {} packages, {} boot entries.",
        checked.objects,
        checked.refs,
        checked.deployments,
        checked.files,
        checked.packages,
        checked.boot_entries
    )?;
    writeln!(out, "{}", checkup.conclusion())?;
    Ok(status)
}

fn print_one(finding: &Finding, out: &mut dyn Write) -> Result<()> {
    let (severity, mended) = match finding.mended {
        true => ("mended", true),
        false => (word(finding.severity), false),
    };
    writeln!(out, "{severity} {}: {}", finding.code, finding.message)?;
    if let (Some(hint), false) = (&finding.hint, mended) {
        writeln!(out, "  hint: {hint}")?;
    }
    Ok(())
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}
