//! What is deployed, read by one thread and kept until the sysroot changes.
//!
//! libostree's objects belong to one thread, and reading them takes time; a client that asks for the status gets what
//! was read last, as long as a few looks at the sysroot say that nothing changed.

use crate::deployment::stamp::Stamp;
use crate::fault::Fault;
use crate::ops::status;
use anyhow::{Context, Result, anyhow};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// After this time what is known is read again all the same: a part of it is other programs' (timers of the machine).
const FRESH: Duration = Duration::from_secs(10);

/// What was read.
#[derive(Debug)]
pub(super) struct Known {
    /// `status --json` without what runs right now.
    pub(super) status: Json,
    /// The stateroots, with and without deployments.
    pub(super) stateroots: BTreeSet<String>,
    stamp: Stamp,
    at: Instant,
}

/// Reads the sysroot.
#[derive(Debug)]
pub(super) struct Reader {
    root: PathBuf,
    known: Arc<Mutex<Option<Arc<Known>>>>,
    wanted: mpsc::Sender<Reply>,
}

type Reply = oneshot::Sender<Result<Arc<Known>, Arc<anyhow::Error>>>;

impl Known {
    /// Returns the deployments in boot order.
    pub(super) fn deployments(&self) -> &[Json] {
        self.status["deployments"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Returns the deployments of one stateroot in boot order.
    pub(super) fn of_stateroot<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Json> {
        let all = self.deployments().iter();
        all.filter(move |deployment| deployment["osname"] == name)
    }

    /// Returns the booted deployment.
    pub(super) fn booted(&self) -> Option<&Json> {
        self.deployments()
            .iter()
            .find(|deployment| deployment["booted"] == true)
    }

    /// Returns what happens without anybody asking for it; empty where the settings cannot be read.
    pub(super) fn policy(&self) -> &str {
        self.status["automatic-updates"]["policy"]
            .as_str()
            .unwrap_or_default()
    }

    /// Returns the stateroot that a verb would choose: the booted one, or the only one.
    pub(super) fn default_stateroot(&self) -> Option<&str> {
        match self.booted() {
            Some(booted) => booted["osname"].as_str(),
            None if self.stateroots.len() == 1 => self.stateroots.first().map(String::as_str),
            None => None,
        }
    }
}

impl Reader {
    /// Starts the thread that reads the sysroot at `path`, or the booted one.
    pub(super) fn start(path: Option<&Path>) -> Result<Self> {
        let (wanted, asked) = mpsc::channel::<Reply>();
        let known = Arc::<Mutex<Option<Arc<Known>>>>::default();
        let root = path.unwrap_or(Path::new("/")).to_owned();
        let (kept, path, at) = (Arc::clone(&known), path.map(Path::to_owned), root.clone());
        std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || {
                while let Ok(first) = asked.recv() {
                    // One reading answers everybody who asked before it began.
                    let replies: Vec<Reply> = std::iter::once(first).chain(asked.try_iter()).collect();
                    let read = read(path.as_deref(), &at).map(Arc::new).map_err(Arc::new);
                    *kept.lock().unwrap_or_else(PoisonError::into_inner) = read.as_ref().ok().cloned();
                    for reply in replies {
                        // Who asked may have left.
                        reply.send(read.clone()).ok();
                    }
                }
            })
            .context("Starting the thread that reads")?;
        Ok(Self { root, known, wanted })
    }

    /// Returns what is deployed now.
    ///
    /// Fails where there is no sysroot.
    pub(super) async fn known(&self) -> Result<Arc<Known>> {
        self.kept(|known| known.stamp == Stamp::of(&self.root)).await
    }

    /// Returns what was read last, which may be a few seconds old.
    ///
    /// Fails where there is no sysroot.
    pub(super) async fn last(&self) -> Result<Arc<Known>> {
        self.kept(|_| true).await
    }

    async fn kept(&self, is_good: impl FnOnce(&Known) -> bool) -> Result<Arc<Known>> {
        let kept = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match kept {
            Some(known) if is_good(&known) => {
                if known.at.elapsed() > FRESH {
                    // For whoever asks next; this one does not wait for the answer.
                    self.wanted.send(oneshot::channel().0).ok();
                }
                Ok(known)
            }
            _ => self.read().await,
        }
    }

    /// Reads again, whatever is known.
    pub(super) async fn read(&self) -> Result<Arc<Known>> {
        let (reply, answer) = oneshot::channel();
        self.wanted
            .send(reply)
            .map_err(|_| anyhow!("The thread that reads the sysroot is gone"))?;
        let read = answer
            .await
            .context("The thread that reads the sysroot is gone")?;
        // Several may have asked for what failed.
        read.map_err(|error| match Fault::find(&error) {
            Some(fault) => fault.clone().into(),
            None => anyhow!("{error:#}"),
        })
    }

    /// Returns the root of the sysroot.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

fn read(path: Option<&Path>, root: &Path) -> Result<Known> {
    // First, so that a change while reading shows as one.
    let stamp = Stamp::of(root);
    let mut status = serde_json::to_value(status::run(path)?)?;
    if let Some(object) = status.as_object_mut() {
        object.remove("transaction");
    }
    let folder = root.join("ostree/deploy");
    let mut stateroots = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("Reading {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            stateroots.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(Known {
        status,
        stateroots,
        stamp,
        at: Instant::now(),
    })
}
