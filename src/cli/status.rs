//! `status` on the command line: rpm-ostree's layout, with the key right-aligned to column 23.

use crate::cli::terminal::Style;
use crate::cli::{Context, UNCHANGED, available, perform, status_automatic, status_layers};
use crate::deployment::driver::{Driver, State};
use crate::deployment::finalization;
use crate::deployment::model::DeploymentState;
use crate::fault::{Fault, Kind};
use crate::host::clock;
use crate::ops::status::{self, Automatic, Status};
use anyhow::Result;
use clap::Args;
use serde_json_path::JsonPath;
use std::io::Write;

/// What is told where advisories are asked for.
pub(crate) const NO_ADVISORIES: &str = "Security advisories are not available in this version of apt-ostree.";

/// Show what is booted, what boots next and what ran before
///
/// A deployment is a whole system that can be booted: an image, and what was put on top of it. The mark shows
/// the one that runs; the first one boots next. Needs no root and changes nothing.
#[derive(Args, Debug, Default)]
#[command(after_help = "\
Examples:
  apt-ostree status
      Show the deployments
  apt-ostree status -b -v
      Show every fact on the one that runs
  apt-ostree status --jsonpath '$.deployments[0].version'
      Print the version that boots next, for a script")]
pub(crate) struct Arguments {
    /// Show every fact
    #[arg(short, long)]
    verbose: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "jsonpath")]
    json: bool,
    /// Print the parts of the JSON that the expression selects
    #[arg(short = 'J', long, value_name = "EXPRESSION")]
    jsonpath: Option<String>,
    /// Show security advisories; they are not known yet, and that is told
    #[arg(short, long)]
    advisories: bool,
    /// rpm-ostree's, which does nothing there either
    #[arg(short, long, hide = true)]
    pretty: bool,
    /// Show only the booted deployment
    #[arg(short, long)]
    booted: bool,
    /// End with 77 when the next boot is another deployment than the booted one
    #[arg(long)]
    pending_exit_77: bool,
}

impl Arguments {
    /// Returns what `--booted` alone asks for.
    pub(crate) fn booted() -> Self {
        Self {
            booted: true,
            ..Self::default()
        }
    }
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let mut status = status::run(context.global.sysroot.as_deref())?;
    if let Some(active) = perform::active(context.global) {
        status.transaction = Some(vec![active.title, active.initiator, active.address]);
    }
    let pending = status.is_pending();
    if let Some(stateroot) = &context.global.stateroot {
        status
            .deployments
            .retain(|deployment| deployment.stateroot == *stateroot);
    }
    if arguments.booted {
        status.deployments.retain(|deployment| deployment.booted);
    }
    if arguments.json {
        writeln!(context.out, "{:#}", serde_json::to_value(&status)?)?;
    } else if let Some(expression) = &arguments.jsonpath {
        let value = serde_json::to_value(&status)?;
        let path = JsonPath::parse(expression).map_err(|error| {
            Fault::new(
                Kind::Usage,
                format!("The JSONPath expression `{expression}` cannot be used: {error}"),
            )
            .hint("for example: $.deployments[0].version")
        })?;
        writeln!(
            context.out,
            "{:#}",
            serde_json::to_value(path.query(&value).all())?
        )?;
    } else {
        print(&status, arguments, Style::of_output(), context.out)?;
    }
    if arguments.advisories {
        context.report.note(NO_ADVISORIES);
    }
    Ok(if arguments.pending_exit_77 && pending {
        UNCHANGED
    } else {
        0
    })
}

fn print(status: &Status, arguments: &Arguments, style: Style, out: &mut dyn Write) -> Result<()> {
    match &status.transaction {
        None => writeln!(out, "State: idle")?,
        Some(transaction) => {
            writeln!(out, "State: busy")?;
            match transaction.as_slice() {
                [title, initiator, address] if !address.is_empty() => {
                    writeln!(out, "Transaction: {title}\n  Initiator: {initiator}")?;
                }
                [command, process, ..] => writeln!(out, "Transaction: {command} (process {process})")?,
                _ => {}
            }
        }
    }
    if let Some(words) = &status.finalization_failure {
        writeln!(
            out,
            "{}",
            style.red("Warning: failed to finalize previous deployment")
        )?;
        writeln!(out, "         {words}")?;
        writeln!(out, "         check `journalctl -b -1 -u {}`", finalization::UNIT)?;
    }
    if let Some(interrupted) = &status.last_interrupted {
        let text = format!("{} ({})", interrupted.text, timestamp(interrupted.at));
        writeln!(out, "Interrupted: {}", style.red(&text))?;
    }
    match &status.update_driver {
        Some(driver) => print_driver(driver, arguments.verbose, out)?,
        None => print_automatic(&status.automatic_updates, arguments.verbose, style, out)?,
    }
    for problem in &status.problems {
        writeln!(out, "Problem: {}", style.red(problem))?;
    }
    writeln!(
        out,
        "{}",
        if arguments.booted {
            "BootedDeployment:"
        } else {
            "Deployments:"
        }
    )?;
    if status.deployments.is_empty() {
        writeln!(out, "  (none)")?;
    }
    let several_roots = status
        .deployments
        .windows(2)
        .any(|pair| pair[0].stateroot != pair[1].stateroot);
    let several = status.deployments.iter().any(|deployment| deployment.booted);
    for (index, deployment) in status.deployments.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let shown = Shown {
            index,
            verbose: arguments.verbose,
            stateroot: several_roots || arguments.verbose,
            slot: slot(status, index, several),
        };
        print_deployment(deployment, &shown, style, out)?;
    }
    if let (Some(update), false) = (&status.cached_update, arguments.booted) {
        writeln!(out)?;
        available::print(update, 23, out)?;
    }
    Ok(())
}

