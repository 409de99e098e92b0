//! The interface of a stateroot.

use crate::daemon::OS_PATH;
use crate::daemon::error::BusError;
use crate::daemon::reader::Known;
use crate::daemon::service::Service;
use crate::daemon::variant::{self, Fields};
use crate::fault::{Fault, Kind};
use serde_json::{Value as Json, json};
use std::fmt::Write;
use std::sync::Arc;
use zbus::fdo;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedObjectPath;

/// A stateroot, or the one that a verb would choose.
#[derive(Debug)]
pub(super) struct Os {
    service: Arc<Service>,
    stateroot: Option<String>,
}

/// Returns the object of a stateroot; what an object path cannot have is written `_` and two hexadecimal digits.
pub(super) fn object_path(stateroot: &str) -> OwnedObjectPath {
    let mut path = format!("{OS_PATH}/");
    for byte in stateroot.bytes() {
        if byte.is_ascii_alphanumeric() {
            path.push(char::from(byte));
        } else {
            write!(path, "_{byte:02x}").expect("a string takes every text");
        }
    }
    OwnedObjectPath::try_from(path).expect("only letters, digits and `_`, and a stateroot has a name")
}

impl Os {
    /// Returns the object of a stateroot; of the one that a verb would choose, where none is named.
    pub(super) fn new(service: Arc<Service>, stateroot: Option<String>) -> Self {
        Self { service, stateroot }
    }

    async fn begin(
        &self,
        header: &Header<'_>,
        verb: &str,
        positional: &[(&str, Json)],
        options: Fields,
    ) -> Result<String, BusError> {
        let Some(stateroot) = &self.stateroot else {
            return self.service.begin(header, verb, positional, options).await;
        };
        if options.contains_key("stateroot") {
            return Err(Fault::new(
                Kind::Usage,
                format!("The object of the stateroot `{stateroot}` takes no option `stateroot`"),
            )
            .hint(format!("call {OS_PATH} to name one"))
            .into());
        }
        let named = ("stateroot", json!(stateroot));
        let all: Vec<_> = positional.iter().cloned().chain([named]).collect();
        self.service.begin(header, verb, &all, options).await
    }

    async fn known(&self) -> fdo::Result<Arc<Known>> {
        let known = self.service.known().await;
        known.map_err(|error| fdo::Error::Failed(format!("{error:#}")))
    }

    /// Returns a part of what is known of the stateroot.
    async fn part(&self, find: impl FnOnce(&Known, &str) -> Option<Json>) -> fdo::Result<Fields> {
        let known = self.known().await?;
        let name = self.stateroot.as_deref().or_else(|| known.default_stateroot());
        let found = name.and_then(|name| find(&known, name));
        Ok(found.as_ref().map(variant::fields).unwrap_or_default())
    }

    /// Tells that the deployments changed.
    pub(super) async fn announce(&self, emitter: &SignalEmitter<'_>) -> zbus::Result<()> {
        self.booted_deployment_changed(emitter).await?;
        self.default_deployment_changed(emitter).await?;
        self.rollback_deployment_changed(emitter).await?;
        self.cached_update_changed(emitter).await
    }
}

#[zbus::interface(name = "org.aptostree.dev.OS1", introspection_docs = false)]
impl Os {
    async fn upgrade(&self, options: Fields, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        self.begin(&header, "upgrade", &[], options).await
    }

    async fn rebase(
        &self,
        reference: &str,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let reference = ("reference", json!(reference));
        self.begin(&header, "rebase", &[reference], options).await
    }

    async fn deploy(
        &self,
        revision: &str,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let revision = ("revision", json!(revision));
        self.begin(&header, "deploy", &[revision], options).await
    }

    async fn install(
        &self,
        packages: Vec<String>,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let packages = ("packages", json!(packages));
        self.begin(&header, "install", &[packages], options).await
    }

    async fn uninstall(
        &self,
        packages: Vec<String>,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let packages = ("packages", json!(packages));
        self.begin(&header, "uninstall", &[packages], options).await
    }

    async fn override_replace(
        &self,
        packages: Vec<String>,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let packages = ("packages", json!(packages));
        self.begin(&header, "override-replace", &[packages], options)
            .await
    }

    async fn override_remove(
        &self,
        packages: Vec<String>,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let packages = ("packages", json!(packages));
        self.begin(&header, "override-remove", &[packages], options).await
    }

    async fn override_reset(
        &self,
        packages: Vec<String>,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let packages = ("packages", json!(packages));
        self.begin(&header, "override-reset", &[packages], options).await
    }

    async fn reset(&self, options: Fields, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        self.begin(&header, "reset", &[], options).await
    }

    async fn initramfs(
        &self,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.begin(&header, "initramfs", &[], options).await
    }

    async fn initramfs_etc(
        &self,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.begin(&header, "initramfs-etc", &[], options).await
    }

    async fn rollback(
        &self,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.begin(&header, "rollback", &[], options).await
    }

    async fn cleanup(&self, options: Fields, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        self.begin(&header, "cleanup", &[], options).await
    }

    async fn kargs(&self, options: Fields, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        self.begin(&header, "kargs", &[], options).await
    }

    async fn finalize_deployment(
        &self,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.begin(&header, "finalize-deployment", &[], options).await
    }

    async fn apply_live(
        &self,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.begin(&header, "apply-live", &[], options).await
    }

    async fn usroverlay(
        &self,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.begin(&header, "usroverlay", &[], options).await
    }

    async fn refresh_md(
        &self,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.begin(&header, "refresh-md", &[], options).await
    }

    async fn automatic_update(
        &self,
        options: Fields,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.begin(&header, "automatic-update", &[], options).await
    }

    /// The stateroot's name; empty where a verb would not know which to choose.
    #[zbus(property)]
    async fn name(&self) -> fdo::Result<String> {
        let known = self.known().await?;
        let name = self.stateroot.as_deref().or_else(|| known.default_stateroot());
        Ok(name.unwrap_or_default().to_owned())
    }

    /// The deployment this machine runs from; empty where it is of another stateroot.
    #[zbus(property)]
    async fn booted_deployment(&self) -> fdo::Result<Fields> {
        let booted =
            |known: &Known, name: &str| known.booted().filter(|found| found["osname"] == name).cloned();
        self.part(booted).await
    }

    /// The deployment that boots next.
    #[zbus(property)]
    async fn default_deployment(&self) -> fdo::Result<Fields> {
        self.part(|known, name| known.of_stateroot(name).next().cloned())
            .await
    }

    /// The deployment behind the booted one, or behind the one that boots next where none is booted.
    #[zbus(property)]
    async fn rollback_deployment(&self) -> fdo::Result<Fields> {
        self.part(|known, name| {
            let all: Vec<&Json> = known.of_stateroot(name).collect();
            let booted = all.iter().position(|found| found["booted"] == true);
            all.get(booted.unwrap_or(0) + 1).copied().cloned()
        })
        .await
    }

    /// An update that is known and not deployed.
    #[zbus(property)]
    async fn cached_update(&self) -> fdo::Result<Fields> {
        let update = |known: &Known, name: &str| {
            let update = &known.status["cached-update"];
            let is_ours = update["osname"].as_str().is_none_or(|osname| osname == name);
            is_ours.then(|| update.clone())
        };
        self.part(update).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stateroot_has_a_path() {
        for (name, path) in [
            ("debian", "debian"),
            ("my-os.1", "my_2dos_2e1"),
            ("_", "_5f"),
            ("ä", "_c3_a4"),
        ] {
            assert_eq!(object_path(name).as_str(), format!("{OS_PATH}/{path}"));
        }
    }
}
