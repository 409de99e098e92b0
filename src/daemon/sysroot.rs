//! The interface of the sysroot as a whole.

use crate::daemon::caller::Caller;
use crate::daemon::error::BusError;
use crate::daemon::os::object_path;
use crate::daemon::reader::Known;
use crate::daemon::service::Service;
use crate::daemon::variant::{self, Fields};
use crate::daemon::{OS_PATH, announce};
use crate::fault::{Fault, Kind};
use crate::host::lock;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use zbus::fdo;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedObjectPath, Value};

/// The sysroot.
#[derive(Debug)]
pub(super) struct Sysroot(pub(super) Arc<Service>);

/// What runs: title, who wants it, where it is watched; all empty when nothing runs.
pub(super) type Active = (String, String, String);

impl Sysroot {
    async fn known(&self) -> fdo::Result<Arc<Known>> {
        let known = self.0.known().await;
        known.map_err(|error| fdo::Error::Failed(format!("{error:#}")))
    }

    /// Tells that another transaction runs, or none.
    pub(super) async fn announce_transaction(&self, emitter: &SignalEmitter<'_>) -> zbus::Result<()> {
        self.active_transaction_changed(emitter).await?;
        self.active_transaction_path_changed(emitter).await
    }

    /// Tells that the deployments changed.
    pub(super) async fn announce_deployments(&self, emitter: &SignalEmitter<'_>) -> zbus::Result<()> {
        self.deployments_changed(emitter).await
    }
}

#[zbus::interface(name = "org.aptostree.dev.Sysroot1", introspection_docs = false)]
impl Sysroot {
    /// Asks the service to stay until the client leaves the bus; `id` is the name the client gives itself.
    async fn register_client(
        &self,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), BusError> {
        let caller = Caller::of(&self.0.bus, &header).await?;
        let id = match options.get("id").map(|value| &**value) {
            None => "",
            Some(Value::Str(id)) => id.as_str(),
            Some(_) => return Err(Fault::new(Kind::Usage, "The option `id` is no text").into()),
        };
        self.0.clients.register(caller.name.clone(), id)?;
        self.0.stir();
        self.0.check_presence(&caller.name).await
    }

    /// Takes that back.
    #[expect(unused_variables, reason = "the name stands in the introspection data")]
    async fn unregister_client(&self, options: Fields, #[zbus(header)] header: Header<'_>) {
        if let Some(sender) = header.sender() {
            self.0.clients.forget(sender);
        }
        self.0.stir();
    }

    /// Returns the object of a stateroot; of the one that a verb would choose, for an empty name.
    #[zbus(name = "GetOS")]
    async fn get_os(&self, name: &str) -> Result<OwnedObjectPath, BusError> {
        self.0.stir();
        let known = self.0.known().await?;
        if name.is_empty() {
            return Ok(OwnedObjectPath::try_from(OS_PATH).map_err(zbus::Error::from)?);
        }
        if !known.stateroots.contains(name) {
            let all: Vec<&str> = known.stateroots.iter().map(String::as_str).collect();
            return Err(Fault::new(
                Kind::NotFound,
                format!("There is no stateroot `{name}`; there is: {}", all.join(", ")),
            )
            .into());
        }
        Ok(object_path(name))
    }

    /// Returns what `apt-ostree status --json` prints.
    async fn get_status(&self) -> Result<String, BusError> {
        self.0.stir();
        let known = self.0.known().await?;
        let transaction = match self.0.active() {
            Some((title, initiator, address)) => json!([title, initiator, address]),
            None => json!(lock::writer(self.0.reader.root())),
        };
        // Deployments are many, and copying them for one key would be most of the work. In order: the same is told alike.
        let rest = known.status.as_object().into_iter().flatten();
        let mut status: BTreeMap<&str, &serde_json::Value> =
            rest.map(|(key, value)| (key.as_str(), value)).collect();
        status.insert("transaction", &transaction);
        Ok(serde_json::to_string(&status).map_err(anyhow::Error::from)?)
    }

    /// Reads the sysroot again; returns when the properties are those of now.
    async fn reload(&self) -> Result<(), BusError> {
        self.0.stir();
        self.0.reader.read().await?;
        Ok(announce::announce(&self.0).await?)
    }

    /// Reads the settings again; with a mistake in them the former ones stay in force.
    async fn reload_config(&self, #[zbus(header)] header: Header<'_>) -> Result<(), BusError> {
        self.0.stir();
        let caller = Caller::of(&self.0.bus, &header).await?;
        self.0
            .authority
            .require(&caller, &header, ["reload-daemon"], &HashMap::new())
            .await?;
        self.0.reload_config()?;
        self.0.reader.read().await?;
        Ok(announce::announce(&self.0).await?)
    }

    /// Stops the transaction; returns whether there was one to stop.
    async fn cancel(&self, #[zbus(header)] header: Header<'_>) -> Result<bool, BusError> {
        self.0.stir();
        let Some(transaction) = self.0.slot.current() else {
            return Ok(false);
        };
        let caller = Caller::of(&self.0.bus, &header).await?;
        if caller.uid != transaction.initiator.uid {
            let details = HashMap::from([("title", transaction.initiator.title.clone())]);
            self.0
                .authority
                .require(&caller, &header, ["cancel"], &details)
                .await?;
        }
        tracing::info!(
            "the user {} cancels `{}`",
            caller.uid,
            transaction.initiator.title
        );
        Ok(transaction.cancel())
    }

    async fn pin(&self, options: Fields, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        self.0.begin(&header, "pin", &[], options).await
    }

    async fn unpin(&self, options: Fields, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        self.0.begin(&header, "unpin", &[], options).await
    }

    async fn image_pull(
        &self,
        reference: &str,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let reference = ("reference", json!(reference));
        self.0.begin(&header, "image-pull", &[reference], options).await
    }

    async fn image_remove(
        &self,
        reference: &str,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let reference = ("reference", json!(reference));
        self.0.begin(&header, "image-remove", &[reference], options).await
    }

    async fn image_prune(
        &self,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.0.begin(&header, "image-prune", &[], options).await
    }

    async fn fsck(&self, options: Fields, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        self.0.begin(&header, "fsck", &[], options).await
    }

    /// Where the sysroot is.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn path(&self) -> String {
        self.0.reader.root().display().to_string()
    }

    /// The object of the booted stateroot; `/` where this machine did not boot from the sysroot.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn booted(&self) -> fdo::Result<OwnedObjectPath> {
        let known = self.known().await?;
        let booted = known.booted().and_then(|booted| booted["osname"].as_str());
        Ok(booted.map_or_else(OwnedObjectPath::default, object_path))
    }

    /// All deployments in boot order, with the keys of `apt-ostree status --json`.
    #[zbus(property)]
    async fn deployments(&self) -> fdo::Result<Vec<Fields>> {
        Ok(self
            .known()
            .await?
            .deployments()
            .iter()
            .map(variant::fields)
            .collect())
    }

    /// The running transaction: title, who wants it, where it is watched; empty when none runs.
    #[zbus(property)]
    async fn active_transaction(&self) -> Active {
        self.0.active().unwrap_or_default()
    }

    /// Where the running transaction is watched; empty when none runs.
    #[zbus(property)]
    async fn active_transaction_path(&self) -> String {
        self.0.active().unwrap_or_default().2
    }

    /// What happens without anybody asking for it: `none`, `check`, `stage` or `apply`.
    #[zbus(property)]
    async fn automatic_update_policy(&self) -> fdo::Result<String> {
        Ok(self.known().await?.policy().to_owned())
    }
}
