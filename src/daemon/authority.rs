//! Who may do what: the polkit actions that a request needs, and asking polkit for them.
//!
//! The super-user may do everything, with and without polkit. Anybody else is authorised by polkit as the sender of
//! the call; where polkit does not answer, nobody else may do anything but read.

use crate::daemon::BUS_NAME;
use crate::daemon::caller::Caller;
use crate::daemon::error::BusError;
use crate::fault::{Fault, Kind};
use crate::ops::request::Request;
use serde_json::{Map, Value as Json};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use zbus::Connection;
use zbus::message::Header;
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

/// Every action, without the name of the service before it.
pub const ACTIONS: &[&str] = &[
    "apply-live",
    "bootconfig",
    "cancel",
    "cleanup",
    "deploy",
    "finalize-deployment",
    "image",
    "install-local-packages",
    "install-uninstall-packages",
    "override",
    "pin",
    "rebase",
    "reboot",
    "reload-daemon",
    "repair",
    "repo-refresh",
    "reset",
    "rollback",
    "upgrade",
    "usroverlay",
];

/// How many calls of one user may wait for an answer of polkit.
const WAITING: usize = 8;

/// How long polkit has for an answer without asking a person, and with it.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));

/// Returns the actions that a request needs, all of them.
pub(super) fn actions(request: &Request) -> BTreeSet<&'static str> {
    let options = request.options();
    let mut needed = BTreeSet::from([main_action(request)]);
    let words = |name: &str| words(&options, name);
    let installed = match request {
        Request::Install(_) | Request::OverrideReplace(_) => words("packages"),
        Request::OverrideRemove(_) => words("replace"),
        _ => Vec::new(),
    };
    if installed
        .iter()
        .chain(&words("install"))
        .any(|word| is_file(word))
    {
        needed.insert("install-local-packages");
    }
    let layers = ["install", "scripts", "conflicts", "debconf", "script-timeout"];
    let uninstalls = !matches!(request, Request::Uninstall(_)) && is_set(&options, "uninstall");
    if uninstalls || layers.iter().any(|name| is_set(&options, name)) {
        needed.insert("install-uninstall-packages");
    }
    if request.reboots() {
        needed.insert("reboot");
    }
    needed
}

fn main_action(request: &Request) -> &'static str {
    match request {
        // What the policy of the host says an update is.
        Request::Upgrade(_) | Request::AutomaticUpdate(_) => "upgrade",
        Request::Rebase(_) => "rebase",
        Request::Deploy(_) => "deploy",
        Request::Install(_) | Request::Uninstall(_) => "install-uninstall-packages",
        Request::OverrideReplace(_) | Request::OverrideRemove(_) | Request::OverrideReset(_) => "override",
        Request::Reset(_) => "reset",
        Request::Initramfs(_) | Request::InitramfsEtc(_) | Request::Kargs(_) => "bootconfig",
        Request::Rollback(_) => "rollback",
        Request::Cleanup(_) => "cleanup",
        Request::Pin(_) | Request::Unpin(_) => "pin",
        Request::FinalizeDeployment(_) => "finalize-deployment",
        Request::ApplyLive(_) => "apply-live",
        Request::Usroverlay(_) => "usroverlay",
        Request::RefreshMd(_) => "repo-refresh",
        Request::Fsck(_) => "repair",
        Request::ImagePull(_) | Request::ImageRemove(_) | Request::ImagePrune(_) => "image",
    }
}

fn words(options: &Map<String, Json>, name: &str) -> Vec<String> {
    let list = options.get(name).and_then(Json::as_array);
    let words = list.into_iter().flatten().filter_map(Json::as_str);
    words.map(str::to_owned).collect()
}

/// Returns whether a word is a package file: a descriptor that was handed over, or an address.
fn is_file(word: &str) -> bool {
    word.starts_with('/') || word.starts_with("https://")
}

fn is_set(options: &Map<String, Json>, name: &str) -> bool {
    match options.get(name) {
        None | Some(Json::Null | Json::Bool(false)) => false,
        Some(Json::Array(list)) => !list.is_empty(),
        Some(_) => true,
    }
}

/// Asks polkit.
#[derive(Debug)]
pub(super) struct Authority {
    bus: Connection,
    waiting: Mutex<HashMap<u32, usize>>,
}

/// The place of one call among those that wait for an answer.
struct Waiting<'a> {
    authority: &'a Authority,
    uid: u32,
}

impl Authority {
    /// Returns an authority that is asked over this bus.
    pub(super) fn new(bus: Connection) -> Self {
        Self {
            bus,
            waiting: Mutex::default(),
        }
    }

