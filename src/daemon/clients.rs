//! Clients that asked the service to stay, and the names they gave themselves.

use crate::daemon::files;
use crate::fault::{Fault, Kind};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zbus::names::{OwnedUniqueName, UniqueName};

/// More clients than a machine has; a mistake in a loop ends here.
const MOST: usize = 1024;

/// The registered clients by their names on the bus; one that leaves the bus is forgotten.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<HashMap<OwnedUniqueName, String>>);

impl Clients {
    /// Registers a client under the name it gives itself; a second time replaces that name.
    pub(super) fn register(&self, name: OwnedUniqueName, id: &str) -> Result<(), Fault> {
        let mut known = self.lock();
        if known.len() >= MOST && !known.contains_key(&name) {
            return Err(Fault::new(
                Kind::Busy,
                format!("There are {MOST} registered clients"),
            ));
        }
        known.insert(name, files::shown(id));
        Ok(())
    }

    /// Forgets a client.
    pub(super) fn forget(&self, name: &UniqueName<'_>) {
        self.lock().retain(|known, _| known.as_str() != name.as_str());
    }

    /// Returns the name that a client gave itself.
    pub(super) fn id(&self, name: &OwnedUniqueName) -> Option<String> {
        self.lock().get(name).filter(|id| !id.is_empty()).cloned()
    }

    /// Returns whether nobody asked the service to stay.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OwnedUniqueName, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
