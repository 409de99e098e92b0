//! `container lint`: checks an image root against bootc's rules and Debian's own.
//!
//! One file per group of rules; [`RULES`] is the table of them all.

mod accounts;
mod boot;
mod identity;
mod layout;
mod packages;
mod var;

use super::rootfs;
use crate::fault::{Fault, Kind};
use anyhow::{Context, Result};
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use serde::Serialize;
use std::path::Path;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The image does not work or gives away a secret.
    Error,
    /// The image works, with drawbacks.
    Warning,
}

/// One thing wrong with the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the rule.
    pub rule: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What it is about, with a leading slash.
    pub path: String,
    /// What is wrong, a sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// One rule of the table.
#[derive(Debug)]
pub struct Rule {
    /// Name for `--skip`.
    pub name: &'static str,
    /// Level of its findings.
    pub level: Level,
    /// What it asks for, a sentence without a full stop.
    pub description: &'static str,
    check: fn(&mut Check<'_>) -> Result<()>,
}

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names of rules to leave out.
    pub skip: Vec<String>,
    /// Whether the root is the running container's own, where the build tool mounts and injects files.
    pub in_container: bool,
}

/// All rules, bootc's first; their names are part of the command line.
pub static RULES: &[Rule] = &[
    layout::API_BASE_DIRECTORIES,
    layout::BASEIMAGE_ROOT,
    boot::BASEIMAGE_COMPOSEFS,
    boot::BOOTC_KARGS,
    layout::ETC_USRETC,
    boot::KERNEL,
    layout::UTF8,
    var::VAR_RUN,
    layout::BUILDAH_INJECTED,
    layout::NONEMPTY_BOOT,
    layout::NONEMPTY_RUN_TMP,
    accounts::SYSUSERS,
    var::VAR_LOG,
    var::VAR_TMPFILES,
    packages::DPKG_DATABASE,
    boot::INITRAMFS,
    identity::HOST_IDENTITY,
    identity::APT_TIMERS,
    packages::PACKAGE_LEFTOVERS,
    layout::ESCAPING_LINKS,
    var::VAR_FILES,
    boot::OS_RELEASE,
];

/// Checks the root and returns what is wrong with it, in the order of [`RULES`].
///
/// Fails with a usage fault when a rule to skip does not exist.
#[context("Checking the image")]
pub fn run(root: &Dir, options: &Options) -> Result<Vec<Finding>> {
    for name in &options.skip {
        if !RULES.iter().any(|rule| rule.name == name) {
            return Err(
                Fault::new(Kind::Usage, format!("There is no lint rule named `{name}`"))
                    .hint("apt-ostree container lint --list prints all rules")
                    .into(),
            );
        }
    }
    let mut findings = Vec::new();
    for rule in RULES
        .iter()
        .filter(|rule| !options.skip.iter().any(|name| name == rule.name))
    {
        let mut check = Check {
            root,
            rule,
            in_container: options.in_container,
            findings: &mut findings,
        };
        (rule.check)(&mut check).with_context(|| format!("Running the rule `{}`", rule.name))?;
    }
    Ok(findings)
}

/// What a rule works with.
struct Check<'a> {
    root: &'a Dir,
    rule: &'static Rule,
    in_container: bool,
    findings: &'a mut Vec<Finding>,
}

impl Check<'_> {
    /// Adds a finding of the rule's own level.
    fn found(&mut self, path: impl AsRef<Path>, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding {
            rule: self.rule.name,
            level: self.rule.level,
            path: format!("/{}", path.as_ref().display()),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    /// Adds a finding that `container prepare` mends.
    fn found_unprepared(&mut self, path: impl AsRef<Path>, message: impl Into<String>) {
        self.found(
            path,
            message,
            "run apt-ostree container prepare as the last step that changes the image",
        );
    }
}