    /// Returns whether no call waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Fails unless the caller may do all of `actions`; `details` are for the administrator's rules.
    pub(super) async fn require(
        &self,
        caller: &Caller,
        header: &Header<'_>,
        actions: impl IntoIterator<Item = &'static str>,
        details: &HashMap<&str, String>,
    ) -> Result<(), BusError> {
        if caller.uid == 0 {
            return Ok(());
        }
        let _place = self.wait(caller.uid)?;
        for action in actions {
            self.ask(caller, header, action, details).await?;
        }
        Ok(())
    }

    async fn ask(
        &self,
        caller: &Caller,
        header: &Header<'_>,
        action: &str,
        details: &HashMap<&str, String>,
    ) -> Result<(), BusError> {
        let subject = Subject::new_for_message_header(header)
            .map_err(|error| denied(action, &format!("the caller is not known: {error}")))?;
        let id = format!("{BUS_NAME}.{action}");
        let details = details
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        let (flags, patience) = if caller.is_interactive {
            (CheckAuthorizationFlags::AllowUserInteraction.into(), PATIENCE.1)
        } else {
            (Default::default(), PATIENCE.0)
        };
        let polkit = AuthorityProxy::new(&self.bus).await?;
        let asked = polkit.check_authorization(&subject, &id, &details, flags, "");
        let answer = match tokio::time::timeout(patience, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(denied(action, &format!("polkit does not answer: {error}")).into()),
            Err(_) => return Err(denied(action, "polkit did not answer in time").into()),
        };
        if answer.is_authorized {
            return Ok(());
        }
        let reason = if answer.is_challenge && !caller.is_interactive {
            "it needs a password, and the client did not let anybody be asked for one"
        } else {
            "polkit does not allow it"
        };
        Err(denied(action, reason).into())
    }

    fn wait(&self, uid: u32) -> Result<Waiting<'_>, Fault> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let places = waiting.entry(uid).or_default();
        if *places >= WAITING {
            return Err(Fault::new(
                Kind::Busy,
                format!("{WAITING} calls of the user {uid} wait for an authorisation already"),
            ));
        }
        *places += 1;
        Ok(Waiting { authority: self, uid })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self
            .authority
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = waiting.get_mut(&self.uid) {
            *places -= 1;
            if *places == 0 {
                waiting.remove(&self.uid);
            }
        }
    }
}

fn denied(action: &str, reason: &str) -> Fault {
    Fault::new(
        Kind::Denied,
        format!("The action {BUS_NAME}.{action} is denied: {reason}"),
    )
    .hint("run the command with `sudo`, or ask the administrator for a polkit rule")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn needed(verb: &str, options: Json) -> Vec<&'static str> {
        let request = Request::parse(verb, options.as_object().unwrap()).unwrap();
        actions(&request).into_iter().collect()
    }

    #[test]
    fn a_request_needs_every_action_that_it_contains() {
        let install = "install-uninstall-packages";
        let local = "install-local-packages";
        for (verb, options, actions) in [
            ("upgrade", json!({}), vec!["upgrade"]),
            ("upgrade", json!({ "reboot": true }), vec!["reboot", "upgrade"]),
            (
                "upgrade",
                json!({ "install": ["htop"] }),
                vec![install, "upgrade"],
            ),
            (
                "upgrade",
                json!({ "install": ["/proc/self/fd/700"] }),
                vec![local, install, "upgrade"],
            ),
            (
                "upgrade",
                json!({ "uninstall": ["htop"] }),
                vec![install, "upgrade"],
            ),
            ("upgrade", json!({ "scripts": "skip" }), vec![install, "upgrade"]),
            ("install", json!({ "packages": ["htop"] }), vec![install]),
            (
                "install",
                json!({ "packages": ["https://h/a.deb"] }),
                vec![local, install],
            ),
            ("uninstall", json!({ "packages": ["htop"] }), vec![install]),
            (
                "override-replace",
                json!({ "packages": ["bash"] }),
                vec!["override"],
            ),
            (
                "override-replace",
                json!({ "packages": ["/proc/self/fd/700"] }),
                vec![local, "override"],
            ),
            (
                "kargs",
                json!({ "append": ["a"], "reboot": true }),
                vec!["bootconfig", "reboot"],
            ),
            (
                "finalize-deployment",
                json!({ "allow-missing-checksum": true }),
                vec!["finalize-deployment", "reboot"],
            ),
            ("unpin", json!({}), vec!["pin"]),
            ("image-prune", json!({}), vec!["image"]),
        ] {
            assert_eq!(needed(verb, options.clone()), actions, "{verb} {options}");
        }
    }

    #[test]
    fn every_action_is_in_the_table() {
        let mut sorted = ACTIONS.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, ACTIONS);
    }
}
