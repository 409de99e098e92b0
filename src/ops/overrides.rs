//! `override replace`, `override remove` and `override reset`: other packages within the image.

use crate::deployment::sysroot::Host;
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
