//! What all objects of the service share.

use crate::config::Config;
use crate::daemon::announce::{self, Announced};
use crate::daemon::authority::{self, Authority};
use crate::daemon::caller::Caller;
use crate::daemon::clients::Clients;
use crate::daemon::error::BusError;
use crate::daemon::files::Given;
use crate::daemon::reader::{Known, Reader};
use crate::daemon::result::Ended;
use crate::daemon::slot::{Slot, Taken};
use crate::daemon::socket::{self, SocketFile};
use crate::daemon::sysroot::Active;
use crate::daemon::transaction::{Phase, Transaction};
use crate::daemon::variant::Fields;
use crate::fault::Fault;
use crate::host::environment;
use crate::ops::reboot;
use crate::ops::request::{Initiator, Request};
use anyhow::Result;
use serde_json::Value as Json;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::Header;
use zbus::names::{OwnedUniqueName, UniqueName};

/// How long a transaction waits to be started.
const UNSTARTED: Duration = Duration::from_secs(60);

/// How long the socket of a transaction stays after its end, for watchers that come late.
const LINGER: Duration = Duration::from_secs(30);

/// How many transactions that are over keep their sockets; who begins and cancels again and again gets no more of them.
const LINGERING: u64 = 8;

/// How long watchers may take to hear of the end before a reboot, or before the service ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a rule of the administrator is told of a list of packages, in characters.
const LONGEST_DETAIL: usize = 4096;

/// The service.
#[derive(Debug)]
pub(super) struct Service {
    /// The bus.
    pub(super) bus: Connection,
    /// What is deployed.
    pub(super) reader: Reader,
    /// The transaction, if there is one.
    pub(super) slot: Slot,
    /// Who asked the service to stay.
    pub(super) clients: Clients,
    /// Who may do what.
    pub(super) authority: Authority,
    sysroot: Option<PathBuf>,
    run_dir: PathBuf,
    config: Mutex<Config>,
    /// What everybody was told last.
    pub(super) announced: tokio::sync::Mutex<Announced>,
    stirred: Notify,
    /// How many transactions are over.
    ends: watch::Sender<u64>,
    last: Mutex<Instant>,
}

impl Service {
    /// Returns a service that nobody can call yet.
    pub(super) fn new(
        bus: Connection,
        reader: Reader,
        sysroot: Option<PathBuf>,
        run_dir: PathBuf,
        config: Config,
    ) -> Self {
        Self {
            authority: Authority::new(bus.clone()),
            bus,
            reader,
            slot: Slot::default(),
            clients: Clients::default(),
            sysroot,
            run_dir,
            config: Mutex::new(config),
            announced: tokio::sync::Mutex::default(),
            stirred: Notify::new(),
            ends: watch::Sender::new(0),
            last: Mutex::new(Instant::now()),
        }
    }

    /// Authorises a call, makes a transaction of it and returns the transaction's address.
    ///
    /// `positional` are the arguments with the names that the request has for them.
    pub(super) async fn begin(
        self: &Arc<Self>,
        header: &Header<'_>,
        verb: &str,
        positional: &[(&str, Json)],
        options: Fields,
    ) -> Result<String, BusError> {
        self.stir();
        // Before anything is waited for: what waits has no more room than the request itself.
        let given = Given::read(verb, positional, &options)?;
        drop(options);
        let request = Request::parse(verb, &given.options)?;
        let caller = Caller::of(&self.bus, header).await?;
        let actions = authority::actions(&request);
        self.authority
            .require(&caller, header, actions, &details(&request))
            .await?;
        let has_files = !given.files.is_empty();
        let taken = self.slot.take(&request, has_files, || {
            let socket = socket::make(&self.run_dir)?;
            let transaction = self.transaction(&request, &caller, given, &socket);
            Ok((transaction, socket))
        })?;
        let transaction = match taken {
            Taken::New(transaction, socket) => {
                tokio::spawn(Arc::clone(self).attend(Arc::clone(&transaction), socket));
                transaction
            }
            Taken::Joined(transaction) => {
                transaction.join(caller.uid, caller.name.clone());
                transaction
            }
        };
        self.check_presence(&caller.name).await?;
        Ok(transaction.address.clone())
    }

    fn transaction(
        &self,
        request: &Request,
        caller: &Caller,
        given: Given,
        socket: &SocketFile,
    ) -> Transaction {
        let initiator = Initiator {
            title: given
                .title
                .filter(|title| !title.is_empty())
                .unwrap_or_else(|| request.verb().replace('-', " ")),
            uid: caller.uid,
            user: environment::user_name(caller.uid),
            client: self.clients.id(&caller.name),
            bus_name: Some(caller.name.to_string()),
            unit: caller.unit.clone(),
        };
        Transaction::new(
            format!("unix:path={}", socket.path().display()),
            request.clone(),
            initiator,
            caller.name.clone(),
            given.files,
            self.sysroot.clone(),
        )
    }

    /// Sees a transaction through: its watchers, its end, and what follows from that.
    async fn attend(self: Arc<Self>, transaction: Arc<Transaction>, socket: SocketFile) {
        tracing::info!(
            "transaction `{}` of {} waits at {}",
            transaction.initiator.title,
            transaction.initiator,
            transaction.address
        );
        self.announce().await;
        tokio::select! {
            () = socket::serve(&socket, &transaction) => {}
            () = self.follow(&transaction) => {}
        }
        transaction.dismiss();
    }