fn print_automatic(automatic: &Automatic, verbose: bool, style: Style, out: &mut dyn Write) -> Result<()> {
    for line in status_automatic::lines(automatic, verbose, clock::seconds()) {
        let text = if line.alarming {
            style.red(&line.text)
        } else {
            line.text
        };
        writeln!(out, "{text}")?;
    }
    Ok(())
}

fn print_driver(driver: &Driver, verbose: bool, out: &mut dyn Write) -> Result<()> {
    let unit = if verbose {
        format!(" ({})", driver.unit)
    } else {
        String::new()
    };
    writeln!(out, "AutomaticUpdatesDriver: {}{unit}", driver.name)?;
    match driver.state() {
        Ok(State { active, text }) if text.is_empty() => writeln!(out, "  DriverState: {active}")?,
        Ok(State { active, text }) => writeln!(out, "  DriverState: {active}; {text}")?,
        Err(error) => writeln!(out, "  DriverState: unknown ({error:#})")?,
    }
    Ok(())
}

struct Shown {
    index: usize,
    verbose: bool,
    stateroot: bool,
    slot: &'static str,
}

/// Returns what the deployment's place in the boot order means to a person.
fn slot(status: &Status, index: usize, anything_booted: bool) -> &'static str {
    let deployment = &status.deployments[index];
    let booted = status.deployments.iter().position(|deployment| deployment.booted);
    match booted {
        _ if deployment.staged => "staged",
        Some(place) if index == place => "booted",
        Some(place) if index < place => "pending",
        Some(place) if index == place + 1 => "rollback",
        None if !anything_booted && index == 0 => "boots next",
        None if !anything_booted && index == 1 => "rollback",
        _ => "kept",
    }
}

fn print_deployment(
    deployment: &DeploymentState,
    shown: &Shown,
    style: Style,
    out: &mut dyn Write,
) -> Result<()> {
    let mark = style.mark(deployment.booted);
    let custom = deployment.custom_origin.as_ref();
    let followed = custom
        .map(|(url, _)| url.as_str())
        .or(deployment.container_image_reference.as_deref())
        .or(deployment.origin.as_deref())
        .unwrap_or(&deployment.checksum);
    let index = if shown.verbose {
        format!(" (index: {})", shown.index)
    } else {
        String::new()
    };
    let layers = status_layers::count(&deployment.layers);
    writeln!(out, "{mark} {followed}{layers} ({}){index}", shown.slot)?;
    let mut line = |key: &str, value: &str| writeln!(out, "  {key:>23}: {value}");
    if let Some(digest) = &deployment.container_image_reference_digest {
        line("Digest", digest)?;
    }
    if let Some((_, description)) = custom {
        line("CustomOrigin", description)?;
    }
    let time = timestamp(deployment.layers.base_timestamp.unwrap_or(deployment.timestamp));
    match &deployment.version {
        Some(version) => line("Version", &format!("{} ({time})", style.bold(version)))?,
        None if deployment.timestamp > 0 => line("Timestamp", &time)?,
        None => {}
    }
    if let Some(digest) = &deployment.override_commit {
        line(
            "Deployed by digest",
            &format!("{digest} (until the next upgrade)"),
        )?;
    }
    if shown.verbose || deployment.container_image_reference.is_none() {
        line("Commit", &deployment.checksum)?;
    }
    if let (true, Some(base)) = (shown.verbose, &deployment.layers.base_checksum) {
        line("BaseCommit", base)?;
    }
    if let Some(commit) = &deployment.live_inprogress {
        line("InterruptedLiveCommit", &style.red(commit))?;
    }
    if let Some(commit) = &deployment.live_replaced {
        line("LiveCommit", commit)?;
    }
    if let Some([upgraded, downgraded, removed, added]) = deployment.live_difference {
        line(
            "LiveDiff",
            &format!("{upgraded} upgraded, {downgraded} downgraded, {removed} removed, {added} added"),
        )?;
    }
    if shown.verbose && (deployment.staged || shown.index == 0) {
        line("Staged", if deployment.staged { "yes" } else { "no" })?;
    }
    if deployment.finalization_locked {
        line(
            "FinalizationLocked",
            "yes; apply it with `apt-ostree finalize-deployment`",
        )?;
    }
    if shown.stateroot {
        line("StateRoot", &deployment.stateroot)?;
    }
    if shown.verbose {
        line("KernelArguments", &deployment.kernel_arguments.join(" "))?;
    }
    for (key, value) in status_layers::lines(&deployment.layers) {
        if !value.is_empty() {
            line(key, &value)?;
        }
    }
    if deployment.pinned {
        line("Pinned", "yes")?;
    }
    if deployment.unlocked != "none" {
        line("Unlocked", &style.red(&deployment.unlocked))?;
    }
    for problem in &deployment.problems {
        line("Problem", &style.red(problem))?;
    }
    Ok(())
}

