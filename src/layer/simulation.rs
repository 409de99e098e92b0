//! What `apt-get --simulate` would do, read from its `Inst`, `Conf` and `Remv` lines.

use super::archive::Archive;
use super::plan::{PackageId, Step};
use anyhow::{Context, Result, bail};
use std::process::Output;

/// A solution, in apt's own order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Simulation {
    /// What is installed or replaced.
    pub(super) installs: Vec<Install>,
    /// What is removed.
    pub(super) removals: Vec<PackageId>,
    /// The order of all actions.
    pub(super) steps: Vec<Step>,
}

/// A package that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Install {
    pub(super) id: PackageId,
    /// The installed version it replaces.
    pub(super) replaces: Option<String>,
    /// Where apt has it from.
    pub(super) repository: String,
}

/// What came of asking apt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Solved(Simulation),
    /// apt's reason.
    Unsolvable(String),
}

impl Archive {
    /// Asks apt to install and remove; `frozen` keeps the image's packages at their versions.
    pub(super) fn simulate(&self, arguments: &[String], frozen: bool) -> Result<Outcome> {
        let mut command = self.apt("apt-get").args(["--simulate", "-q"]);
        if !frozen {
            command = command.arg("-oDir::Etc::preferences=/dev/null");
        }
        let output = command.args(["install", "--"]).args(arguments).output()?;
        if !output.status.success() {
            return Ok(Outcome::Unsolvable(reason(&output)));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(Outcome::Solved(self.parse(&text)?))
    }

    fn parse(&self, text: &str) -> Result<Simulation> {
        let mut found = Simulation::default();
        for line in text.lines() {
            let Some((action, rest)) = line.split_once(' ') else {
                continue;
            };
            if !["Inst", "Conf", "Remv", "Purg"].contains(&action) {
                continue;
            }
            let line = Line::parse(rest).with_context(|| format!("apt printed `{line}`"))?;
            if matches!(action, "Remv" | "Purg") {
                let Some(installed) = self.base.find(line.name, line.architecture) else {
                    bail!("apt removes {}, which the image does not have", line.name);
                };
                found.removals.push(installed.id.clone());
                push(&mut found.steps, Step::Remove(vec![installed.id.clone()]));
                continue;
            }
            let (version, repository, architecture) = line.new.context("apt names no version")?;
            let id = PackageId {
                name: line.name.to_owned(),
                architecture: architecture.to_owned(),
                version: version.to_owned(),
            };
            if action == "Conf" {
                push(&mut found.steps, Step::Configure(vec![id]));
                continue;
            }
            push(&mut found.steps, Step::Unpack(vec![id.clone()]));
            found.installs.push(Install {
                id,
                replaces: line.old.map(str::to_owned),
                repository: repository.to_owned(),
            });
        }
        Ok(found)
    }
}

/// Adds a step, or joins it to the last one when that does the same.
fn push(steps: &mut Vec<Step>, step: Step) {
    match (steps.last_mut(), step) {
        (Some(Step::Unpack(last)), Step::Unpack(new))
        | (Some(Step::Configure(last)), Step::Configure(new))
        | (Some(Step::Remove(last)), Step::Remove(new)) => last.extend(new),
        (_, step) => steps.push(step),
    }
}

/// `name[:arch] [OLD] (NEW REPOSITORY... [ARCH]) [...]`
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    name: &'a str,
    architecture: Option<&'a str>,
    old: Option<&'a str>,
    /// Version, repository, architecture.
    new: Option<(&'a str, &'a str, &'a str)>,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (name, architecture) = match name.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (name, None),
        };
        let (old, rest) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (old, rest) = rest.split_once(']')?;
                (Some(old), rest.trim_start())
            }
            None => (None, rest),
        };
        let new = match rest.strip_prefix('(') {
            Some(rest) => {
                let (inside, _) = rest.split_once("])")?;
                let (inside, architecture) = inside.rsplit_once(" [")?;
                let (version, repository) = inside.split_once(' ').unwrap_or((inside, ""));
                Some((version, repository, architecture))
            }
            None => None,
        };
        Some(Self {
            name,
            architecture,
            old,
            new,
        })
    }
}

/// Returns what apt says about why it cannot: the indented lines of its answer, and its errors.
fn reason(output: &Output) -> String {
    let answer = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let answer = answer.lines().filter(|line| line.starts_with(' '));
    let errors = errors
        .lines()
        .filter(|line| !line.starts_with("W: ") && !line.starts_with("N: "));
    let errors = errors.map(|line| line.strip_prefix("E: ").unwrap_or(line));
    let words: Vec<String> = answer
        .chain(errors)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_apt_are_read() {
        for (text, name, architecture, old, new) in [
            (
                "htop (3.4.1-5 Debian:13.1/stable [amd64])",
                "htop",
                None,
                None,
                Some(("3.4.1-5", "Debian:13.1/stable", "amd64")),
            ),
            (
                "libc6:i386 [2.41-1] (2.41-2 A:1/stable, B Security:1/stable-security [i386]) [libc6:amd64 on x]",
                "libc6",
                Some("i386"),
                Some("2.41-1"),
                Some(("2.41-2", "A:1/stable, B Security:1/stable-security", "i386")),
            ),
            (
                "tool (1:2~rc1 local-deb [all]) []",
                "tool",
                None,
                None,
                Some(("1:2~rc1", "local-deb", "all")),
            ),
            ("nano [8.4-1]", "nano", None, Some("8.4-1"), None),
        ] {
            let wanted = Line {
                name,
                architecture,
                old,
                new,
            };
            assert_eq!(Line::parse(text), Some(wanted), "{text}");
        }
        assert_eq!(Line::parse("x (1 broken"), None);
    }
}
