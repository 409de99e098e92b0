//! `override list`: the overrides of the deployment that boots next, those in force and those without effect.

use crate::deployment::layered::Layers;
use crate::deployment::origin::Origin;
use crate::deployment::sysroot::Host;
use anyhow::Result;
use serde::Serialize;
use std::fmt;

/// One override.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Override {
    /// What it does.
    pub action: Action,
    /// The package, or the request where it has no effect.
    pub package: String,
    /// The image's version; none where it has no effect.
    pub before: Option<String>,
    /// The version instead; none for a removal.
    pub after: Option<String>,
    /// Whether the new package came as a file.
    pub local: bool,
    /// Whether it is in force. It is not when the image has no such package, or has it in that version.
    pub active: bool,
}

/// What an override does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The image's package is taken out.
    Remove,
    /// Another version takes its place.
    Replace,
}

/// Returns the overrides of the deployment that boots next. Needs neither root nor the lock.
pub fn run(host: &Host, stateroot: Option<&str>) -> Result<Vec<Override>> {
    let stateroot = host.stateroot(stateroot)?;
    let Some(merge) = host.merge_deployment(&stateroot) else {
        return Ok(Vec::new());
    };
    let intent = Origin::of(&merge)?.intent()?;
    Ok(overrides(&Layers::read(&host.repo(), &merge.csum(), &intent)?))
}

fn overrides(layers: &Layers) -> Vec<Override> {
    let mut found = Vec::new();
    for package in &layers.base_removals {
        found.push(Override {
            action: Action::Remove,
            package: package.name.clone(),
            before: Some(package.version.clone()),
            after: None,
            local: false,
            active: true,
        });
    }
    let local = layers.base_local_replacements.iter().map(|pair| (pair, true));
    let remote = layers.base_remote_replacements.values().flatten();
    for ((new, old), local) in local.chain(remote.map(|pair| (pair, false))) {
        found.push(Override {
            action: Action::Replace,
            package: new.name.clone(),
            before: Some(old.version.clone()),
            after: Some(new.version.clone()),
            local,
            active: true,
        });
    }
    let idle = [
        (&layers.inactive_base_removals, Action::Remove, false),
        (&layers.inactive_base_remote_replacements, Action::Replace, false),
        (&layers.inactive_base_local_replacements, Action::Replace, true),
    ];
    for (requests, action, local) in idle {
        found.extend(requests.iter().map(|request| Override {
            action,
            package: request.clone(),
            before: None,
            after: None,
            local,
            active: false,
        }));
    }
    found
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Remove => "remove",
            Action::Replace => "replace",
        };
        write!(f, "{action} {}", self.package)?;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, " {before} -> {after}")?,
            (Some(before), None) => write!(f, " {before}")?,
            _ => {}
        }
        if self.local {
            f.write_str(" (from a file)")?;
        }
        if !self.active {
            f.write_str(" (inactive)")?;
        }
        Ok(())
    }
}