/// Returns seconds since the epoch in the form of RFC 3339 to the second.
pub(crate) fn timestamp(seconds: u64) -> String {
    let utc = ostree_ext::glib::DateTime::from_unix_utc(i64::try_from(seconds).unwrap_or(0));
    utc.and_then(|time| time.format("%FT%H:%M:%SZ"))
        .map_or_else(|_| seconds.to_string(), |text| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::journal::Recovered;
    use crate::ops::status::Automatic;

    fn sample() -> Status {
        let base = DeploymentState {
            stateroot: "debian".to_owned(),
            unlocked: "none".to_owned(),
            container_image_reference: Some("ostree-unverified-registry:example.org/os:13".to_owned()),
            container_image_reference_digest: Some("sha256:aa".to_owned()),
            version: Some("13.1".to_owned()),
            timestamp: 1_700_000_000,
            ..DeploymentState::default()
        };
        Status {
            deployments: vec![
                DeploymentState {
                    staged: true,
                    version: Some("13.2".to_owned()),
                    ..base.clone()
                },
                DeploymentState {
                    booted: true,
                    pinned: true,
                    ..base.clone()
                },
                DeploymentState {
                    problems: vec!["The layer sha256:bb is missing".to_owned()],
                    ..base
                },
            ],
            transaction: None,
            cached_update: None,
            update_driver: None,
            last_interrupted: None,
            finalization_failure: None,
            automatic_updates: Automatic::default(),
            problems: Vec::new(),
        }
    }

    #[test]
    fn text() {
        let arguments = Arguments {
            verbose: false,
            json: false,
            jsonpath: None,
            advisories: false,
            pretty: false,
            booted: false,
            pending_exit_77: false,
        };
        let mut out = Vec::new();
        print(
            &sample(),
            &arguments,
            Style {
                coloured: false,
                unicode: true,
            },
            &mut out,
        )
        .unwrap();
        let expected = "\
State: idle
Deployments:
  ostree-unverified-registry:example.org/os:13 (staged)
                   Digest: sha256:aa
                  Version: 13.2 (2023-11-14T22:13:20Z)

● ostree-unverified-registry:example.org/os:13 (booted)
                   Digest: sha256:aa
                  Version: 13.1 (2023-11-14T22:13:20Z)
                   Pinned: yes

  ostree-unverified-registry:example.org/os:13 (rollback)
                   Digest: sha256:aa
                  Version: 13.1 (2023-11-14T22:13:20Z)
                  Problem: The layer sha256:bb is missing
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn what_went_wrong_comes_before_the_deployments() {
        let status = Status {
            finalization_failure: Some("error: no space".to_owned()),
            last_interrupted: Some(Recovered {
                transaction: 7,
                at: 1_700_000_000,
                verb: "upgrade".to_owned(),
                title: "upgrade".to_owned(),
                text: "`upgrade` was interrupted while merging layers; what boots next is as it was before"
                    .to_owned(),
            }),
            deployments: Vec::new(),
            ..sample()
        };
        let mut out = Vec::new();
        print(&status, &Arguments::default(), Style::plain(), &mut out).unwrap();
        let expected = "\
State: idle
Warning: failed to finalize previous deployment
         error: no space
         check `journalctl -b -1 -u ostree-finalize-staged.service`
Interrupted: `upgrade` was interrupted while merging layers; what boots next is as it was before (2023-11-14T22:13:20Z)
Deployments:
  (none)
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn json_has_the_keys_scripts_know() {
        let value = serde_json::to_value(sample()).unwrap();
        assert!(value["transaction"].is_null() && value["cached-update"].is_null());
        let first = &value["deployments"][0];
        for key in [
            "id",
            "osname",
            "checksum",
            "serial",
            "booted",
            "staged",
            "pinned",
            "unlocked",
            "timestamp",
            "packages",
            "requested-packages",
            "requested-local-packages",
            "requested-base-removals",
            "base-removals",
            "regenerate-initramfs",
            "container-image-reference",
            "container-image-reference-digest",
        ] {
            assert!(first.get(key).is_some(), "{key}");
        }
    }
}
