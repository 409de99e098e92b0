//! A small web server on loopback: counts requests, asks for a password, can be cut off.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running server of one folder; stopped when dropped.
pub struct Web {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    folder: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<String>,
    login: Option<String>,
    stopped: bool,
    open: Vec<TcpStream>,
    gather: usize,
    waiting: usize,
    most_waiting: usize,
}

impl Web {
    /// Serves the folder on a free port.
    pub fn serve(folder: &Path) -> Self {
        let mut web = Self {
            port: 0,
            shared: Arc::new(Shared {
                folder: folder.to_path_buf(),
                state: Mutex::new(State::default()),
                changed: Condvar::new(),
            }),
            thread: None,
        };
        web.resume();
        web
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Asks for this user and password from now on (`user:password` in base64).
    pub fn require(&self, base64: &str) {
        self.shared.state.lock().expect("lock").login = Some(format!("Basic {base64}"));
    }

    /// Holds back every package until so many are asked for at the same time, for 10 seconds at most.
    pub fn gather(&self, packages: usize) {
        self.shared.state.lock().expect("lock").gather = packages;
    }

    /// Returns how many packages were asked for at the same time, at most.
    pub fn most_at_once(&self) -> usize {
        self.shared.state.lock().expect("lock").most_waiting
    }

    /// Returns the paths asked for so far, and forgets them.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state.lock().expect("lock").requests)
    }

    /// Cuts the network: closes all connections and accepts no more.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        let open = {
            let mut state = self.shared.state.lock().expect("lock");
            state.stopped = true;
            std::mem::take(&mut state.open)
        };
        self.shared.changed.notify_all();
        for stream in open {
            stream.shutdown(Shutdown::Both).ok();
        }
        // Wakes the thread up from accept.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        thread.join().ok();
    }

    /// Serves again on the same port.
    pub fn resume(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).expect("port");
        self.port = listener.local_addr().expect("address").port();
        self.shared.state.lock().expect("lock").stopped = false;
        let shared = Arc::clone(&self.shared);
        self.thread = Some(std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut state = shared.state.lock().expect("lock");
                if state.stopped {
                    return;
                }
                state.open.push(stream.try_clone().expect("clone"));
                let shared = Arc::clone(&shared);
                // A client that goes away in the middle is no trouble of the test.
                std::thread::spawn(move || converse(stream, &shared).ok());
            }
        }));
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop();
    }
}

fn converse(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut answers = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(first) = lines.next() {
        let first = first?;
        let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut login = None;
        for line in lines.by_ref() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ") {
                if name.eq_ignore_ascii_case("authorization") {
                    login = Some(value.to_owned());
                }
            }
        }
        let allowed = {
            let mut state = shared.state.lock().expect("lock");
            state.requests.push(path.clone());
            state.login.is_none() || state.login == login
        };
        if path.ends_with(".deb") {
            shared.wait_for_others();
        }
        let content = if allowed { shared.read(&path) } else { None };
        let (status, body) = match content {
            _ if !allowed => (
                "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"",
                Vec::new(),
            ),
            None => ("404 Not Found", Vec::new()),
            Some(body) => ("200 OK", body),
        };
        write!(
            answers,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        answers.write_all(&body)?;
    }
    Ok(())
}

impl Shared {
    fn wait_for_others(&self) {
        let mut state = self.state.lock().expect("lock");
        state.waiting += 1;
        state.most_waiting = state.most_waiting.max(state.waiting);
        self.changed.notify_all();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, Duration::from_secs(10), |state| {
                !state.stopped && state.most_waiting < state.gather
            })
            .expect("lock");
        state.waiting -= 1;
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let path = path
            .trim_start_matches('/')
            .replace("%3a", ":")
            .replace("%25", "%");
        let inside = Path::new(&path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let file = self.folder.join(&path);
        if inside { std::fs::read(file).ok() } else { None }
    }
}
