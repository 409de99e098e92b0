//! The agent in the guest: a shell that reads one command a line from a virtio port.
//!
//! systemd from version 256 takes the unit from SMBIOS, so that the image under test is not touched. An older one
//! finds it in the test image. A line is base64; the answer ends with `@@RC STATUS`; each boot says `@@READY BOOT-ID`.

use crate::monitor::connect;
use apt_ostree::host::runner::Cmd;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The unit; also what `hack/vm-test` puts into images for systemd before 256.
const UNIT: &str = include_str!("vmagent.service");

/// A connection to the guest's shell.
pub(crate) struct Agent {
    lines: Receiver<String>,
    writer: UnixStream,
}

impl Agent {
    /// Connects to the port; what passes is also written to `log`.
    pub(crate) fn connect(socket: &Path, log: &Path) -> Self {
        let stream = connect(socket, Duration::from_secs(10)).expect("QEMU's agent socket");
        let reader = stream.try_clone().expect("agent socket");
        let mut log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("agent.log");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            // The end of QEMU or of the test ends this thread.
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches(['\n', '\r'])
                    .to_owned();
                line.clear();
                if writeln!(log, "{text}").is_err() || sender.send(text).is_err() {
                    break;
                }
            }
        });
        Self {
            lines,
            writer: stream,
        }
    }

    /// Waits until a boot announces itself and returns its id.
    pub(crate) fn ready(&mut self, patience: Duration) -> Option<String> {
        let end = Instant::now() + patience;
        loop {
            let line = self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
                .ok()?;
            if let Some(id) = line.strip_prefix("@@READY ") {
                return Some(id.to_owned());
            }
        }
    }

    /// Runs a script in the guest and returns its status and what it wrote; nothing when the time is over.
    pub(crate) fn run(&mut self, script: &str, patience: Duration) -> Option<(i32, String)> {
        self.send(script);
        let end = Instant::now() + patience;
        let mut text = String::new();
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    // The last line of the script's output may lack its end.
                    if let Some((before, status)) = line.split_once("@@RC ") {
                        text += before;
                        return Some((status.trim().parse().ok()?, text));
                    }
                    text += &line;
                    text.push('\n');
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Starts a script whose end nobody waits for.
    pub(crate) fn send(&mut self, script: &str) {
        let line = encode(script);
        writeln!(self.writer, "{line}").expect("agent socket");
    }
}

/// Returns the SMBIOS strings that bring the agent to a guest with systemd 256 or newer.
pub(crate) fn credentials() -> Vec<String> {
    let credential = |name: &str, text: &str| format!("io.systemd.credential.binary:{name}={}", encode(text));
    vec![
        credential("systemd.extra-unit.vmagent.service", UNIT),
        credential(
            "systemd.unit-dropin.multi-user.target",
            "[Unit]\nWants=vmagent.service\n",
        ),
        credential("journal.storage", "persistent"),
    ]
}

fn encode(text: &str) -> String {
    Cmd::new("base64")
        .arg("--wrap=0")
        .input(text)
        .run_text()
        .expect("base64")
}
