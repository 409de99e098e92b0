//! From the start of the service to its end.

use crate::config::Config;
use crate::daemon::arguments::Arguments;
use crate::daemon::reader::Reader;
use crate::daemon::service::Service;
use crate::daemon::{BUS_NAME, announce, bounded, socket};
use crate::deployment::stamp::Stamp;
use crate::fault::{Fault, Kind};
use crate::host::watch;
use crate::ops::recover;
use crate::report::Silent;
use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use zbus::fdo::{NameOwnerChanged, RequestNameFlags};
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream};

/// How long calls that came before the name was given back may take to become known.
const LATE_CALLS: Duration = Duration::from_secs(1);

/// Writers touch several files; what they do in this time is one change.
const SETTLING: Duration = Duration::from_millis(200);

/// Serves until the service is idle or told to end.
///
/// A running transaction is cancelled and waited for. Fails when the bus does not answer or goes away, when another
/// process owns the name, where there is no sysroot, and when the settings have a mistake.
pub(super) async fn run(arguments: &Arguments) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let reader = Reader::start(arguments.sysroot.as_deref())?;
    reader.read().await?;
    let config = Config::load(reader.root())?;
    let bus = bounded::connect(arguments.bus.as_deref()).await?;
    let left = leaving(&bus).await?;
    let service = Arc::new(Service::new(
        bus.clone(),
        reader,
        arguments.sysroot.clone(),
        arguments.run_dir.clone(),
        config,
    ));
    // Looked up before anybody can ask for a socket, and removed when no other service has them.
    let left_sockets = socket::list(&arguments.run_dir)?;
    announce::publish(&service).await?;
    take_name(&bus).await?;
    socket::remove(&left_sockets)?;
    let sysroot = arguments.sysroot.clone();
    tokio::task::spawn_blocking(move || close_interrupted(sysroot.as_deref()));
    let changes = tokio::spawn(follow_changes(Arc::clone(&service)));
    // In a task of its own: nothing else arrives over the bus while the queue of those who leave is full.
    let mut departures = tokio::spawn(forget_all(Arc::clone(&service), left));
    tracing::info!("serving {}", service.reader.root().display());
    loop {
        tokio::select! {
            _ = &mut departures => {
                service.finish().await;
                bail!("The bus went away");
            }
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = service.idle() => {
                // From now on a call starts the service anew; those that came before are seen to.
                bus.release_name(BUS_NAME).await?;
                tokio::time::sleep(LATE_CALLS).await;
                if !service.is_needed() {
                    tracing::info!("nobody needs the service");
                    break;
                }
                if let Err(error) = take_name(&bus).await {
                    // Another service was started meanwhile; this one sees to what it promised.
                    tracing::warn!("{error:#}");
                    service.see_through().await;
                    break;
                }
            }
        }
    }
    changes.abort();
    service.finish().await;
    Ok(())
}

/// Says in the log which transactions were interrupted; nobody waits for this.
fn close_interrupted(sysroot: Option<&Path>) {
    match recover::run(sysroot, &Silent) {
        Ok(recovered) => {
            for interrupted in recovered {
                tracing::warn!("{}", interrupted.text);
            }
        }
        Err(error) => tracing::warn!("{error:#}"),
    }
}

async fn take_name(bus: &Connection) -> Result<()> {
    match bus
        .request_name_with_flags(BUS_NAME, RequestNameFlags::DoNotQueue.into())
        .await
    {
        Ok(_) => Ok(()),
        Err(zbus::Error::NameTaken) => Err(Fault::new(
            Kind::Busy,
            format!("Another process owns the name {BUS_NAME} on the bus"),
        )
        .into()),
        Err(error) => Err(error).with_context(|| format!("Taking the name {BUS_NAME} on the bus")),
    }
}

/// Returns the names that leave the bus: one rule for all, because a bus allows a client only so many.
async fn leaving(bus: &Connection) -> Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")?
        .interface("org.freedesktop.DBus")?
        .member("NameOwnerChanged")?
        .arg(2, "")?
        .build();
    MessageStream::for_match_rule(rule, bus, None)
        .await
        .context("Watching for clients that leave")
}

/// Forgets everybody who leaves, until the bus goes away.
async fn forget_all(service: Arc<Service>, mut left: MessageStream) {
    while let Some(message) = left.next().await {
        match message {
            Ok(message) => forget(&service, &message),
            Err(error) => tracing::warn!("a message of the bus makes no sense: {error}"),
        }
    }
}

fn forget(service: &Service, message: &zbus::Message) {
    let Some(changed) = NameOwnerChanged::from_message(message.clone()) else {
        return;
    };
    match changed.args() {
        Ok(changed) => {
            if let Some(old) = changed.old_owner().as_ref() {
                service.forget(old);
            }
        }
        Err(error) => tracing::warn!("a message of the bus makes no sense: {error}"),
    }
}

/// Announces what others change in the sysroot.
async fn follow_changes(service: Arc<Service>) {
    loop {
        // Folders may have come since; watching anew costs little beside a change.
        let change = watch::next_change(Stamp::folders(service.reader.root()));
        service.announce().await;
        let change = match change {
            // The thread that watches sends before it ends.
            Ok(change) => change.await.unwrap_or(Ok(())),
            Err(error) => Err(error),
        };
        if let Err(error) = change {
            tracing::warn!("changes by others are not announced: {error:#}");
            return;
        }
        tokio::time::sleep(SETTLING).await;
    }
}
