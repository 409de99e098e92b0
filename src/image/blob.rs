//! One blob on its way from skopeo to whoever unpacks it.
//!
//! A task of the runtime fetches and hashes; the reader takes what it brings. When a transfer breaks off, the
//! task fetches the blob again and skips what was delivered already, so the reader sees one unbroken stream.
//! The digest is of the bytes that were delivered, so a stream pieced together is as safe as a whole one.
//!
//! Traps of skopeo's protocol before 0.2.8 (Debian 12 and 13): the pipe sees its end only after `FinishPipe`,
//! and `FinishPipe` blocks all other requests until the transfer is over. So exactly `size` bytes are read
//! first; only when nothing comes for a while is `FinishPipe` sent early, to learn whether the transfer failed.

use crate::fault::{Fault, Kind};
use crate::image::retry::{Failure, Limits};
use crate::image::session::{Feature, Session};
use anyhow::Result;
use oci_spec::image::Digest;
use sha2::{Digest as _, Sha256};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::mpsc;

/// Bytes per piece handed from the fetching task to the reader.
const PIECE: usize = 256 * 1024;

/// Pieces that wait for a slow reader at most.
const WAITING_PIECES: usize = 4;

/// The size asked for the pipe between skopeo and this program.
const PIPE: usize = 1024 * 1024;

/// Reads a blob to exactly its size.
///
/// Asynchronous through `AsyncRead`, and for plain threads through `std::io::Read`, which must not be called
/// on a thread that runs the tokio runtime. An error of the reader only says that the blob ended early; the
/// driver that came with it tells why.
#[derive(Debug)]
pub struct Blob {
    pieces: mpsc::Receiver<Vec<u8>>,
    used: mpsc::UnboundedSender<Vec<u8>>,
    piece: Vec<u8>,
    position: usize,
    remaining: u64,
}

impl Blob {
    /// Returns a reader of `size` bytes and the end that feeds it.
    pub(crate) fn channel(size: u64) -> (Self, Feed) {
        let (sender, pieces) = mpsc::channel(WAITING_PIECES);
        let (used, reusable) = mpsc::unbounded_channel();
        let blob = Self {
            pieces,
            used,
            piece: Vec::new(),
            position: 0,
            remaining: size,
        };
        (blob, Feed { sender, reusable })
    }

    fn next_bytes(&mut self, buffer_length: usize) -> &[u8] {
        let start = self.position;
        let length = buffer_length.min(self.piece.len() - start);
        self.position += length;
        self.remaining -= length as u64;
        &self.piece[start..start + length]
    }

    /// Takes in the next piece; nothing more to come is an error unless the blob is complete.
    fn accept(&mut self, piece: Option<Vec<u8>>) -> io::Result<()> {
        let old = std::mem::take(&mut self.piece);
        self.position = 0;
        if old.capacity() > 0 {
            // The fetching task may have ended already; then nobody wants the buffer back.
            self.used.send(old).ok();
        }
        match piece {
            Some(piece) => self.piece = piece,
            None if self.remaining == 0 => {}
            None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
        Ok(())
    }
}

impl AsyncRead for Blob {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.remaining > 0 && self.position == self.piece.len() {
            let Poll::Ready(piece) = self.pieces.poll_recv(cx) else {
                return Poll::Pending;
            };
            self.accept(piece)?;
        }
        let piece = self.next_bytes(buffer.remaining());
        buffer.put_slice(piece);
        Poll::Ready(Ok(()))
    }
}

impl io::Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.remaining > 0 && self.position == self.piece.len() {
            let piece = self.pieces.blocking_recv();
            self.accept(piece)?;
        }
        let piece = self.next_bytes(buffer.len());
        buffer[..piece.len()].copy_from_slice(piece);
        Ok(piece.len())
    }
}

/// The end that feeds a [`Blob`].
#[derive(Debug)]
pub(crate) struct Feed {
    sender: mpsc::Sender<Vec<u8>>,
    reusable: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Feed {
    fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.reusable.try_recv().unwrap_or_default();
        buffer.resize(PIECE, 0);
        buffer
    }
}

/// How far a blob has come, over all attempts.
#[derive(Debug)]
pub(crate) struct Transfer {
    digest: Digest,
    size: u64,
    delivered: u64,
    hasher: Sha256,
    feed: Feed,
}

