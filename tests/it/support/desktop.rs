//! A system bus of its own with stand-ins for the services of a desktop, which speak what is asked of the real ones.

use super::home::Home;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use zbus::blocking::Connection;
use zbus::blocking::connection::Builder;
use zbus::zvariant::OwnedObjectPath;

/// A running dbus-daemon; ended when dropped.
pub struct Bus {
    daemon: Child,
    address: String,
    _home: Home,
}

/// `NMMetered`.
#[derive(Clone, Copy, Debug)]
pub enum Metered {
    Unknown,
    Yes,
    No,
    GuessYes,
    GuessNo,
}

/// A session: its id, user, class and state.
pub type Session = (&'static str, &'static str, &'static str, &'static str);

struct NetworkManager(u32);

#[zbus::interface(name = "org.freedesktop.NetworkManager")]
impl NetworkManager {
    #[zbus(property)]
    fn metered(&self) -> u32 {
        self.0
    }
}

struct Logind(Vec<Session>);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Logind {
    fn list_sessions(&self) -> Vec<(String, u32, String, String, OwnedObjectPath)> {
        let of = |(id, user, _, _): &Session| {
            (
                (*id).to_owned(),
                1000,
                (*user).to_owned(),
                "seat0".to_owned(),
                path(id),
            )
        };
        self.0.iter().map(of).collect()
    }
}

struct LoginSession(Session);

#[zbus::interface(name = "org.freedesktop.login1.Session")]
impl LoginSession {
    #[zbus(property)]
    fn class(&self) -> &str {
        self.0.2
    }

    #[zbus(property)]
    fn state(&self) -> &str {
        self.0.3
    }
}

impl Bus {
    /// Starts a bus that lets everybody own and call everything.
    pub fn start() -> Self {
        let home = Home::new();
        let configuration = home.path().join("bus.conf");
        super::write(
            &configuration,
            format!(
                "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
                 <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
                 <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
                home.path().join("bus").display()
            ),
        );
        let mut daemon = home
            .surroundings()
            .server_command("dbus-daemon")
            .arg(format!("--config-file={}", configuration.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon");
        let mut address = String::new();
        let output = daemon.stdout.take().expect("a pipe");
        BufReader::new(output)
            .read_line(&mut address)
            .expect("an address");
        Self {
            daemon,
            address: address.trim().to_owned(),
            _home: home,
        }
    }

    /// Returns what `DBUS_SYSTEM_BUS_ADDRESS` has to be.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Starts NetworkManager, until what this returns is dropped.
    pub fn network_manager(&self, metered: Metered) -> Connection {
        let name = "org.freedesktop.NetworkManager";
        let manager = NetworkManager(metered as u32);
        let builder = self.builder().name(name).expect("a name");
        let builder = builder.serve_at("/org/freedesktop/NetworkManager", manager);
        builder.expect("an object").build().expect("NetworkManager")
    }

    /// Starts logind with these sessions, until what this returns is dropped.
    pub fn logind(&self, sessions: &[Session]) -> Connection {
        let builder = self.builder().name("org.freedesktop.login1").expect("a name");
        let mut builder = builder
            .serve_at("/org/freedesktop/login1", Logind(sessions.to_vec()))
            .expect("an object");
        for session in sessions {
            builder = builder
                .serve_at(path(session.0), LoginSession(*session))
                .expect("an object");
        }
        builder.build().expect("logind")
    }

    fn builder(&self) -> Builder<'static> {
        Builder::address(self.address()).expect("an address")
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

fn path(session: &str) -> OwnedObjectPath {
    let path = format!("/org/freedesktop/login1/session/_3{session}");
    OwnedObjectPath::try_from(path).expect("a path")
}
