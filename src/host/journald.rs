//! systemd's journal: one entry with fields of our own, in the journal's native protocol.
//!
//! A datagram holds lines `FIELD=value`; a value with a line break is preceded by its length instead.

use anyhow::{Context, Result};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where journald listens; absent where it does not run, as in a container build.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Bytes of a value that are sent; a datagram with a handful of them stays below the kernel's limit.
const LONGEST_VALUE: usize = 8192;

/// Sends one entry to the journal behind `socket`; where nothing listens there is nobody to tell.
///
/// Fails when journald refuses the entry. Field names consist of capital letters, digits and underscores.
pub fn send(socket: &Path, fields: &[(&str, String)]) -> Result<()> {
    if !socket.exists() {
        return Ok(());
    }
    let mut datagram = Vec::new();
    for (name, value) in fields {
        put(&mut datagram, name, value);
    }
    UnixDatagram::unbound()
        .and_then(|sender| sender.send_to(&datagram, socket))
        .with_context(|| format!("Telling the journal at {}", socket.display()))?;
    Ok(())
}

fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    let mut end = value.len().min(LONGEST_VALUE);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = &value.as_bytes()[..end];
    datagram.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value);
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_line_breaks_cannot_forge_fields() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        send(&path, &[]).unwrap();
        let journal = UnixDatagram::bind(&path).unwrap();
        let long = "ä".repeat(LONGEST_VALUE);
        let fields = [
            ("MESSAGE", "one line".to_owned()),
            ("TITLE", "two\n_UID=0".to_owned()),
            ("LONG", long.clone()),
        ];
        send(&path, &fields).unwrap();
        let mut bytes = vec![0; 1 << 16];
        let length = journal.recv(&mut bytes).unwrap();
        let expected = [
            b"MESSAGE=one line\nTITLE\n\x0a\0\0\0\0\0\0\0two\n_UID=0\nLONG=".as_slice(),
            &long.as_bytes()[..LONGEST_VALUE],
            b"\n",
        ]
        .concat();
        assert_eq!(&bytes[..length], expected);
    }
}
