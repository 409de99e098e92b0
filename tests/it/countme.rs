//! Counting: what a real server on loopback gets to see, and that it sees nothing when counting is off.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::home::Home;
use crate::support::machine::Machine;
use crate::support::registry::{Certificate, free_port, wait_for};
use crate::support::write;
use apt_ostree::host::runner::Cmd;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Output};

/// Answers every request with the status that a file names, and writes down what was asked.
const SERVER: &str = "
import http.server, ssl, sys
port, certificate, key, folder = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        with open(folder + '/requests', 'a') as log:
            log.write(self.requestline + '\\n' + str(self.headers))
        self.send_response(int(open(folder + '/status').read()))
        self.send_header('Content-Length', '0')
        self.end_headers()
    def log_message(self, *arguments):
        pass
server = http.server.HTTPServer(('127.0.0.1', int(port)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";

/// A counting server and a host with a place for its state.
struct Scene {
    machine: Machine,
    certificate: Certificate,
    home: Home,
    server: Child,
    port: u16,
}

impl Scene {
    fn new() -> Self {
        let (machine, certificate, home, port) = (
            Machine::deployed(),
            Certificate::valid(),
            Home::new(),
            free_port(),
        );
        write(home.path().join("status"), "200");
        write(home.path().join("requests"), "");
        let server = home
            .surroundings()
            .server_command("python3")
            .args(["-c", SERVER, &port.to_string()])
            .args([&certificate.file(), &certificate.key(), home.path()])
            .spawn()
            .unwrap();
        wait_for(port);
        let scene = Self {
            machine,
            certificate,
            home,
            server,
            port,
        };
        scene.set("enabled = true");
        scene
    }

    fn set(&self, text: &str) {
        let file = self.machine.root(0).join("etc/apt-ostree/config.d/50-test.toml");
        let url = format!("https://127.0.0.1:{}/count?from=test", self.port);
        write(file, format!("[countme]\nurl = \"{url}\"\n{text}\n"));
    }

    fn state(&self) -> std::path::PathBuf {
        self.home.path().join("state")
    }

    /// Runs the verb as its unit does, with the server's certificate among those that the machine trusts.
    fn run(&self) -> Output {
        let trust = "mount --bind \"$1\" /etc/ssl/certs/ca-certificates.crt && shift && exec \"$@\"";
        Cmd::new("unshare")
            .args(["--mount", "sh", "-c", trust, "sh"])
            .arg(self.certificate.file())
            .args([env!("CARGO_BIN_EXE_apt-ostree"), "--sysroot"])
            .arg(self.machine.sysroot.path())
            .arg("countme")
            .env("STATE_DIRECTORY", self.state())
            .output()
            .unwrap()
    }

    fn ok(&self) -> String {
        let output = self.run();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns what the server got since the last call.
    fn take_requests(&self) -> String {
        let file = self.home.path().join("requests");
        let text = std::fs::read_to_string(&file).unwrap();
        write(file, "");
        text
    }

    fn weeks(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.state().join("countme.json")).unwrap()).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

fn header_names(request: &str) -> Vec<String> {
    let mut names: Vec<String> = request
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, _)| name.to_lowercase())
        .collect();
    names.sort();
    names
}

#[test]
fn the_server_sees_what_the_document_says_once_a_week() {
    let scene = Scene::new();
    let out = scene.ok();
    assert!(out.starts_with("Counted: https://127.0.0.1:"), "{out}");
    let request = scene.take_requests();
    let arch = std::env::consts::ARCH;
    let first = request.lines().next().unwrap();
    assert_eq!(
        first,
        format!("GET /count?from=test&os=debian&version=1&arch={arch}&countme=1 HTTP/1.1")
    );
    assert!(
        request.contains(concat!(
            "\nUser-Agent: apt-ostree/",
            env!("CARGO_PKG_VERSION"),
            "\n"
        )),
        "{request}"
    );
    // No cookie, no name of the host, no id of anything: a header more must be added to the document.
    assert!(request.contains("\nAccept: text/*\n"), "{request}");
    assert_eq!(
        header_names(&request),
        ["accept", "host", "user-agent"],
        "{request}"
    );
    assert!(Path::new("/etc/machine-id").exists());

    let week = scene.weeks()["last-week"].as_u64().unwrap();
    assert!(scene.ok().contains("Counted in this week before"));
    assert_eq!(scene.take_requests(), "");
    // A month later.
    write(
        scene.state().join("countme.json"),
        json!({ "first-week": week - 5, "last-week": week - 1 }).to_string(),
    );
    scene.ok();
    assert!(scene.take_requests().contains("&countme=3 HTTP/1.1"));
    assert_eq!(
        scene.weeks(),
        json!({ "first-week": week - 5, "last-week": week })
    );
    // A clock that was wrong does not count twice.
    write(
        scene.state().join("countme.json"),
        json!({ "first-week": week, "last-week": week + 1 }).to_string(),
    );
    scene.ok();
    assert_eq!(scene.take_requests(), "");
}

#[test]
fn nothing_is_sent_when_counting_is_off() {
    let scene = Scene::new();
    for text in ["enabled = false", ""] {
        scene.set(text);
        assert!(scene.ok().contains("Counting is off"), "{text}");
        assert_eq!(scene.take_requests(), "");
        assert!(!scene.state().exists(), "nothing is kept either");
    }
}

#[test]
fn a_host_that_could_not_be_counted_tries_again() {
    let scene = Scene::new();
    write(scene.home.path().join("status"), "503");
    let output = scene.run();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && errors.contains("503"),
        "{errors}"
    );
    assert!(!scene.state().join("countme.json").exists());
    scene.take_requests();
    write(scene.home.path().join("status"), "204");
    scene.ok();
    assert!(scene.take_requests().contains("&countme=1 "));
}

#[test]
fn a_server_that_nothing_proves_gets_nothing() {
    let scene = Scene::new();
    let output = scene
        .machine
        .command(&["countme"])
        .env("STATE_DIRECTORY", scene.state())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(scene.take_requests(), "");
}
