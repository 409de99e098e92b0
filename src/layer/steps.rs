//! The plan's steps as the fixed script in the sandbox reads them: a verb and validated words in each line.

use crate::fault::Fault;
use crate::layer::intent::PackageRequest;
use crate::layer::plan::{PackageId, Plan, Step};
use std::collections::BTreeMap;

/// The script that reads the steps.
pub(crate) const SCRIPT: &[u8] = include_bytes!("replay.sh");

/// What one line does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) verb: Verb,
    pub(crate) packages: Vec<PackageId>,
    words: Vec<String>,
}

/// The verbs of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Architecture,
    Unpack,
    Overwrite,
    Configure,
    Remove,
    /// Configures what is left and runs all triggers.
    Finish,
}

impl Verb {
    fn leads_to(self, state: &str) -> bool {
        match self {
            Self::Unpack | Self::Overwrite => matches!(state, "unpacked" | "triggers-pending" | "installed"),
            Self::Configure => matches!(state, "installed" | "triggers-pending" | "triggers-awaited"),
            Self::Remove => matches!(state, "config-files" | "not-installed"),
            Self::Architecture | Self::Finish => false,
        }
    }
}

/// Returns the lines of a plan; `overwrite` lets packages replace files of others.
///
/// Fails when a name, a version or an architecture is no such thing.
pub(crate) fn lines(plan: &Plan, overwrite: bool) -> Result<Vec<Line>, Fault> {
    let mut lines = Vec::new();
    for architecture in &plan.foreign_architectures {
        format!("any:{architecture}").parse::<PackageRequest>()?;
        lines.push(Line {
            verb: Verb::Architecture,
            packages: Vec::new(),
            words: vec![architecture.clone()],
        });
    }
    for step in &plan.steps {
        let (verb, packages) = match step {
            Step::Unpack(packages) if overwrite => (Verb::Overwrite, packages),
            Step::Unpack(packages) => (Verb::Unpack, packages),
            Step::Configure(packages) => (Verb::Configure, packages),
            Step::Remove(packages) => (Verb::Remove, packages),
        };
        lines.push(line(verb, packages)?);
    }
    // The last run configures everything that is left, so that nothing stays behind that apt did not name.
    if lines.last().is_some_and(|last| last.verb == Verb::Configure) {
        lines.pop();
    }
    lines.push(line(Verb::Finish, &[])?);
    Ok(lines)
}

fn line(verb: Verb, packages: &[PackageId]) -> Result<Line, Fault> {
    let mut words = Vec::new();
    for package in packages {
        check(package)?;
        words.push(match verb {
            Verb::Unpack | Verb::Overwrite => file_name(package),
            _ => name(package),
        });
    }
    Ok(Line {
        verb,
        packages: packages.to_vec(),
        words,
    })
}

impl Line {
    /// Returns the line for those of its packages that `states` does not show as done; nothing when none is left.
    pub(crate) fn left(&self, states: &BTreeMap<String, String>) -> Result<Option<Self>, Fault> {
        if self.packages.is_empty() {
            return Ok(Some(self.clone()));
        }
        let left: Vec<_> = self
            .packages
            .iter()
            .filter(|package| {
                let state = states.get(&package.name).or_else(|| states.get(&name(package)));
                !state.is_some_and(|state| self.verb.leads_to(state))
            })
            .cloned()
            .collect();
        if left.is_empty() {
            return Ok(None);
        }
        line(self.verb, &left).map(Some)
    }
}

/// Returns the text of the file `steps`.
pub(crate) fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        text += match line.verb {
            Verb::Architecture => "architecture",
            Verb::Unpack => "unpack",
            Verb::Overwrite => "overwrite",
            Verb::Configure => "configure",
            Verb::Remove => "remove",
            Verb::Finish => "finish",
        };
        for word in &line.words {
            text.push(' ');
            text += word;
        }
        text.push('\n');
    }
    text
}

/// Returns the name of a package's file as apt writes it, without a character that is special anywhere.
pub(crate) fn file_name(package: &PackageId) -> String {
    format!(
        "{}_{}_{}.deb",
        package.name,
        package.version.replace(':', "%3a"),
        package.architecture
    )
}

/// Returns how dpkg names an installed package without doubt.
fn name(package: &PackageId) -> String {
    if package.architecture == "all" {
        package.name.clone()
    } else {
        format!("{}:{}", package.name, package.architecture)
    }
}

/// Fails unless the parts are what their names say, which leaves no special character in them.
fn check(package: &PackageId) -> Result<(), Fault> {
    let text = format!("{}:{}={}", package.name, package.architecture, package.version);
    text.parse::<PackageRequest>().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, version: &str, architecture: &str) -> PackageId {
        PackageId {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            version: version.to_owned(),
        }
    }

    #[test]
    fn a_plan_becomes_lines_and_ends_with_everything_that_is_left() {
        let (a, b) = (id("a1", "1:2~rc1-3", "amd64"), id("b1", "1", "all"));
        let plan = Plan {
            foreign_architectures: vec!["i386".to_owned()],
            steps: vec![
                Step::Remove(vec![b.clone()]),
                Step::Unpack(vec![a.clone(), b.clone()]),
                Step::Configure(vec![b.clone()]),
                Step::Unpack(vec![b.clone()]),
                Step::Configure(vec![a.clone()]),
            ],
            ..Plan::default()
        };
        let states = |name: &str, state: &str| BTreeMap::from([(name.to_owned(), state.to_owned())]);
        let made = lines(&plan, false).unwrap();
        assert_eq!(
            text(&made),
            "architecture i386\nremove b1\nunpack a1_1%3a2~rc1-3_amd64.deb b1_1_all.deb\nconfigure b1\n\
             unpack b1_1_all.deb\nfinish\n"
        );
        assert!(text(&lines(&plan, true).unwrap()).contains("overwrite b1_1_all.deb\n"));
        let rest = made[2].left(&states("a1:amd64", "unpacked")).unwrap().unwrap();
        assert_eq!(text(&[rest]), "unpack b1_1_all.deb\n");
        assert_eq!(made[3].left(&states("b1", "installed")).unwrap(), None);
    }

    #[test]
    fn words_that_a_shell_or_dpkg_would_take_for_something_else_are_refused() {
        for bad in [
            id("--force-all", "1", "all"),
            id("a b", "1", "all"),
            id("a1", "1\nremove x", "all"),
            id("a1", "$(id)", "all"),
            id("a1", "1/../x", "all"),
            id("a1", "1", "all;id"),
        ] {
            assert!(line(Verb::Unpack, std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
    }
}
