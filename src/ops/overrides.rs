//! `override replace`, `override remove` and `override reset`: other packages within the image.

use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::layer::assemble::Network;
use crate::ops::layering::{self, Layering, Packages, SetUp, Wanted};
use crate::ops::{Fetch, Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What all three take besides the packages they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Common {
    /// Packages on top at the same time.
    #[serde(flatten)]
    pub on_top: Packages,
    /// How packages are set up.
    #[serde(flatten)]
    pub set_up: SetUp,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
    /// Cache only, how far to go, locked.
    #[serde(flatten)]
    pub fetch: Fetch,
    /// Reboot when a new deployment was made.
    pub reboot: bool,
}

/// What to take from a repository or from files instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Replace {
    /// Packages by name, path or address.
    pub packages: Vec<String>,
    /// `repo=SUITE`: take those that are named without a version from this suite.
    pub from: Option<String>,
    /// Packages of the image to take out as well.
    pub remove: Vec<String>,
    /// The rest.
    #[serde(flatten)]
    pub common: Common,
}

/// What to take out of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Remove {
    /// Packages of the image by name.
    pub packages: Vec<String>,
    /// Packages of the image to replace as well, by name, path or address.
    pub replace: Vec<String>,
    /// The rest.
    #[serde(flatten)]
    pub common: Common,
}

/// Which overrides to take back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Reset {
    /// Packages by name, or by the id of a local package.
    pub packages: Vec<String>,
    /// All of them.
    pub all: bool,
    /// The rest.
    #[serde(flatten)]
    pub common: Common,
}

/// Takes packages of the image from a repository or from files instead.
pub fn replace(host: &Host, options: &Replace, report: &dyn Report) -> Result<Outcome> {
    let common = &options.common;
    let mut layering = common.layering(&options.packages)?;
    if let Some(from) = &options.from {
        take_from(suite(from)?, &mut layering)?;
    }
    layering.change.remove = Wanted::parse(&options.remove)?.only_requests("--remove")?;
    common.change(host, &layering, Network::Usual, report)
}

/// Takes packages out of the image.
pub fn remove(host: &Host, options: &Remove, report: &dyn Report) -> Result<Outcome> {
    let common = &options.common;
    let mut layering = common.layering(&options.replace)?;
    layering.change.remove = Wanted::parse(&options.packages)?.only_requests("override remove")?;
    let network = common.network(!options.replace.is_empty());
    common.change(host, &layering, network, report)
}

/// Takes overrides back.
pub fn reset(host: &Host, options: &Reset, report: &dyn Report) -> Result<Outcome> {
    let common = &options.common;
    let mut layering = common.layering(&[])?;
    layering.change.reset.clone_from(&options.packages);
    layering.change.reset_all = options.all;
    common.change(host, &layering, common.network(false), report)
}

/// Returns the suite that rpm-ostree's way of naming a repository means here.
fn suite(from: &str) -> Result<&str, Fault> {
    from.strip_prefix("repo=")
        .filter(|suite| !suite.is_empty())
        .ok_or_else(|| {
            Fault::new(Kind::Usage, format!("`--from={from}` names no repository"))
                .hint("write `--from=repo=SUITE`, or `NAME/SUITE` for each package")
        })
}

/// Makes every replacement follow the suite; fails for one that comes from elsewhere already.
fn take_from(suite: &str, layering: &mut Layering) -> Result<(), Fault> {
    let wrong = |what: &str| {
        Err(Fault::new(
            Kind::Usage,
            format!("{what} does not come from the suite {suite}"),
        ))
    };
    if let Some(file) = layering.replace_files.first() {
        return wrong(file);
    }
    for request in &mut layering.change.replace {
        if request.version.is_some() || request.suite.is_some() {
            return wrong(&format!("`{request}`"));
        }
        *request = format!("{request}/{suite}").parse()?;
    }
    Ok(())
}

impl Common {
    fn layering(&self, replace: &[String]) -> Result<Layering> {
        let mut layering = self.set_up.layering_with(&self.on_top)?;
        let wanted = Wanted::parse(replace)?;
        layering.change.replace = wanted.requests;
        layering.replace_files = wanted.files;
        Ok(layering)
    }

    fn network(&self, looks: bool) -> Network {
        Network::for_change(looks || !self.on_top.install.is_empty())
    }

    fn change(
        &self,
        host: &Host,
        layering: &Layering,
        network: Network,
        report: &dyn Report,
    ) -> Result<Outcome> {
        let how = (network, self.fetch);
        layering::change(host, "override", &self.target, layering, how, report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_for_all_replacements() {
        let layering = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            Common::default().layering(&words).unwrap()
        };
        let mut two = layering(&["bash", "libc6:i386"]);
        take_from(suite("repo=sid").unwrap(), &mut two).unwrap();
        let shown: Vec<String> = two.change.replace.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["bash/sid", "libc6:i386/sid"]);
        for words in [["bash=2"], ["bash/sid"], ["./bash.deb"]] {
            assert!(take_from("sid", &mut layering(&words)).is_err(), "{words:?}");
        }
        assert!(take_from("-x", &mut layering(&["bash"])).is_err());
        for from in ["sid", "repo=", ""] {
            assert!(suite(from).is_err(), "{from}");
        }
    }
}
