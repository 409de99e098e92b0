//! A message bus for one test, with the policy that ships, and connections of any user to it.

use super::write;
use rustix::process::{Gid, Uid};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use zbus::blocking::{Connection, connection, fdo::DBusProxy};

/// The rules of a system bus, which those that ship are added to.
const RULES: &str = r#"
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
  </policy>
  <policy user="root">
    <allow own="org.freedesktop.PolicyKit1"/>
  </policy>
"#;

/// A bus of the type `system`; stopped when dropped.
pub struct Bus {
    directory: TempDir,
    child: Child,
}

impl Bus {
    /// Starts a bus without any service.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        // Other users connect.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("mode");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/dbus/org.aptostree.dev.conf");
        let configuration = directory.path().join("bus.conf");
        write(
            &configuration,
            format!(
                "<busconfig>\n  <type>system</type>\n  <listen>unix:path={}</listen>\n  <auth>EXTERNAL</auth>{RULES}\
                 \n  <include>{}</include>\n</busconfig>\n",
                directory.path().join("bus").display(),
                shipped.display()
            ),
        );
        let mut child = start(
            "dbus-daemon",
            &["--nofork", "--nopidfile", "--nosyslog", "--print-address"],
            &configuration,
        );
        let mut answer = std::io::BufReader::new(child.stdout.take().expect("standard output"));
        let mut address = String::new();
        std::io::BufRead::read_line(&mut answer, &mut address).expect("the address of the bus");
        assert!(address.starts_with("unix:path="), "{address}");
        Self { directory, child }
    }

    /// Returns the directory of the bus, which every user may enter.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the socket.
    pub fn socket(&self) -> PathBuf {
        self.path().join("bus")
    }

    /// Returns the address.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// Connects as root.
    pub fn connect(&self) -> Connection {
        self.connect_as(0)
    }

    /// Connects as any user.
    pub fn connect_as(&self, uid: u32) -> Connection {
        builder(stream_as(&self.socket(), uid), uid)
            .build()
            .expect("a connection to the bus")
    }

    /// Connects as any user, from within a runtime.
    pub async fn join(&self, uid: u32) -> zbus::Connection {
        let stream = stream_as(&self.socket(), uid);
        stream.set_nonblocking(true).expect("a stream");
        let stream = tokio::net::UnixStream::from_std(stream).expect("a stream");
        let builder = zbus::connection::Builder::unix_stream(stream).user_id(uid);
        builder.build().await.expect("a connection to the bus")
    }

    /// Returns who owns a name.
    pub fn owner(&self, name: &str) -> Option<String> {
        let bus = self.connect();
        let proxy = DBusProxy::new(&bus).expect("a proxy");
        let owner = proxy.get_name_owner(name.try_into().expect("a name"));
        owner.ok().map(|owner| owner.to_string())
    }

    /// Waits until somebody owns a name, or nobody does.
    pub fn wait_for_owner(&self, name: &str, owned: bool) {
        wait_until(&format!("the owner of {name}"), || {
            self.owner(name).is_some() == owned
        });
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until something is the case that other processes bring about.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Connects to a socket with the user id of another user, in a thread that nobody uses for anything else.
pub fn stream_as(socket: &Path, uid: u32) -> UnixStream {
    let socket = socket.to_owned();
    let connect = move || {
        if uid != 0 {
            rustix::thread::set_thread_groups(&[]).expect("groups");
            rustix::thread::set_thread_gid(Gid::from_raw(uid)).expect("group");
            rustix::thread::set_thread_uid(Uid::from_raw(uid)).expect("user");
        }
        UnixStream::connect(&socket)
    };
    let connected = std::thread::spawn(connect).join().expect("the thread");
    connected.expect("a connection")
}

/// Returns a builder for a connection over a stream of this user.
pub fn builder(stream: UnixStream, uid: u32) -> connection::Builder<'static> {
    stream.set_nonblocking(true).expect("a stream");
    let stream = zbus::block_on(async { tokio::net::UnixStream::from_std(stream) }).expect("a stream");
    connection::Builder::unix_stream(stream).user_id(uid)
}

/// Connects to a transaction as any user.
pub fn connect_to_transaction(address: &str, uid: u32) -> Connection {
    let path = address
        .strip_prefix("unix:path=")
        .expect("the address of a transaction");
    let builder = builder(stream_as(Path::new(path), uid), uid).p2p();
    builder.build().expect("a connection to the transaction")
}

#[expect(clippy::disallowed_methods, reason = "the program runs beside the test")]
fn start(program: &str, arguments: &[&str], configuration: &Path) -> Child {
    std::process::Command::new(program)
        .args(arguments)
        .arg("--config-file")
        .arg(configuration)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}
