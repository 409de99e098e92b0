//! What drives updates of this host instead of a person, such as the agent of a fleet: it registers until the next
//! boot, and while its unit is active nobody else deploys an image by mistake.
//!
//! ```text
//! run/apt-ostree/update-driver.json   {"driver-name": NAME, "driver-sd-unit": UNIT}
//! ```

use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::host::units;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::{Dir, Permissions, PermissionsExt};
use cap_std_ext::dirext::CapStdExtDirExt;
use fn_error_context::context;
use serde::{Deserialize, Serialize};
use std::path::Path;

const FOLDER: &str = "run/apt-ostree";
const FILE: &str = "run/apt-ostree/update-driver.json";

/// A registered driver; its keys are those of rpm-ostree's `status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// The name people know it by.
    #[serde(rename = "driver-name")]
    pub name: String,
    /// The systemd unit it runs in.
    #[serde(rename = "driver-sd-unit")]
    pub unit: String,
}

/// What systemd tells of a driver's unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// systemd's word, such as `active` or `inactive`.
    pub active: String,
    /// What the unit says of itself; often empty.
    pub text: String,
}

impl Driver {
    /// Returns what is registered on the system at `root`.
    ///
    /// Fails when the file cannot be read.
    #[context("Reading {}", root.join(FILE).display())]
    pub fn registered(root: &Path) -> Result<Option<Self>> {
        let Some(text) = open(root)?.open_optional(FILE)? else {
            return Ok(None);
        };
        Ok(Some(serde_json::from_reader(text)?))
    }

    /// Registers it on the sysroot's system until the next boot; returns whether it was not registered like this.
    ///
    /// Fails for a name that cannot be shown.
    pub fn register(&self, host: &Host) -> Result<bool> {
        if self.name.trim().is_empty() || self.name.chars().any(char::is_control) {
            return Err(Fault::new(
                Kind::Usage,
                "The name of an update driver is empty or holds control characters",
            )
            .into());
        }
        if Self::registered(host.path())?.as_ref() == Some(self) {
            return Ok(false);
        }
        let root = open(host.path())?;
        // `status` reads it for every user, whatever the file creation mask is.
        if !root.is_dir(FOLDER) {
            root.create_dir_all(FOLDER)
                .with_context(|| format!("Making {FOLDER}"))?;
            root.set_permissions(FOLDER, Permissions::from_mode(0o755))?;
        }
        root.atomic_write(FILE, serde_json::to_vec(self)?)
            .with_context(|| format!("Writing {FILE}"))?;
        root.set_permissions(FILE, Permissions::from_mode(0o644))?;
        Ok(true)
    }

    /// Asks systemd for the state of its unit.
    ///
    /// Fails where no systemd runs.
    #[context("Asking systemd about the update driver {}", self.name)]
    pub fn state(&self) -> Result<State> {
        let mut told = units::show(&[&self.unit], &["ActiveState", "StatusText"])?;
        let mut property = |name: &str| {
            told.first_mut()
                .and_then(|unit| unit.remove(name))
                .unwrap_or_default()
        };
        Ok(State {
            active: property("ActiveState"),
            text: property("StatusText"),
        })
    }

    /// Fails while a driver is registered and its unit is active, and where nobody can tell.
    pub fn refuse_beside(host: &Host) -> Result<()> {
        let Some(driver) = Self::registered(host.path())? else {
            return Ok(());
        };
        if !driver.state()?.is_active() {
            return Ok(());
        }
        let Self { name, unit } = driver;
        Err(Fault::new(
            Kind::Denied,
            format!("Updates of this host are driven by {name} ({unit})"),
        )
        .hint(format!(
            "see `systemctl status {unit}`; do it all the same with `--bypass-driver`"
        ))
        .into())
    }
}

impl State {
    /// Returns whether the unit works, or is about to.
    pub fn is_active(&self) -> bool {
        ["active", "activating", "reloading"].contains(&self.active.as_str())
    }
}

fn open(root: &Path) -> Result<Dir> {
    Dir::open_ambient_dir(root, ambient_authority()).with_context(|| format!("Opening {}", root.display()))
}
