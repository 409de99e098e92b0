//! The connection to the bus, over which nobody can send more than the service has room for.
//!
//! A bus hands on what anybody sends, up to 32 MiB, and a list of bytes needs a hundred times its room once it is a
//! list of values. So a message longer than [`LONGEST_MESSAGE`] is never held: its body is passed over, and what is left
//! is a call without its arguments, which is answered with an error. One whose head alone is longer is passed over.

use crate::fault::{Fault, Kind};
use anyhow::{Context, Result};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::address::transport::{Transport, UnixSocket};
use zbus::connection::socket::{ReadHalf, Socket, Split};
use zbus::fdo::ConnectionCredentials;
use zbus::{Address, Connection, Message};

/// The longest message that is read: a request with thousands of names fits in.
const LONGEST_MESSAGE: usize = 128 << 10;

/// The part of a message that says how long the others are.
const START: usize = 16;

/// Where that part has the length of the body.
const BODY: std::ops::Range<usize> = 4..8;

/// Where that part has the length of the fields that follow it.
const FIELDS: std::ops::Range<usize> = 12..16;

/// Connects to the bus at `address`, or to the system bus.
///
/// Fails when it does not answer, and for an address that is no path of a socket.
pub(super) async fn connect(address: Option<&str>) -> Result<Connection> {
    let path = path(address)?;
    let connect = async {
        let stream = UnixStream::connect(&path).await?;
        let builder = zbus::connection::Builder::socket(Bounded(stream));
        anyhow::Ok(builder.build().await?)
    };
    connect
        .await
        .with_context(|| format!("Connecting to the bus at {}", path.display()))
}

fn path(address: Option<&str>) -> Result<PathBuf> {
    let address = match address {
        Some(address) => address.try_into(),
        None => Address::system(),
    };
    let address = address.context("Finding the bus")?;
    if let Transport::Unix(unix) = address.transport() {
        if let UnixSocket::File(path) = unix.path() {
            return Ok(path.clone());
        }
    }
    Err(Fault::new(
        Kind::Unsupported,
        format!("The bus at `{address}` is not one that a socket in the file system leads to"),
    )
    .into())
}

#[derive(Debug)]
struct Bounded(UnixStream);

#[derive(Debug)]
struct BoundedRead(OwnedReadHalf);

impl Socket for Bounded {
    type ReadHalf = BoundedRead;
    type WriteHalf = OwnedWriteHalf;

    fn split(self) -> Split<BoundedRead, OwnedWriteHalf> {
        let (read, write) = self.0.into_split();
        Split::new(BoundedRead(read), write)
    }
}

impl BoundedRead {
    async fn fill(&mut self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let (count, came_along) = self.0.recvmsg(&mut buffer[done..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            descriptors.extend(came_along);
            done += count;
        }
        Ok(())
    }

    async fn pass_over(&mut self, count: usize, descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
        let mut buffer = vec![0; count.min(LONGEST_MESSAGE)];
        let mut left = count;
        while left > 0 {
            let part = left.min(buffer.len());
            self.fill(&mut buffer[..part], descriptors).await?;
            left -= part;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl ReadHalf for BoundedRead {
    async fn receive_message(
        &mut self,
        number: u64,
        read: &mut Vec<u8>,
        descriptors: &mut Vec<OwnedFd>,
    ) -> zbus::Result<Message> {
        // A bus sends nothing before it is greeted, so that nothing was read together with the handshake.
        while read.is_empty() {
            let mut head = vec![0; START];
            self.fill(&mut head, descriptors).await?;
            let (fields, body) = lengths(&head);
            if fields + body <= LONGEST_MESSAGE {
                *read = head;
            } else if fields <= LONGEST_MESSAGE {
                head.resize(START + fields, 0);
                self.fill(&mut head[START..], descriptors).await?;
                self.pass_over(body, descriptors).await?;
                head[BODY].fill(0);
                *read = head;
            } else {
                self.pass_over(fields + body, descriptors).await?;
                descriptors.clear();
            }
        }
        self.0.receive_message(number, read, descriptors).await
    }

    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.0.recvmsg(buffer).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        self.0.can_pass_unix_fd()
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        self.0.peer_credentials().await
    }
}

/// Returns how long the fields are, with what fills them up to a multiple of eight, and how long the body is.
fn lengths(start: &[u8]) -> (usize, usize) {
    let number = |range: std::ops::Range<usize>| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&start[range]);
        let number = match start[0] {
            b'B' => u32::from_be_bytes(bytes),
            _ => u32::from_le_bytes(bytes),
        };
        number as usize
    };
    (number(FIELDS).next_multiple_of(8), number(BODY))
}
