//! The settings of a host: fragments -> merged -> validated [`Config`].
//!
//! ```text
//! /usr/lib/apt-ostree/config.d/*.toml   what the image and the packages ship
//! /etc/apt-ostree/config.d/*.toml       what this host wants
//! ```
//!
//! Fragments are read in the order of their names, whichever folder they are in; a later one wins, key by key. A
//! file in `/etc` masks the one of the same name in `/usr/lib`; an empty file or a link to `/dev/null` does that and
//! sets nothing.
//!
//! Invariant: a [`Config`] is whole. One mistake anywhere means none, and all mistakes are told at once, each with
//! its file, line and column.

mod fragments;
mod keys;
mod place;
pub mod window;

use crate::fault::Fault;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use window::Window;

/// All settings, each with its default where no fragment sets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How the service behaves.
    pub daemon: Daemon,
    /// What happens without anybody asking for it.
    pub automatic_updates: AutomaticUpdates,
    /// What may be changed on top of the image.
    pub layering: Layering,
    /// The anonymous counting of hosts.
    pub countme: Countme,
}

/// `[daemon]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// How long the service stays without a transaction and without a client; none means for ever.
    pub idle_exit: Option<Duration>,
}

/// `[automatic-updates]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutomaticUpdates {
    /// How far to go.
    pub policy: Policy,
    /// The longest that a run under the timer waits before it begins.
    pub random_delay: Duration,
    /// What to do on a metered connection.
    pub metered: Metered,
    /// When `apply` may reboot, in local time; empty means at any time.
    pub maintenance_window: Vec<Window>,
    /// When updates may be fetched, in local time; empty means at any time.
    pub download_window: Vec<Window>,
    /// Whether `apply` reboots while somebody is logged in.
    pub reboot_when_users_are_logged_in: bool,
}

/// How far an automatic update goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nothing is done.
    #[default]
    None,
    /// The registry is asked, and what it has is noted.
    Check,
    /// The update is fetched and boots next.
    Stage,
    /// As `stage`, with a reboot.
    Apply,
}

/// What an automatic update does on a metered connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metered {
    /// It waits for another one.
    #[default]
    Skip,
    /// It goes on.
    Allow,
}

/// `[layering]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layering {
    /// Refuse to change what stands on top of the image.
    pub locked: bool,
}

/// `[countme]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Countme {
    /// Whether this host lets itself be counted.
    pub enabled: bool,
    /// The `https://` address that counts.
    pub url: String,
}

/// The settings with where each comes from.
#[derive(Clone, Debug, Default)]
pub struct Effective {
    /// The settings.
    pub config: Config,
    /// The file that set a key, by the key's full name (`daemon.idle-exit`); a default has none.
    pub sources: BTreeMap<&'static str, PathBuf>,
}

/// One setting, ready to be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting<'a> {
    /// The full name, for example `daemon.idle-exit`.
    pub key: &'static str,
    /// The value, as a fragment would say it.
    pub value: toml::Value,
    /// The file that set it; none for a default.
    pub file: Option<&'a Path>,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            idle_exit: Some(Duration::from_secs(60)),
        }
    }
}

impl Default for AutomaticUpdates {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            random_delay: Duration::from_secs(3600),
            metered: Metered::default(),
            maintenance_window: Vec::new(),
            download_window: Vec::new(),
            reboot_when_users_are_logged_in: false,
        }
    }
}

impl Config {
    /// Reads the fragments below `root` (`/` on a running host); without any, all settings are the defaults.
    ///
    /// Fails with all mistakes, and then nothing of any fragment is in force.
    pub fn load(root: &Path) -> Result<Self, Fault> {
        Ok(Effective::load(root)?.config)
    }
}

impl Effective {
    /// Reads the settings as [`Config::load`] does, and notes where each comes from.
    pub fn load(root: &Path) -> Result<Self, Fault> {
        let mut effective = Self::default();
        let mut mistakes = Vec::new();
        for fragment in fragments::read(root, &mut mistakes) {
            keys::apply(&fragment, &mut effective, &mut mistakes);
        }
        if mistakes.is_empty() {
            mistakes = keys::contradictions(&effective);
        }
        if mistakes.is_empty() {
            Ok(effective)
        } else {
            Err(place::fault(&mistakes))
        }
    }

    /// Returns every setting, in the order of the documentation.
    pub fn settings(&self) -> Vec<Setting<'_>> {
        keys::KEYS
            .iter()
            .map(|key| Setting {
                key: key.name,
                value: (key.show)(&self.config),
                file: self.sources.get(key.name).map(PathBuf::as_path),
            })
            .collect()
    }
}

impl Policy {
    /// All policies by the names they have in a fragment.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("none", Self::None),
        ("check", Self::Check),
        ("stage", Self::Stage),
        ("apply", Self::Apply),
    ];

    /// Returns the name in a fragment.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Check => "check",
            Self::Stage => "stage",
            Self::Apply => "apply",
        }
    }
}