    async fn follow(self: &Arc<Self>, transaction: &Arc<Transaction>) {
        let unstarted = tokio::time::sleep(UNSTARTED);
        tokio::select! {
            () = transaction.over() => {}
            () = unstarted => {
                if transaction.phase() == Phase::Waiting {
                    transaction.cancel();
                }
                transaction.over().await;
            }
        }
        let ended = transaction.ended();
        tracing::info!(
            "transaction `{}` ended: {}",
            transaction.initiator.title,
            ended.as_ref().map_or("", |ended| if ended.is_success() {
                "success"
            } else {
                ended.message()
            })
        );
        self.stir();
        self.announce().await;
        if matches!(ended, Some(Ended::Done { changed: true, .. })) && transaction.request.reboots() {
            tell_all(transaction).await;
            let asked = tokio::task::spawn_blocking(reboot::run).await;
            if let Ok(Err(error)) = asked {
                tracing::error!("the machine does not reboot: {error:#}");
            }
        }
        self.linger().await;
    }

    /// Waits as long as a transaction that is over keeps its socket.
    async fn linger(&self) {
        let mut ends = self.ends.subscribe();
        let mut last = 0;
        self.ends.send_modify(|ends| {
            *ends += 1;
            last = *ends + LINGERING;
        });
        tokio::select! {
            () = tokio::time::sleep(LINGER) => {}
            // The sender lives as long as the service.
            _ = ends.wait_for(|ends| *ends >= last) => {}
        }
    }

    /// Forgets a caller that left before it was noted; nobody tells of that a second time.
    pub(super) async fn check_presence(&self, name: &OwnedUniqueName) -> Result<(), BusError> {
        if !DBusProxy::new(&self.bus)
            .await?
            .name_has_owner(name.clone().into_inner().into())
            .await?
        {
            self.forget(name);
        }
        Ok(())
    }

    /// Returns what runs: title, who wants it, where it is watched.
    pub(super) fn active(&self) -> Option<Active> {
        let transaction = self.slot.current()?;
        let initiator = &transaction.initiator;
        Some((
            initiator.title.clone(),
            initiator.to_string(),
            transaction.address.clone(),
        ))
    }

    /// Returns what is deployed.
    ///
    /// While a transaction runs that is what was read last: the sysroot changes again and again then, and whoever asked
    /// would wait for one reading after another. After the end of the transaction the answer is never older than it.
    pub(super) async fn known(&self) -> Result<Arc<Known>> {
        let running = self.slot.current();
        if running.is_some_and(|transaction| transaction.phase() != Phase::Waiting) {
            return self.reader.last().await;
        }
        self.reader.known().await
    }

    /// Cancels the transaction, if there is one, and waits for its end.
    pub(super) async fn finish(&self) {
        if let Some(transaction) = self.slot.current() {
            transaction.cancel();
            conclude(&transaction).await;
        }
    }

    /// Waits for the end of the transaction, if there is one.
    pub(super) async fn see_through(&self) {
        if let Some(transaction) = self.slot.current() {
            conclude(&transaction).await;
        }
    }

    /// Tells everybody what changed; a bus that takes no signals is told of in the log.
    pub(super) async fn announce(self: &Arc<Self>) {
        if let Err(error) = announce::announce(self).await {
            tracing::warn!("changes could not be announced: {error:#}");
        }
    }

    /// Notes that a name left the bus.
    pub(super) fn forget(&self, name: &UniqueName<'_>) {
        self.clients.forget(name);
        if let Some(transaction) = self.slot.current() {
            transaction.forget(name);
        }
        self.stir();
    }

    /// Returns the settings.
    pub(super) fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the settings again; with a mistake in them the former ones stay in force.
    pub(super) fn reload_config(&self) -> Result<(), Fault> {
        let config = Config::load(self.reader.root())?;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        self.stir();
        Ok(())
    }

    /// Notes that somebody wanted something.
    pub(super) fn stir(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.stirred.notify_one();
    }

    /// Returns whether somebody needs the service to stay.
    pub(super) fn is_needed(&self) -> bool {
        self.slot.current().is_some() || !self.clients.is_empty() || !self.authority.is_idle()
    }

    /// Waits until nobody has wanted anything for as long as the settings say.
    pub(super) async fn idle(&self) {
        loop {
            let limit = self.config().daemon.idle_exit;
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let over = async {
                match limit {
                    Some(limit) if !self.is_needed() => tokio::time::sleep_until(last + limit).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stirred.notified() => {}
                () = over => return,
            }
        }
    }
}

async fn conclude(transaction: &Transaction) {
    transaction.over().await;
    tell_all(transaction).await;
}

async fn tell_all(transaction: &Transaction) {
    // A watcher that does not listen is no reason to wait for longer.
    tokio::time::timeout(LAST_WORDS, transaction.delivered())
        .await
        .ok();
}

/// Returns what rules of the administrator may look at.
fn details(request: &Request) -> HashMap<&'static str, String> {
    let options = request.options();
    let mut details = HashMap::from([("verb", request.verb().to_owned())]);
    for name in ["stateroot", "reference", "revision"] {
        if let Some(text) = options.get(name).and_then(Json::as_str) {
            details.insert(name, text.to_owned());
        }
    }
    for name in ["packages", "install", "uninstall"] {
        let words = options.get(name).and_then(Json::as_array).into_iter().flatten();
        let words: Vec<&str> = words.filter_map(Json::as_str).collect();
        if !words.is_empty() {
            details.insert(name, words.join(" ").chars().take(LONGEST_DETAIL).collect());
        }
    }
    details
}
