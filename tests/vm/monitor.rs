//! QEMU's monitor (QMP): status, saving and restoring the state of a machine.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A connection to the monitor.
pub(crate) struct Monitor {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Monitor {
    /// Connects within the time given; returns nothing when QEMU has ended or does not answer.
    pub(crate) fn try_connect(socket: &Path, patience: Duration) -> Option<Self> {
        let stream = connect(socket, patience)?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let mut monitor = Self {
            reader: BufReader::new(stream.try_clone().ok()?),
            writer: stream,
        };
        monitor.read()?;
        monitor.ask("qmp_capabilities", json!({}))?;
        Some(monitor)
    }

    /// Returns what the machine does: `running`, `paused`, `inmigrate`, `internal-error` ...
    pub(crate) fn status(&mut self) -> Option<String> {
        let answer = self.ask("query-status", json!({}))?;
        Some(answer["status"].as_str()?.to_owned())
    }

    /// Stops the machine and writes its memory and devices to `file`.
    pub(crate) fn save(&mut self, file: &Path) {
        self.command("stop", json!({}));
        self.command(
            "migrate",
            json!({ "uri": format!("exec:cat > {}", file.display()) }),
        );
        self.wait(|monitor| {
            let answer = monitor.command("query-migrate", json!({}));
            assert_ne!(answer["status"], "failed", "{answer}");
            answer["status"] == "completed"
        });
    }

    /// Lets a machine that was started with `-incoming` go on once it is complete.
    pub(crate) fn resume(&mut self) {
        self.wait(|monitor| monitor.status().as_deref() == Some("paused"));
        self.command("cont", json!({}));
    }

    fn wait(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(
                start.elapsed() < Duration::from_secs(120),
                "QEMU neither saves nor restores"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn command(&mut self, name: &str, arguments: Value) -> Value {
        self.ask(name, arguments)
            .unwrap_or_else(|| panic!("QEMU does not answer {name}"))
    }

    fn ask(&mut self, name: &str, arguments: Value) -> Option<Value> {
        writeln!(
            self.writer,
            "{}",
            json!({ "execute": name, "arguments": arguments })
        )
        .ok()?;
        loop {
            let mut answer = self.read()?;
            if let Some(value) = answer.get_mut("return") {
                return Some(value.take());
            }
            assert!(answer.get("error").is_none(), "{name}: {answer}");
        }
    }

    fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}

/// Connects to a socket that a program just started is about to make.
pub(crate) fn connect(socket: &Path, patience: Duration) -> Option<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Some(stream),
            Err(_) if start.elapsed() < patience => std::thread::sleep(Duration::from_millis(50)),
            Err(_) => return None,
        }
    }
}
