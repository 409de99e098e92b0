//! Who calls, by the name that the bus vouches for.

use crate::daemon::error::BusError;
use crate::fault::{Fault, Kind};
use crate::host::environment;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header};
use zbus::names::OwnedUniqueName;

/// The sender of a method call.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The unique name on the bus.
    pub(super) name: OwnedUniqueName,
    /// The user's id, as the bus learned it from the kernel when the caller connected.
    pub(super) uid: u32,
    /// Whether the caller lets a person be asked for a password.
    pub(super) is_interactive: bool,
    /// The systemd unit; only for people to read, because it is looked up by a process id.
    pub(super) unit: Option<String>,
}

impl Caller {
    /// Returns the sender of a call; fails when it has left the bus already.
    pub(super) async fn of(bus: &Connection, header: &Header<'_>) -> Result<Self, BusError> {
        let sender = header
            .sender()
            .ok_or_else(|| Fault::new(Kind::Denied, "The call does not come from a bus"))?;
        let credentials = DBusProxy::new(bus)
            .await?
            .get_connection_credentials(sender.clone().into())
            .await?;
        let uid = credentials
            .unix_user_id()
            .ok_or_else(|| Fault::new(Kind::Denied, "The bus does not know the caller's user id"))?;
        Ok(Self {
            name: sender.clone().into(),
            uid,
            is_interactive: header.primary().flags().contains(Flags::AllowInteractiveAuth),
            unit: credentials.process_id().and_then(environment::unit_of),
        })
    }
}
