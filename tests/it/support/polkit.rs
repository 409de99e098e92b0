//! A stand-in for polkit on a test's bus: it speaks polkit's interface, allows what the test says and notes who asked.

use super::bus::Bus;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::zvariant::{OwnedValue, Type};

/// The details of an answer.
type Details = HashMap<String, String>;

/// A question.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The action's name.
    pub action: String,
    /// The subject's kind, `system-bus-name` for instance.
    pub kind: String,
    /// The subject's name on the bus.
    pub name: String,
    /// What a rule may look at.
    pub details: Details,
    /// Whether a person may be asked.
    pub is_interactive: bool,
}

/// The authority; gone when dropped.
pub struct Polkit {
    shared: Arc<Mutex<Shared>>,
    _bus: Connection,
    _runtime: Runtime,
}

#[derive(Default)]
struct Shared {
    allowed: BTreeSet<String>,
    asked: Vec<Asked>,
}

#[derive(Debug, serde::Deserialize, Type)]
struct Subject {
    kind: String,
    details: HashMap<String, OwnedValue>,
}

struct Authority(Arc<Mutex<Shared>>);

#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Authority {
    fn check_authorization(
        &self,
        subject: Subject,
        action_id: &str,
        details: Details,
        flags: u32,
        _cancellation_id: &str,
    ) -> ((bool, bool, Details),) {
        let mut shared = self.0.lock().expect("the lock");
        let name = subject.details.get("name").map(|name| name.to_string());
        shared.asked.push(Asked {
            action: action_id.to_owned(),
            kind: subject.kind,
            name: name.unwrap_or_default().trim_matches('"').to_owned(),
            details,
            is_interactive: flags & 1 == 1,
        });
        let is_allowed = shared.allowed.contains(action_id);
        ((is_allowed, !is_allowed, Details::new()),)
    }
}

impl Polkit {
    /// Starts an authority that allows nothing.
    pub fn start(bus: &Bus) -> Self {
        let shared = Arc::<Mutex<Shared>>::default();
        let runtime = Runtime::new().expect("a runtime");
        let serve = async {
            Builder::address(bus.address().as_str())?
                .serve_at(
                    "/org/freedesktop/PolicyKit1/Authority",
                    Authority(Arc::clone(&shared)),
                )?
                .name("org.freedesktop.PolicyKit1")?
                .build()
                .await
        };
        Self {
            _bus: runtime.block_on(serve).expect("an authority on the bus"),
            shared,
            _runtime: runtime,
        }
    }

    /// Allows these actions to everybody, and no others.
    pub fn allow(&self, actions: &[&str]) {
        let named = actions.iter().map(|action| format!("org.aptostree.dev.{action}"));
        self.shared.lock().expect("the lock").allowed = named.collect();
    }

    /// Returns what was asked since the last call.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.lock().expect("the lock").asked)
    }
}
