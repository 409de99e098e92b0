//! A TCP relay before a registry: it counts what is asked and plays a failing network.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the relay does with the next connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Hands everything on.
    Pass,
    /// Breaks each connection after this many bytes of answers.
    CutAfter(u64),
    /// Stops handing on after this many bytes of answers, and keeps the connection open.
    HangAfter(u64),
    /// Hands on little at a time after this many bytes of answers, until the behaviour changes.
    SlowAfter(u64),
    /// Accepts connections and closes them at once.
    Refuse,
}

/// A running relay; stopped when dropped.
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    behaviour: Mutex<Behaviour>,
    cuts_left: Mutex<Option<usize>>,
    requests: Mutex<Vec<String>>,
    stopped: AtomicBool,
}

impl Relay {
    /// Starts a relay to a port of the loopback device; it hands everything on at first.
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("port");
        let port = listener.local_addr().expect("address").port();
        let shared = Arc::new(Shared {
            target: SocketAddr::from(([127, 0, 0, 1], target)),
            behaviour: Mutex::new(Behaviour::Pass),
            cuts_left: Mutex::new(None),
            requests: Mutex::new(Vec::new()),
            stopped: AtomicBool::new(false),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || serve(&listener, &shared)
        });
        Self {
            port,
            shared,
            thread: Some(thread),
        }
    }

    /// Returns the relay's location, `127.0.0.1:PORT`.
    pub fn location(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the reference by which a host follows an image through the relay, without signature.
    pub fn reference(&self, image: &str) -> String {
        format!("ostree-unverified-registry:{}/{image}", self.location())
    }

    /// Changes what happens to connections from now on, and to open ones at their next bytes.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().expect("lock") = behaviour;
        *self.shared.cuts_left.lock().expect("lock") = None;
    }

    /// Does so for the next `times` connections that reach the trouble, and hands everything on after them.
    pub fn behave_times(&self, behaviour: Behaviour, times: usize) {
        *self.shared.behaviour.lock().expect("lock") = behaviour;
        *self.shared.cuts_left.lock().expect("lock") = Some(times);
    }

    /// Returns the request lines seen so far, for example `GET /v2/os/manifests/1`, and forgets them.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.requests.lock().expect("lock"))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread up from accept.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        if shared.trouble(0) == Some(Behaviour::Refuse) {
            continue;
        }
        let Ok(server) = TcpStream::connect(shared.target) else {
            continue;
        };
        let upwards = (
            client.try_clone().expect("clone"),
            server.try_clone().expect("clone"),
        );
        let shared_upwards = Arc::clone(shared);
        std::thread::spawn(move || ask(upwards.0, upwards.1, &shared_upwards));
        let shared = Arc::clone(shared);
        std::thread::spawn(move || answer(server, client, &shared));
    }
}

fn ask(mut client: TcpStream, mut server: TcpStream, shared: &Shared) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = client.read(&mut buffer) {
        if count == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&buffer[..count]);
        for line in text.lines() {
            if let Some(request) = line.strip_suffix(" HTTP/1.1") {
                shared.requests.lock().expect("lock").push(request.to_owned());
            }
        }
        if server.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    server.shutdown(Shutdown::Write).ok();
}

fn answer(mut server: TcpStream, mut client: TcpStream, shared: &Shared) {
    let mut buffer = [0; 16 * 1024];
    let mut sent = 0;
    while let Ok(count) = server.read(&mut buffer) {
        if count == 0 {
            break;
        }
        sent += count as u64;
        match shared.trouble(sent) {
            Some(Behaviour::HangAfter(_)) => {
                while !shared.stopped.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(50));
                }
                break;
            }
            Some(Behaviour::SlowAfter(_)) => {
                // 16 KiB in 0.2 s at most, and the rest at once when that is over.
                for _ in 0..10 {
                    if shared.trouble(sent).is_some() && !shared.stopped.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
            Some(_) => break,
            None => {}
        }
        if client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    client.shutdown(Shutdown::Both).ok();
    server.shutdown(Shutdown::Both).ok();
}

impl Shared {
    /// Returns the trouble that a connection with so many bytes of answers is in.
    fn trouble(&self, sent: u64) -> Option<Behaviour> {
        let mut behaviour = self.behaviour.lock().expect("lock");
        let reached = match *behaviour {
            Behaviour::Pass => false,
            Behaviour::CutAfter(limit) | Behaviour::HangAfter(limit) | Behaviour::SlowAfter(limit) => {
                sent > limit
            }
            Behaviour::Refuse => true,
        };
        if !reached {
            return None;
        }
        let trouble = *behaviour;
        let mut left = self.cuts_left.lock().expect("lock");
        if let Some(left) = &mut *left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                *behaviour = Behaviour::Pass;
            }
        }
        Some(trouble)
    }
}
