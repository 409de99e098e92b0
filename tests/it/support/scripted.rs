//! A web server on loopback that answers as a test says, rightly or not, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// One request: its first line without the version, and its headers in lower case.
#[derive(Clone, Debug)]
pub struct Request {
    /// For example `GET /v2/`.
    pub line: String,
    /// By name.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    /// Returns a header's value, empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Returns the bytes asked for by `Range: bytes=A-B`.
    pub fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.header("range").strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse::<usize>().ok()? + 1))
    }
}

/// Returns an answer with a status, further header lines and a body.
pub fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        text += &format!("{header}\r\n");
    }
    text += "\r\n";
    [text.as_bytes(), body].concat()
}

/// Returns the right answer to a request for a range of `blob`.
pub fn part(request: &Request, blob: &[u8]) -> Vec<u8> {
    let (first, end) = request.range().expect("a range");
    let range = format!("Content-Range: bytes {first}-{}/{}", end - 1, blob.len());
    answer("206 Partial Content", &[&range], &blob[first..end])
}

type Script = dyn Fn(&Request) -> Vec<u8> + Send + Sync;

struct Shared {
    script: Box<Script>,
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    stopped: AtomicBool,
}

/// A running server; stopped when dropped.
pub struct Scripted {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Starts a server that sends what `script` returns, byte by byte; an empty answer closes the connection.
    pub fn start(script: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("port");
        let port = listener.local_addr().expect("address").port();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while let Ok((stream, _)) = listener.accept() {
                    if shared.stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || shared.converse(&stream));
                }
            }
        });
        Self {
            port,
            shared,
            thread: Some(thread),
        }
    }

    /// Returns the server's location, `127.0.0.1:PORT`.
    pub fn location(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the requests so far and forgets them.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.requests.lock().expect("lock"))
    }

    /// Returns over how many connections requests came.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread up from accept.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn converse(&self, stream: &TcpStream) {
        let mut lines = BufReader::new(stream).lines();
        let mut asked = 0;
        // What is no text is a greeting of TLS; whoever tries that sees the connection close.
        while let Some(Ok(first)) = lines.next() {
            let mut headers = BTreeMap::new();
            for line in lines.by_ref().map_while(Result::ok) {
                let Some((name, value)) = line.split_once(": ") else {
                    break;
                };
                headers.insert(name.to_ascii_lowercase(), value.to_owned());
            }
            let Some((line, "HTTP/1.1")) = first.rsplit_once(' ') else {
                break;
            };
            let line = line.to_owned();
            let request = Request { line, headers };
            if asked == 0 {
                self.connections.fetch_add(1, Ordering::SeqCst);
            }
            asked += 1;
            let answer = (self.script)(&request);
            self.requests.lock().expect("lock").push(request);
            let mut stream = stream;
            if answer.is_empty() || stream.write_all(&answer).is_err() {
                break;
            }
        }
        stream.shutdown(Shutdown::Both).ok();
    }
}
