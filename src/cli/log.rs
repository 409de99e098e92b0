//! `log` on the command line: one block for each deployment, the newest first.

use crate::cli::Context;
use crate::cli::status::timestamp;
use crate::cli::terminal::Style;
use crate::deployment::history::{Account, Facts, State};
use crate::ops::log::{self, Log};
use anyhow::Result;
use clap::Args;
use std::io::Write;

/// Show what was changed over time, and what came of it
///
/// Each entry is a deployment: when it was made, by which command, from which version to which, and whether it
/// was booted or rolled back. Needs no root; root also sees what failed or was cancelled.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree log
      Show the last ten changes
  apt-ostree log --all
      Show all that is known")]
pub(crate) struct Arguments {
    /// Show this many entries
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 10,
        conflicts_with = "all"
    )]
    limit: usize,
    /// Show all that is known
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let host = context.host("log")?;
    let limit = (!arguments.all).then_some(arguments.limit);
    let log = log::run(&host, context.global.stateroot.as_deref(), limit)?;
    if arguments.json {
        writeln!(context.out, "{:#}", serde_json::to_value(&log)?)?;
    } else {
        print(&log, Style::of_output(), context.out)?;
    }
    Ok(0)
}

fn print(log: &Log, style: Style, out: &mut dyn Write) -> Result<()> {
    for problem in &log.problems {
        writeln!(out, "Problem: {}", style.red(problem))?;
    }
    if log.entries.is_empty() {
        writeln!(out, "Nothing is known of any deployment.")?;
    }
    for (index, entry) in log.entries.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        print_entry(entry, style, out)?;
    }
    Ok(())
}

fn print_entry(entry: &Account, style: Style, out: &mut dyn Write) -> Result<()> {
    let mark = style.mark(entry.state == State::Booted);
    let verb = style.bold(entry.verb.as_deref().unwrap_or("(not recorded)"));
    let state = state(entry);
    let state = match entry.state {
        State::Interrupted | State::Failed | State::Cancelled | State::RolledBack => style.red(&state),
        _ => state,
    };
    writeln!(out, "{mark} {} {verb} ({state})", time(entry.at))?;
    let mut line = |key: &str, value: &str| writeln!(out, "  {key:>23}: {value}");
    if let Some(title) = entry.title.as_ref().filter(|title| !title.is_empty()) {
        line("Command", &format!("apt-ostree {title}"))?;
    }
    if let Some(initiator) = &entry.initiator {
        line("Initiator", initiator)?;
    }
    match &entry.before {
        Some(before) => line("From", &name(before))?,
        None => {
            if let (Some(from), Some(_)) = (&entry.from, &entry.deployment) {
                line("From", from)?;
            }
        }
    }
    if let Some(after) = &entry.after {
        line("To", &name(after))?;
        let is_other = |before: &Facts| before.image != after.image;
        if let (Some(image), true) = (&after.image, entry.before.as_ref().is_none_or(is_other)) {
            line("Image", image)?;
        }
        if !after.packages.is_empty() {
            line("Packages", &after.packages.join(" "))?;
        }
    }
    if let Some(last) = entry.last_boot {
        let kernel = entry.kernel.as_deref().unwrap_or_default();
        line(
            "Booted",
            &format!("{}, last {} with {kernel}", times(entry.boots), time(last)),
        )?;
    }
    if let Some(deployment) = &entry.deployment {
        let gone = if entry.present { "" } else { " (gone)" };
        line("Deployment", &format!("{deployment}{gone}"))?;
    }
    if let Some(text) = &entry.text {
        line("Result", &style.red(text))?;
    }
    Ok(())
}

/// Returns what came of it in words.
fn state(entry: &Account) -> String {
    match entry.state {
        State::Booted => "booted",
        State::Staged => "staged",
        State::BootsNext => "boots next",
        State::RolledBack => "rolled back",
        State::WasBooted => "booted before",
        State::NeverBooted => "never booted",
        State::Interrupted => "interrupted",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
    .to_owned()
}

/// Returns the version and the digest, or what else tells one from another.
fn name(facts: &Facts) -> String {
    let digest = facts.digest.as_ref().unwrap_or(&facts.commit);
    let short: String = match digest.split_once(':') {
        Some((method, rest)) => format!("{method}:{}", rest.chars().take(12).collect::<String>()),
        None => digest.chars().take(12).collect(),
    };
    match &facts.version {
        Some(version) => format!("{version} ({short})"),
        None => short,
    }
}

fn time(seconds: u64) -> String {
    if seconds == 0 {
        "unknown time".to_owned()
    } else {
        timestamp(seconds)
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let facts = |version: &str, image: &str| Facts {
            commit: "c0".to_owned(),
            image: Some(format!("ostree-unverified-registry:example.org/{image}")),
            digest: Some("sha256:0123456789abcdef".to_owned()),
            version: Some(version.to_owned()),
            packages: Vec::new(),
        };
        let made = Account {
            at: 1_700_000_000,
            state: State::Booted,
            verb: Some("upgrade".to_owned()),
            title: Some("upgrade --reboot".to_owned()),
            initiator: Some("root client(id:cli uid:0)".to_owned()),
            uid: Some(0),
            transaction: Some(7),
            deployment: Some("debian-c0.0".to_owned()),
            stateroot: Some("debian".to_owned()),
            present: true,
            from: Some("debian-b0.0".to_owned()),
            before: Some(facts("13.1", "os:13")),
            after: Some(Facts {
                packages: vec!["htop".to_owned(), "nginx".to_owned()],
                ..facts("13.2", "os:13")
            }),
            boots: 2,
            first_boot: Some(1_700_000_100),
            last_boot: Some(1_700_000_200),
            kernel: Some("6.12.1".to_owned()),
            text: None,
        };
        let foreign = Account {
            at: 0,
            state: State::WasBooted,
            verb: None,
            title: None,
            initiator: None,
            before: None,
            from: None,
            after: Some(facts("13.0", "os:13")),
            boots: 1,
            deployment: Some("debian-a0.0".to_owned()),
            present: false,
            ..made.clone()
        };
        let failed = Account {
            state: State::Failed,
            deployment: None,
            before: None,
            after: None,
            last_boot: None,
            text: Some("The registry does not answer".to_owned()),
            ..made.clone()
        };
        let log = Log {
            entries: vec![made, failed, foreign],
            problems: vec!["Something cannot be read".to_owned()],
        };
        let mut out = Vec::new();
        print(&log, Style::plain(), &mut out).unwrap();
        let expected = "\
Problem: Something cannot be read
* 2023-11-14T22:13:20Z upgrade (booted)
                  Command: apt-ostree upgrade --reboot
                Initiator: root client(id:cli uid:0)
                     From: 13.1 (sha256:0123456789ab)
                       To: 13.2 (sha256:0123456789ab)
                 Packages: htop nginx
                   Booted: 2 times, last 2023-11-14T22:16:40Z with 6.12.1
               Deployment: debian-c0.0

  2023-11-14T22:13:20Z upgrade (failed)
                  Command: apt-ostree upgrade --reboot
                Initiator: root client(id:cli uid:0)
                   Result: The registry does not answer

  unknown time (not recorded) (booted before)
                       To: 13.0 (sha256:0123456789ab)
                    Image: ostree-unverified-registry:example.org/os:13
                   Booted: once, last 2023-11-14T22:16:40Z with 6.12.1
               Deployment: debian-a0.0 (gone)
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
