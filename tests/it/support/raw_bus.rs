//! A client that writes bytes of its own choice to a bus or to the socket of a transaction.

use super::bus::stream_as;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use zbus::Message;

/// How long a peer may take before the test says that it does not react.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection of which nothing is known but that it is there.
pub struct Raw(pub UnixStream);

impl Raw {
    /// Connects as any user and says nothing.
    pub fn connect(socket: &Path, uid: u32) -> Self {
        let stream = stream_as(socket, uid);
        stream.set_read_timeout(Some(PATIENCE)).expect("a stream");
        stream.set_write_timeout(Some(PATIENCE)).expect("a stream");
        Self(stream)
    }

    /// Connects and says who it is.
    pub fn greeted(socket: &Path, uid: u32) -> Self {
        let mut raw = Self::connect(socket, uid);
        let id = hex::encode(uid.to_string());
        raw.write(format!("\0AUTH EXTERNAL {id}\r\n").as_bytes())
            .expect("room");
        assert!(raw.line().starts_with("OK "), "refused");
        raw.write(b"BEGIN\r\n").expect("room");
        raw
    }

    /// Connects to a bus, where a greeting of its own follows; returns the name there.
    pub fn on_bus(socket: &Path, uid: u32) -> Self {
        let mut raw = Self::greeted(socket, uid);
        let hello = Message::method_call("/org/freedesktop/DBus", "Hello").expect("a call");
        let hello = hello.destination("org.freedesktop.DBus").expect("a name");
        let hello = hello.interface("org.freedesktop.DBus").expect("an interface");
        raw.send(&hello.build(&()).expect("a message")).expect("room");
        raw
    }

    /// Writes bytes; fails when the other side is gone or takes nothing for long.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Writes a message.
    pub fn send(&mut self, message: &Message) -> std::io::Result<()> {
        self.write(message.data())
    }

    /// Waits until the other side closes the connection; what it writes before is passed over.
    pub fn wait_for_end(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("the connection is not closed: {error}"),
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            self.0.read_exact(&mut byte).expect("an answer");
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("a text")
    }
}
