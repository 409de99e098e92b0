//! The signals `PropertiesChanged`, and the objects of stateroots that come and go.

use crate::daemon::os::{Os, object_path};
use crate::daemon::service::Service;
use crate::daemon::sysroot::{Active, Sysroot};
use crate::daemon::{OS_PATH, SYSROOT_PATH};
use anyhow::Result;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What everybody was told last.
#[derive(Debug, Default)]
pub(super) struct Announced {
    status: serde_json::Value,
    active: Option<Active>,
    policy: String,
    stateroots: BTreeSet<String>,
}

/// Puts the objects on the bus; the service has no name yet, so that nobody finds only some of them.
pub(super) async fn publish(service: &Arc<Service>) -> Result<()> {
    let server = service.bus.object_server();
    server.at(SYSROOT_PATH, Sysroot(Arc::clone(service))).await?;
    server.at(OS_PATH, Os::new(Arc::clone(service), None)).await?;
    announce(service).await
}

/// Tells everybody what changed since the last time.
pub(super) async fn announce(service: &Arc<Service>) -> Result<()> {
    let server = service.bus.object_server();
    let mut announced = service.announced.lock().await;
    let sysroot = server.interface::<_, Sysroot>(SYSROOT_PATH).await?;
    let active = service.active();
    if active != announced.active {
        announced.active = active;
        sysroot
            .get()
            .await
            .announce_transaction(sysroot.signal_emitter())
            .await?;
    }
    let known = service.reader.known().await?;
    let policy = known.policy();
    if announced.policy != policy {
        announced.policy = policy.to_owned();
        sysroot
            .get()
            .await
            .automatic_update_policy_changed(sysroot.signal_emitter())
            .await?;
    }
    for name in known.stateroots.difference(&announced.stateroots) {
        let os = Os::new(Arc::clone(service), Some(name.clone()));
        server.at(object_path(name), os).await?;
    }
    for name in announced.stateroots.difference(&known.stateroots) {
        server.remove::<Os, _>(object_path(name)).await?;
    }
    announced.stateroots.clone_from(&known.stateroots);
    if known.status != announced.status {
        announced.status.clone_from(&known.status);
        sysroot
            .get()
            .await
            .announce_deployments(sysroot.signal_emitter())
            .await?;
        let named = known.stateroots.iter().map(|name| object_path(name).to_string());
        for path in named.chain([OS_PATH.to_owned()]) {
            let os = server.interface::<_, Os>(path).await?;
            os.get().await.announce(os.signal_emitter()).await?;
        }
    }
    Ok(())
}
