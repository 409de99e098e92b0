//! What other services of this machine know: whether the connection is metered, and who is logged in.
//!
//! The system bus is asked through `busctl`. A service that does not run is not started for a question.

use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use serde_json::Value;

const NETWORK: &str = "org.freedesktop.NetworkManager";
const LOGIN: &str = "org.freedesktop.login1";

/// `NMMetered`: said by the user or the network, and guessed.
const METERED: [u64; 2] = [1, 3];

/// A bus that services are asked on.
#[derive(Clone, Debug, Default)]
pub struct Bus {
    /// Its address; the system bus where none is named.
    pub address: Option<String>,
}

impl Bus {
    /// Returns whether the connection is metered, as far as NetworkManager runs and knows.
    pub fn is_metered(&self) -> Result<bool> {
        if !self.runs(NETWORK) {
            return Ok(false);
        }
        let found = self.property(NETWORK, "/org/freedesktop/NetworkManager", NETWORK, "Metered");
        let found = found.context("Asking NetworkManager whether the connection is metered")?;
        Ok(found.as_u64().is_some_and(|state| METERED.contains(&state)))
    }

    /// Returns the names of the users with an open session, each once; nobody where logind does not run.
    ///
    /// A session of a login screen or of a service is none.
    pub fn users_logged_in(&self) -> Result<Vec<String>> {
        if !self.runs(LOGIN) {
            return Ok(Vec::new());
        }
        let manager = "org.freedesktop.login1.Manager";
        let list = self
            .ask(&["call", LOGIN, "/org/freedesktop/login1", manager, "ListSessions"])
            .context("Asking logind for the sessions")?;
        let mut users = Vec::new();
        // One message with one list; a session is its id, user id, user, seat and path.
        for session in list[0].as_array().into_iter().flatten() {
            let (Some(user), Some(path)) = (session[2].as_str(), session[4].as_str()) else {
                continue;
            };
            let interface = "org.freedesktop.login1.Session";
            let about = |name| {
                self.property(LOGIN, path, interface, name)
                    .context("Asking logind about a session")
            };
            let is_open = about("Class")? == "user" && about("State")? != "closing";
            if is_open && !users.iter().any(|known| known == user) {
                users.push(user.to_owned());
            }
        }
        Ok(users)
    }

    /// Returns whether a service has its name on the bus; without a bus none has.
    fn runs(&self, service: &str) -> bool {
        let bus = "org.freedesktop.DBus";
        match self.ask(&[
            "call",
            bus,
            "/org/freedesktop/DBus",
            bus,
            "NameHasOwner",
            "s",
            service,
        ]) {
            Ok(answer) => answer[0] == true,
            Err(error) => {
                tracing::debug!("{error:#}");
                false
            }
        }
    }

    fn property(&self, service: &str, path: &str, interface: &str, name: &str) -> Result<Value> {
        self.ask(&["get-property", service, path, interface, name])
    }

    /// Returns the data of busctl's answer.
    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let bus = self
            .address
            .as_ref()
            .map(|address| format!("--address={address}"));
        let text = Cmd::new("busctl")
            .args(["--json=short", "--auto-start=no", "--timeout=10"])
            .args(bus)
            .args(arguments)
            .run_text()?;
        let mut answer: Value = serde_json::from_str(&text).context("Reading what busctl printed")?;
        Ok(answer["data"].take())
    }
}
