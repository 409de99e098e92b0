//! The private socket of a transaction: who may connect, and what a hostile peer cannot do.
//!
//! Anybody on this machine may watch. The number of peers is bounded for each user, so that one user cannot keep
//! another one out; what is not read is not answered, so that nothing piles up here; a message has a largest size.

use crate::daemon::peer::{PATH, Peer, Signals};
use crate::daemon::transaction::{QUEUE, Told, Transaction, Watcher};
use anyhow::{Context, Result};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as PlainMutex, PoisonError};
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc};
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::fdo::ConnectionCredentials;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Guid, MessageStream};

/// How many peers one user may have at a time.
const PEERS_OF_A_USER: usize = 32;

/// How many users may have peers besides those who may start the transaction.
const USERS: usize = 32;

/// How long a peer may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);

/// How long to wait after a connection could not be accepted.
const AGAIN: Duration = Duration::from_secs(1);

/// The longest message that a peer may send; its methods have no arguments.
const LONGEST_MESSAGE: usize = 64 << 10;

/// A socket in the file system, removed when this is dropped.
pub(super) type SocketFile = NamedTempFile<UnixListener>;

/// Makes a socket with a name that nobody can guess; must be called within a tokio runtime.
pub(super) fn make(run_dir: &Path) -> Result<SocketFile> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(run_dir)
        .with_context(|| format!("Making {}", run_dir.display()))?;
    let socket = tempfile::Builder::new()
        .prefix("transaction-")
        .suffix(".sock")
        .rand_bytes(16)
        .make_in(run_dir, |path| UnixListener::bind(path))
        .with_context(|| format!("Making a socket in {}", run_dir.display()))?;
    // Who connects is told by the kernel, and what they may do is decided by that.
    std::fs::set_permissions(socket.path(), Permissions::from_mode(0o666))
        .context("Opening the socket to all")?;
    Ok(socket)
}

/// Returns the sockets that are there: before a service serves anybody, those of services before it.
pub(super) fn list(run_dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(run_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("Reading {}", run_dir.display()))?,
    };
    let mut sockets = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("transaction-") && name.ends_with(".sock") {
            sockets.push(entry.path());
        }
    }
    Ok(sockets)
}

/// Removes the sockets that a service left behind which was killed.
pub(super) fn remove(sockets: &[PathBuf]) -> Result<()> {
    for socket in sockets {
        match std::fs::remove_file(socket) {
            // Their service was about to end, and has removed it itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("Removing {}", socket.display()))?,
        }
    }
    Ok(())
}

/// Serves everybody who connects, for as long as this is polled.
pub(super) async fn serve(socket: &SocketFile, transaction: &Arc<Transaction>) {
    let places = Arc::new(Places::default());
    loop {
        let accepted = match socket.as_file().accept().await {
            Ok((stream, _)) => stream.peer_cred().map(|peer| (stream, peer.uid())),
            Err(error) => Err(error),
        };
        let (stream, uid) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Without descriptors, for example; what others hold is given back some time.
                tracing::warn!("nobody can connect to a transaction: {error}");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let Some(place) = places.take(uid, transaction.initiator.uid) else {
            tracing::warn!("the user {uid} has too many connections to a transaction");
            continue;
        };
        let transaction = Arc::clone(transaction);
        tokio::spawn(async move {
            if let Err(error) = attend(stream, uid, transaction).await {
                tracing::debug!("a watcher of a transaction is gone: {error:#}");
            }
            drop(place);
        });
    }
}

/// Attends to one peer until it leaves or is cut off.
async fn attend(stream: UnixStream, uid: u32, transaction: Arc<Transaction>) -> Result<()> {
    let stream = stream.into_std()?;
    let socket = stream.try_clone()?;
    let (queue, mut told) = mpsc::channel(QUEUE);
    let peer = Peer {
        transaction: Arc::clone(&transaction),
        uid,
        queue: queue.clone(),
    };
    let greeting = zbus::connection::Builder::socket(Gated(UnixStream::from_std(stream)?))
        .server(Guid::generate())?
        .p2p()
        .serve_at(PATH, peer)?
        .build();
    // From before it can call anything: it must not miss what its own call sets off.
    transaction.watch(Watcher {
        queue: queue.clone(),
        socket: socket.try_clone()?,
    });
    let done = match tokio::time::timeout(GREETING, greeting).await {
        Ok(Ok(connection)) => tokio::select! {
            sent = forward(&connection, &mut told) => sent,
            () = gone(&connection) => Ok(()),
        },
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(anyhow::anyhow!("it did not say who it is")),
    };
    transaction.unwatch(&queue);
    // Calls that wait to be answered end with the socket; it may be closed already.
    socket.shutdown(Shutdown::Both).ok();
    done
}

async fn forward(connection: &Connection, told: &mut mpsc::Receiver<Arc<Told>>) -> Result<()> {
    let mut signals = Signals::through(SignalEmitter::new(connection, PATH)?);
    while let Some(told) = told.recv().await {
        signals.send(&told).await?;
    }
    Ok(())
}

async fn gone(connection: &Connection) {
    let mut messages = MessageStream::from(connection);
    while messages.next().await.is_some_and(|message| message.is_ok()) {}
}

/// How many peers each user has.
#[derive(Debug, Default)]
struct Places(PlainMutex<HashMap<u32, usize>>);

/// One peer's place.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    fn take(self: &Arc<Self>, uid: u32, owner: u32) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stranger = uid != 0 && uid != owner;
        if is_stranger && !taken.contains_key(&uid) && taken.len() >= USERS {
            return None;
        }
        let peers = taken.entry(uid).or_default();
        if *peers >= PEERS_OF_A_USER {
            return None;
        }
        *peers += 1;
        Some(Place {
            places: Arc::clone(self),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peers) = taken.get_mut(&self.uid) {
            *peers -= 1;
            if *peers == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

/// A socket of which nothing is read while something written to it is not taken.
#[derive(Debug)]
struct Gated(UnixStream);

#[derive(Debug)]
struct GatedRead {
    half: OwnedReadHalf,
    gate: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct GatedWrite {
    half: OwnedWriteHalf,
    gate: Arc<Mutex<()>>,
}

impl Socket for Gated {
    type ReadHalf = GatedRead;
    type WriteHalf = GatedWrite;

    fn split(self) -> Split<GatedRead, GatedWrite> {
        let (read, write) = self.0.into_split();
        let gate = Arc::<Mutex<()>>::default();
        Split::new(
            GatedRead {
                half: read,
                gate: Arc::clone(&gate),
            },
            GatedWrite { half: write, gate },
        )
    }
}

#[async_trait::async_trait]
impl ReadHalf for GatedRead {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        if buffer.len() > LONGEST_MESSAGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "The message is too long",
            ));
        }
        drop(self.gate.lock().await);
        // Nobody needs a descriptor that comes along.
        let (count, _) = self.half.recvmsg(buffer).await?;
        Ok((count, Vec::new()))
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        self.half.peer_credentials().await
    }
}

#[async_trait::async_trait]
impl WriteHalf for GatedWrite {
    async fn sendmsg(&mut self, buffer: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let _turn = self.gate.lock().await;
        self.half.sendmsg(buffer, descriptors).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.half.close().await
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        self.half.peer_credentials().await
    }
}
