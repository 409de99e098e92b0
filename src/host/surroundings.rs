//! What the container tools take from the environment: home and run-time directory, configuration files, proxies,
//! certificates.
//!
//! The same values decide what this program reads (the signature policy, credentials) and are handed to skopeo,
//! so that both always look at the same files. Tests make their own instead of changing the process environment.

use crate::host::environment;
use crate::host::runner::Cmd;
use cap_std_ext::cmdext::CapStdExtCommandExt;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

/// The variables that skopeo and this program both obey.
const OBEYED: &[&str] = &[
    "CONTAINERS_POLICY_JSON",
    "CONTAINERS_REGISTRIES_CONF",
    "CONTAINERS_STORAGE_CONF",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "REGISTRY_AUTH_FILE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The part of the environment that decides which policy, credentials and registries are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    variables: Vec<(&'static str, Option<OsString>)>,
}

impl Surroundings {
    /// Returns what this process was started with.
    #[expect(clippy::disallowed_methods, reason = "this module is part of host/")]
    pub fn current() -> Self {
        let variables = OBEYED
            .iter()
            .map(|name| (*name, std::env::var_os(name)))
            .collect();
        Self { variables }
    }

    /// Returns surroundings in which only `home` is set; tests isolate themselves with this.
    pub fn below_home(home: impl Into<PathBuf>) -> Self {
        let variables = OBEYED.iter().map(|name| (*name, None)).collect();
        Self { variables }.with("HOME", home.into())
    }

    /// Sets one of the obeyed variables; others are ignored.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        if let Some(variable) = self.variables.iter_mut().find(|(known, _)| *known == name) {
            variable.1 = Some(value.into());
        }
        self
    }

    /// Returns the value of a variable; an empty one counts as unset, as it does for the container tools.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let (_, value) = self.variables.iter().find(|(known, _)| *known == name)?;
        value
            .as_ref()
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }

    /// Returns the home directory: `HOME`, which a service of the system has not got, or the user's in `/etc/passwd`.
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
            .or_else(|| environment::user_home(rustix::process::getuid().as_raw()))
    }

    /// Returns a command with these surroundings, to be run to its end.
    pub fn cmd(&self, program: impl AsRef<OsStr>) -> Cmd {
        let mut cmd = Cmd::new(program);
        for (name, value) in &self.variables {
            cmd = match value {
                Some(value) => cmd.env(name, value),
                None => cmd.env_remove(name),
            };
        }
        cmd
    }

    /// Returns a command with these surroundings for a program that serves us over a socket.
    ///
    /// It is ended when the thread that starts it ends, so that a killed apt-ostree leaves no server behind.
    /// Start it from a thread that lives as long as the server is needed: the main thread or a worker of the
    /// tokio runtime, not from `spawn_blocking` or `block_in_place`.
    #[expect(
        clippy::disallowed_methods,
        reason = "containers-image-proxy takes a bare Command and starts it itself"
    )]
    pub fn server_command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.lifecycle_bind_to_parent_thread();
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_the_home_of_its_user() {
        let with = Surroundings::below_home("/somewhere");
        assert_eq!(with.home(), Some(PathBuf::from("/somewhere")));
        let without = with.with("HOME", "");
        let expected = rustix::process::getuid()
            .is_root()
            .then(|| PathBuf::from("/root"));
        assert!(expected.is_none() || without.home() == expected);
    }
}
