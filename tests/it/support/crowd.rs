//! Many clients that read what the service knows, each over a connection of its own.

use super::bus::Bus;
use super::service::NAME;
use serde_json::Value as Json;
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zbus::zvariant::OwnedValue;

/// The users of the readers: those that each Debian has, because the bus turns others away.
const USERS: [u32; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 33, 34, 38, 65534];

/// How long an answer may take before the test says that it does not come.
const PATIENCE: Duration = Duration::from_secs(120);

const SYSROOT: (&str, &str) = ("/org/aptostree/dev/Sysroot", "org.aptostree.dev.Sysroot1");
const OS: (&str, &str) = ("/org/aptostree/dev/OS", "org.aptostree.dev.OS1");

/// The readers.
pub struct Crowd(Vec<zbus::Connection>);

/// What the readers were told, each different answer once, and how long each answer took.
#[derive(Debug, Default)]
pub struct Heard {
    /// Answers of `GetStatus`.
    pub statuses: BTreeSet<String>,
    /// The versions that the property `Deployments` listed, and the version that was the default deployment's.
    pub properties: BTreeSet<(Vec<String>, String)>,
    /// How long each `GetStatus` took.
    pub times: Vec<Duration>,
}

impl Heard {
    /// Adds what others were told.
    pub fn add(&mut self, other: Self) {
        self.statuses.extend(other.statuses);
        self.properties.extend(other.properties);
        self.times.extend(other.times);
    }

    /// Returns the deployments that the statuses list.
    pub fn deployments(&self) -> Vec<Json> {
        let mut all = Vec::new();
        for status in &self.statuses {
            let status: Json = serde_json::from_str(status).expect("JSON");
            if !all.contains(&status["deployments"]) {
                all.push(status["deployments"].clone());
            }
        }
        all
    }
}

impl Crowd {
    /// Connects readers of many users.
    pub async fn gather(bus: &Bus, count: usize) -> Self {
        let mut readers = Vec::new();
        for uid in USERS.into_iter().cycle().take(count) {
            readers.push(bus.join(uid).await);
        }
        Self(readers)
    }

    /// Lets every reader read everything once.
    pub async fn read(&self) -> Heard {
        self.all(|reader| async move { look(&reader).await }).await
    }

    /// Lets every reader read the status once.
    pub async fn read_status(&self) -> Heard {
        self.all(|reader| async move {
            let mut heard = Heard::default();
            heard.hear_status(&reader).await;
            heard
        })
        .await
    }

    /// Lets every reader read everything, rest for `pace` and read again until `end`; each reads at least once.
    pub async fn read_until(&self, end: &Arc<AtomicBool>, pace: Duration) -> Heard {
        self.all(|reader| {
            let end = Arc::clone(end);
            async move {
                let mut heard = look(&reader).await;
                while !end.load(Ordering::SeqCst) {
                    tokio::time::sleep(pace).await;
                    heard.add(look(&reader).await);
                }
                heard
            }
        })
        .await
    }

    /// Lets every reader read the status at its own time within each `pace` until `end`.
    pub async fn read_statuses(&self, end: &Arc<AtomicBool>, pace: Duration) -> Heard {
        let place = std::sync::atomic::AtomicU32::new(0);
        let count = u32::try_from(self.0.len()).expect("a small number");
        self.all(|reader| {
            let end = Arc::clone(end);
            let mine = pace * place.fetch_add(1, Ordering::SeqCst) / count;
            async move {
                let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + mine, pace);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                let mut heard = Heard::default();
                while !end.load(Ordering::SeqCst) {
                    ticks.tick().await;
                    heard.hear_status(&reader).await;
                }
                heard
            }
        })
        .await
    }

    async fn all<F, T>(&self, read: F) -> Heard
    where
        F: Fn(zbus::Connection) -> T,
        T: Future<Output = Heard> + Send + 'static,
    {
        let tasks: Vec<_> = self
            .0
            .iter()
            .map(|reader| tokio::spawn(read(reader.clone())))
            .collect();
        let mut heard = Heard::default();
        for task in tasks {
            heard.add(task.await.expect("a reader that is told everything"));
        }
        heard
    }
}

impl Heard {
    async fn hear_status(&mut self, reader: &zbus::Connection) {
        let begin = Instant::now();
        let status: String = call(reader, SYSROOT, "GetStatus").await;
        self.times.push(begin.elapsed());
        self.statuses.insert(status);
    }
}

async fn look(reader: &zbus::Connection) -> Heard {
    let mut heard = Heard::default();
    heard.hear_status(reader).await;
    let deployments: Vec<HashMap<String, OwnedValue>> = property(reader, SYSROOT, "Deployments").await;
    let default: HashMap<String, OwnedValue> = property(reader, OS, "DefaultDeployment").await;
    let version = |fields: &HashMap<String, OwnedValue>| {
        String::try_from(fields["version"].try_clone().expect("a value")).expect("a text")
    };
    let versions = deployments.iter().map(version).collect();
    heard.properties.insert((versions, version(&default)));
    let (title, _, address): (String, String, String) = property(reader, SYSROOT, "ActiveTransaction").await;
    assert_eq!(title.is_empty(), address.is_empty(), "{title} {address}");
    heard
}

async fn property<T>(reader: &zbus::Connection, (path, interface): (&str, &str), name: &str) -> T
where
    T: TryFrom<OwnedValue>,
    T::Error: std::fmt::Debug,
{
    let properties = Some("org.freedesktop.DBus.Properties");
    let body = (interface, name);
    let reply = reader.call_method(Some(NAME), path, properties, "Get", &body);
    let reply = tokio::time::timeout(PATIENCE, reply).await.expect("an answer");
    let value: OwnedValue = reply.expect("a property").body().deserialize().expect("a value");
    T::try_from(value).unwrap_or_else(|error| panic!("{name}: {error:?}"))
}

async fn call<T>(reader: &zbus::Connection, (path, interface): (&str, &str), method: &str) -> T
where
    T: serde::de::DeserializeOwned + zbus::zvariant::Type,
{
    let reply = reader.call_method(Some(NAME), path, Some(interface), method, &());
    let reply = tokio::time::timeout(PATIENCE, reply).await.expect("an answer");
    let reply = reply.unwrap_or_else(|error| panic!("{method}: {error}"));
    reply.body().deserialize().expect("the type of the answer")
}
