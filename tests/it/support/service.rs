//! The service on a bus of its own, for a scratch host.

use super::bus::{Bus, connect_to_transaction, wait_until};
use super::machine::Machine;
use apt_ostree::daemon::proxy::{self, Transaction};
use apt_ostree::ops::request::Request;
use ostree_ext::{gio, ostree};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::borrow::Borrow;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};

/// The name that the service takes.
pub const NAME: &str = "org.aptostree.dev";

/// A user without rights of its own: `nobody`. The bus lets in only whom the machine knows.
pub const USER: u32 = 65534;

/// Another one: `daemon`.
pub const OTHER: u32 = 1;

/// A running service for a host; stopped when dropped.
pub struct Service<M: Borrow<Machine> = Machine> {
    pub machine: M,
    pub bus: Bus,
    child: Option<Child>,
}

impl Service {
    /// Starts the service for a host that runs version 1 of its image.
    pub fn start() -> Self {
        Self::of(Machine::deployed())
    }
}

impl<M: Borrow<Machine>> Service<M> {
    /// Starts the service for a host.
    pub fn of(machine: M) -> Self {
        let mut service = Self {
            machine,
            bus: Bus::start(),
            child: None,
        };
        service.restart(&[]);
        service
    }

    /// Starts the service with more variables in its environment; waits until it has its name.
    pub fn restart(&mut self, environment: &[(&str, &str)]) {
        self.stop();
        self.child = Some(self.spawn(environment));
        self.bus.wait_for_owner(NAME, true);
    }

    /// Starts another process of the service.
    #[expect(clippy::disallowed_methods, reason = "the program runs beside the test")]
    pub fn spawn(&self, environment: &[(&str, &str)]) -> Child {
        let home = &self.machine.borrow().home;
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        std::process::Command::new(env!("CARGO_BIN_EXE_apt-ostreed"))
            .arg("--sysroot")
            .arg(self.machine.borrow().sysroot.path())
            .arg("--bus")
            .arg(self.bus.address())
            .arg("--run-dir")
            .arg(self.run_dir())
            .env("HOME", home.path())
            .env("XDG_RUNTIME_DIR", home.path().join("run"))
            .env(
                "CONTAINERS_REGISTRIES_CONF",
                home.path().join(".config/containers/registries.conf"),
            )
            .env("CONTAINERS_STORAGE_CONF", home.storage())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the log"))
            .spawn()
            .expect("the service")
    }

    /// Returns where the sockets of transactions are.
    pub fn run_dir(&self) -> PathBuf {
        self.bus.path().join("run")
    }

    /// Returns where the service and its processes write what they log.
    pub fn log(&self) -> PathBuf {
        self.bus.path().join("service.log")
    }

    /// Returns the process id of the service.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running service").id()
    }

    /// Asks the service to end and waits for that.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::TERM)
    }

    /// Kills the service.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::KILL)
    }

    /// Waits until the service ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child
            .take()
            .expect("a running service")
            .wait()
            .expect("its status")
    }

    fn signal(&mut self, signal: Signal) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).ok()?)?;
        kill_process(pid, signal).ok();
        child.wait().ok()
    }

    /// Returns a client of this user.
    pub fn client(&self, uid: u32) -> Client {
        let bus = self.bus.connect_as(uid);
        Client {
            service: proxy::Service::on(bus.clone()).unwrap_or_else(|error| panic!("{error:#}")),
            bus,
            uid,
        }
    }

    /// Holds the lock of the sysroot, so that transactions wait.
    pub fn hold_lock(&self) -> Held {
        let sysroot = ostree::Sysroot::new(Some(&gio::File::for_path(self.machine.borrow().sysroot.path())));
        sysroot.load(gio::Cancellable::NONE).expect("the sysroot");
        assert!(
            sysroot.try_lock().expect("the lock"),
            "somebody else has the lock"
        );
        Held(sysroot)
    }

    /// Returns the processes that carry out transactions of this service.
    pub fn workers(&self) -> Vec<Pid> {
        let parent = format!("PPid:\t{}", self.pid());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_worker = command.ends_with(b"--worker\0");
            if is_worker && status.lines().any(|line| line == parent) {
                let pid = entry.file_name().to_string_lossy().parse().expect("a process id");
                found.push(Pid::from_raw(pid).expect("a process id"));
            }
        }
        found
    }

    /// Waits until nothing is left of transactions but what a watcher may still read.
    pub fn wait_until_idle(&self) {
        let client = self.client(0);
        wait_until("the end of the transaction", || {
            client.service.active().expect("an answer").is_none()
        });
    }
}

impl<M: Borrow<Machine>> Drop for Service<M> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The lock of the sysroot; given back when dropped.
pub struct Held(ostree::Sysroot);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

/// One user's connection to the service.
pub struct Client {
    pub service: proxy::Service,
    pub bus: zbus::blocking::Connection,
    uid: u32,
}

impl Client {
    /// Returns the name on the bus.
    pub fn name(&self) -> String {
        self.bus.unique_name().expect("a name").to_string()
    }

    /// Asks for a change and returns the transaction's address.
    pub fn ask(&self, verb: &str, options: Value) -> anyhow::Result<String> {
        self.service.ask(&request(verb, options), &verb.replace('-', " "))
    }

    /// Attaches to a transaction.
    pub fn attach(&self, address: &str) -> Transaction {
        Transaction::on(connect_to_transaction(address, self.uid))
    }

    /// Asks for a change that must be granted, and attaches to its transaction.
    pub fn begin(&self, verb: &str, options: Value) -> Transaction {
        let address = self
            .ask(verb, options)
            .unwrap_or_else(|error| panic!("{error:#}"));
        self.attach(&address)
    }
}

/// Returns a request that makes sense.
pub fn request(verb: &str, options: Value) -> Request {
    let request = Request::parse(verb, options.as_object().expect("an object"));
    request.unwrap_or_else(|fault| panic!("{fault}"))
}
