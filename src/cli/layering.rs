//! Arguments of the verbs that change what stands on top of the image.

use crate::cli::build::Given;
use crate::layer::intent::{ConflictMode, ScriptMode};
use crate::ops::layering::{Packages, SetUp};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;
use std::time::Duration;

/// How packages are set up.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SetUpArguments {
    /// What to do with a maintainer script that cannot work here: refuse before anything is unpacked, run it and tell,
    /// or leave it out; the host keeps to it
    #[arg(long, value_name = "MODE", value_parser = script_mode())]
    scripts: Option<ScriptMode>,
    /// Whose file stays when two packages ship the same path; the host keeps to it
    #[arg(long, value_name = "MODE", value_parser = conflict_mode())]
    conflicts: Option<ConflictMode>,
    /// Answers for debconf, in the form of `debconf-set-selections`; the host keeps them
    #[arg(long, value_name = "FILE")]
    debconf: Option<PathBuf>,
    /// How long one maintainer script may run, such as 90s, 10min or 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    script_timeout: Option<Duration>,
}

/// Packages on top, for a verb that does something else in the first place.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PackageArguments {
    /// Put a package on top of the image as well; may be given several times
    #[arg(long, value_name = "PKG")]
    install: Vec<String>,
    /// Take a package on top away as well; may be given several times
    #[arg(long, value_name = "PKG")]
    uninstall: Vec<String>,
}

impl SetUpArguments {
    /// Returns the settings.
    pub(crate) fn set_up(&self) -> SetUp {
        SetUp {
            scripts: self.scripts,
            conflicts: self.conflicts,
            debconf: self.debconf.clone(),
            script_timeout: self.script_timeout.map(|timeout| timeout.as_secs()),
        }
    }

    /// Returns the options that mean nothing in the build of an image.
    pub(crate) fn given_in_build(&self) -> [Given; 3] {
        [
            ("--scripts", self.scripts.is_some()),
            ("--conflicts", self.conflicts.is_some()),
            ("--script-timeout", self.script_timeout.is_some()),
        ]
    }

    /// Returns the file with answers for debconf.
    pub(crate) fn debconf(&self) -> Option<PathBuf> {
        self.debconf.clone()
    }
}

impl PackageArguments {
    /// Returns the packages.
    pub(crate) fn packages(&self) -> Packages {
        Packages {
            install: self.install.clone(),
            uninstall: self.uninstall.clone(),
        }
    }
}

fn script_mode() -> impl TypedValueParser<Value = ScriptMode> {
    let words = ScriptMode::WORDS.iter().map(|(_, word)| *word);
    PossibleValuesParser::new(words).try_map(|word| word.parse::<ScriptMode>())
}

fn conflict_mode() -> impl TypedValueParser<Value = ConflictMode> {
    let words = ConflictMode::WORDS.iter().map(|(_, word)| *word);
    PossibleValuesParser::new(words).try_map(|word| word.parse::<ConflictMode>())
}

/// Reads a number with an optional unit; without one it counts seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => return Err(format!("`{unit}` is no unit; there is: s, min, h")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "give a number, such as 10min".to_owned())?;
    match number.checked_mul(seconds) {
        None | Some(0) => Err("it must be more than nothing, and finite".to_owned()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10min", 600), ("2m", 120), ("1h", 3600)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0", "min", "10 min", "5d", "99999999999999999h", "-1"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