impl Transfer {
    /// Returns a transfer with nothing delivered.
    ///
    /// Fails for digests other than SHA-256, the only ones that images in use have.
    pub(crate) fn new(digest: &Digest, size: u64, feed: Feed) -> Result<Self, Fault> {
        if !digest.to_string().starts_with("sha256:") {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("The layer {digest} is named by a digest other than sha256"),
            ));
        }
        Ok(Self {
            digest: digest.clone(),
            size,
            delivered: 0,
            hasher: Sha256::new(),
            feed,
        })
    }

    /// Returns how many bytes the reader was given.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Fetches the blob through `session` from its begin and delivers what was not delivered before.
    pub(crate) async fn attempt(&mut self, session: &Session, limits: &Limits) -> Result<(), Failure> {
        if session.has(Feature::RawBlob) {
            self.attempt_raw(session, limits).await
        } else {
            self.attempt_piped(session, limits).await
        }
    }

    /// Delivers the blob from a local file; blocks.
    pub(crate) fn read_file(mut self, mut file: std::fs::File) -> Result<()> {
        let length = file.metadata()?.len();
        if length != self.size {
            return Err(self.wrong_size(&length.to_string()).into());
        }
        while self.delivered < self.size {
            let mut buffer = self.feed.buffer();
            let count = io::Read::read(&mut file, &mut buffer)?;
            if count == 0 {
                return Err(self.wrong_size(&self.delivered.to_string()).into());
            }
            self.take_in(&mut buffer, 0, count);
            let sent = self.feed.sender.blocking_send(buffer);
            sent.map_err(|_| self.unread())?;
        }
        self.verify().map_err(Into::into)
    }

    async fn attempt_raw(&mut self, session: &Session, limits: &Limits) -> Result<(), Failure> {
        let (proxy, image, pending) = session.lend();
        let request = proxy.get_raw_blob(image, &self.digest);
        let (size, mut pipe, verdict) = match tokio::time::timeout(limits.answer, request).await {
            Ok(answer) => answer.map_err(|error| session.failure(error))?,
            Err(_) => return Err(self.stalled(limits.answer)),
        };
        if size.is_some_and(|size| size != self.size) {
            return Err(Failure::last(
                self.wrong_size(&size.unwrap_or_default().to_string()),
            ));
        }
        // An unprivileged user may be over the limit for pipes; the default size works too.
        rustix::pipe::fcntl_setpipe_size(&pipe, PIPE).ok();
        let mut position = 0;
        while position < self.size {
            let mut buffer = self.feed.buffer();
            let count = match tokio::time::timeout(limits.stall, pipe.read(&mut buffer)).await {
                Ok(count) => count.map_err(Failure::transient)?,
                Err(_) => {
                    session.kill();
                    return Err(self.stalled(limits.stall));
                }
            };
            if count == 0 {
                verdict.await.map_err(|error| session.failure(error.into()))?;
                pending.done();
                return Err(self.ended_early(position));
            }
            position = self.advance(buffer, position, count).await?;
        }
        let extra = pipe.read(&mut [0u8; 1]).await.map_err(Failure::transient)?;
        drop(pipe);
        if extra > 0 {
            return Err(Failure::last(self.wrong_size("more")));
        }
        verdict.await.map_err(|error| session.failure(error.into()))?;
        pending.done();
        self.verify().map_err(Failure::last)
    }

    async fn attempt_piped(&mut self, session: &Session, limits: &Limits) -> Result<(), Failure> {
        let (proxy, image, pending) = session.lend();
        let request = proxy.get_blob(image, &self.digest, self.size);
        let (mut pipe, mut finish) = match tokio::time::timeout(limits.answer, request).await {
            Ok(answer) => answer.map_err(|error| session.failure(error))?,
            Err(_) => return Err(self.stalled(limits.answer)),
        };
        crate::host::pipes::enlarge(PIPE);
        let mut finished = false;
        let mut position = 0;
        let mut last_byte = Instant::now();
        while position < self.size {
            let mut buffer = self.feed.buffer();
            let count = if finished {
                pipe.read(&mut buffer).await.map_err(Failure::transient)?
            } else if last_byte.elapsed() < limits.ask_after {
                match tokio::time::timeout(limits.ask_after, pipe.read(&mut buffer)).await {
                    Ok(count) => count.map_err(Failure::transient)?,
                    Err(_) => continue,
                }
            } else {
                tokio::select! {
                    biased;
                    count = pipe.read(&mut buffer) => count.map_err(Failure::transient)?,
                    outcome = &mut finish => {
                        outcome.map_err(|error| session.failure(error))?;
                        finished = true;
                        continue;
                    }
                    () = tokio::time::sleep(limits.stall.saturating_sub(last_byte.elapsed())) => {
                        session.kill();
                        return Err(self.stalled(limits.stall));
                    }
                }
            };
            if count == 0 {
                pending.done();
                return Err(self.ended_early(position));
            }
            position = self.advance(buffer, position, count).await?;
            last_byte = Instant::now();
        }
        // A blob longer than announced would block skopeo, and with it the next request, were the pipe kept open.
        drop(pipe);
        self.verify().map_err(Failure::last)?;
        if !finished {
            match tokio::time::timeout(limits.answer, finish).await {
                Ok(Ok(())) => {}
                // All bytes are here and have the right digest, so what skopeo refuses can only be the rest.
                Ok(Err(error)) => {
                    tracing::debug!("skopeo about {}: {error}", self.digest);
                    pending.done();
                    return Err(Failure::last(self.wrong_size("more")));
                }
                Err(_) => {
                    session.kill();
                    return Err(self.stalled(limits.answer));
                }
            }
        }
        pending.done();
        Ok(())
    }

    /// Delivers the part of `buffer[..count]`, which begins at `position` of the blob, that is new and belongs
    /// to the blob; returns the position behind it.
    async fn advance(&mut self, buffer: Vec<u8>, position: u64, count: usize) -> Result<u64, Failure> {
        let end = (position + count as u64).min(self.size);
        if end > self.delivered {
            let first = usize::try_from(self.delivered.saturating_sub(position)).map_err(Failure::last)?;
            let last = usize::try_from(end - position).map_err(Failure::last)?;
            self.deliver(buffer, first, last).await.map_err(Failure::last)?;
        }
        Ok(end)
    }

    async fn deliver(&mut self, mut buffer: Vec<u8>, first: usize, last: usize) -> Result<(), Fault> {
        self.take_in(&mut buffer, first, last);
        self.feed.sender.send(buffer).await.map_err(|_| self.unread())
    }

    /// Counts and hashes `buffer[first..last]` and leaves nothing else in the buffer.
    fn take_in(&mut self, buffer: &mut Vec<u8>, first: usize, last: usize) {
        self.hasher.update(&buffer[first..last]);
        self.delivered += (last - first) as u64;
        buffer.truncate(last);
        if first > 0 {
            buffer.drain(..first);
        }
    }

    fn unread(&self) -> Fault {
        Fault::new(
            Kind::Cancelled,
            format!("Nobody reads the layer {} any more", self.digest),
        )
    }

    fn verify(&self) -> Result<(), Fault> {
        let found = format!("sha256:{}", hex::encode(self.hasher.clone().finalize()));
        if found == self.digest.to_string() {
            return Ok(());
        }
        Err(Fault::new(
            Kind::Invalid,
            format!(
                "The layer {} is corrupt: its content has the digest {found}",
                self.digest
            ),
        )
        .hint("push the image again, and check the registry's storage"))
    }

    fn wrong_size(&self, found: &str) -> Fault {
        Fault::new(
            Kind::Invalid,
            format!(
                "The layer {} is corrupt: the manifest announces {} bytes, the source has {found}",
                self.digest, self.size
            ),
        )
        .hint("push the image again, and check the registry's storage")
    }

    fn ended_early(&self, position: u64) -> Failure {
        Failure::transient(Fault::new(
            Kind::Unreachable,
            format!(
                "The layer {} ended after {position} of {} bytes",
                self.digest, self.size
            ),
        ))
    }

    fn stalled(&self, limit: std::time::Duration) -> Failure {
        Failure::transient(Fault::new(
            Kind::Unreachable,
            format!(
                "The layer {} stalled: no byte for {} seconds, after {} of {}",
                self.digest,
                limit.as_secs_f32(),
                self.delivered,
                self.size
            ),
        ))
    }
}
