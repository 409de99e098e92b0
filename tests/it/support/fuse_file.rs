//! One file whose content a thread of this process makes up, mounted through FUSE over a file.
//!
//! The kernel's protocol is spoken directly: the root of the file system is the file itself, so that there is no name
//! to look up and a handful of requests are all there are. Without the write-back cache, and with direct I/O, a write
//! returns to its caller when [`Content::write`] has returned, and requests are answered one after the other.

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// What a file holds; offsets and lengths are in bytes.
pub trait Content: Send + 'static {
    /// Returns how long the file is.
    fn size(&self) -> u64;
    /// Returns so many bytes from there.
    fn read(&mut self, offset: u64, length: usize) -> std::io::Result<Vec<u8>>;
    /// Writes bytes there.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()>;
    /// Makes a range zeros, whether it is discarded or overwritten.
    fn zero(&mut self, offset: u64, length: u64) -> std::io::Result<()>;
    /// Makes everything written before durable.
    fn flush(&mut self) -> std::io::Result<()>;
}

/// A served file; no longer there when dropped.
pub struct FuseFile {
    place: PathBuf,
    server: Option<JoinHandle<()>>,
}

impl FuseFile {
    /// Mounts `content` over the file `place`; the test fails where the machine has no FUSE.
    pub fn serve(place: &Path, content: impl Content) -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device =
            device.unwrap_or_else(|error| panic!("/dev/fuse is missing, which this test needs: {error}"));
        let options = format!(
            "fd={},rootmode=100600,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        let options = CString::new(options).expect("no zero byte");
        rustix::mount::mount("volatile", place, "fuse", MountFlags::NODEV, options.as_c_str())
            .unwrap_or_else(|error| {
                panic!("FUSE cannot be mounted, which this test needs (and root): {error}")
            });
        let server = std::thread::Builder::new().name("fuse".to_owned());
        let server = server
            .spawn(move || Server { device, content }.run())
            .expect("a thread");
        Self {
            place: place.to_owned(),
            server: Some(server),
        }
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        // Forced: the connection ends even while somebody still has the file open, and so does the thread.
        let flags = UnmountFlags::FORCE | UnmountFlags::DETACH;
        let unmounted = rustix::mount::unmount(&self.place, flags);
        if let (Ok(()), Some(server)) = (unmounted, self.server.take()) {
            drop(server.join());
        }
    }
}

// Requests, from the kernel's <linux/fuse.h>.
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
const FALLOCATE: u32 = 43;

/// Version of the protocol that is spoken: 7.31.
const VERSION: [u32; 2] = [7, 31];
const BIG_WRITES: u32 = 1 << 5;
const MAX_PAGES: u32 = 1 << 22;
const LARGEST_WRITE: u32 = 1 << 20;
const PAGE: u32 = 4096;
const OPEN_DIRECT_IO: u32 = 1;
const PUNCH_HOLE: u32 = 0x02;
const ZERO_RANGE: u32 = 0x10;

const REQUEST_HEAD: usize = 40;
const WRITE_HEAD: usize = 40;

struct Server<C> {
    device: File,
    content: C,
}

impl<C: Content> Server<C> {
    /// Answers until the file system is unmounted.
    fn run(mut self) {
        let mut buffer = vec![0; LARGEST_WRITE as usize + 2 * PAGE as usize];
        loop {
            let length = match self.device.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // A request that was given up before it could be read.
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => continue,
                Err(_) => return,
            };
            let request = Request(&buffer[..length]);
            if matches!(request.operation(), FORGET | BATCH_FORGET | INTERRUPT) {
                continue;
            }
            let (error, payload) = match self.answer(&request) {
                Ok(payload) => (0, payload),
                Err(error) => (
                    error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()),
                    Vec::new(),
                ),
            };
            let mut reply = Reply::default();
            reply.word((16 + payload.len()) as u32).word((-error) as u32);
            reply.long(request.unique());
            reply.0.extend(payload);
            // Fails for a caller that was killed meanwhile, and after the last unmount, which the next read tells.
            drop(self.device.write(&reply.0));
        }
    }

    fn answer(&mut self, request: &Request<'_>) -> std::io::Result<Vec<u8>> {
        let mut reply = Reply::default();
        match request.operation() {
            INIT => {
                reply.words(&VERSION).words(&[PAGE * 32, BIG_WRITES | MAX_PAGES]);
                // Requests in the background, and how many of them are many; the kernel's own figures.
                reply.words(&[12 | 9 << 16, LARGEST_WRITE, 1, LARGEST_WRITE / PAGE]);
                reply.words(&[0; 8]);
            }
            GETATTR => {
                let size = self.content.size();
                // No validity in time: asked every time.
                reply.long(0).words(&[0, 0]);
                reply.long(1).long(size).long(size / 512);
                reply.long(0).long(0).long(0).words(&[0; 3]);
                reply.words(&[0o100_600, 1, 0, 0, 0, PAGE, 0]);
            }
            OPEN => {
                reply.long(0).words(&[OPEN_DIRECT_IO, 0]);
            }
            READ => reply.0 = self.content.read(request.long(8), request.word(16) as usize)?,
            WRITE => {
                let length = request.word(16);
                let bytes = &request.body()[WRITE_HEAD..][..length as usize];
                self.content.write(request.long(8), bytes)?;
                reply.words(&[length, 0]);
            }
            FALLOCATE if request.word(24) & (PUNCH_HOLE | ZERO_RANGE) != 0 => {
                self.content.zero(request.long(8), request.long(16))?;
            }
            FALLOCATE => return Err(Errno::OPNOTSUPP.into()),
            FSYNC => self.content.flush()?,
            RELEASE | FLUSH | DESTROY => {}
            _ => return Err(Errno::NOSYS.into()),
        }
        Ok(reply.0)
    }
}

/// A request: a head of 40 bytes and a body whose fields are at known offsets.
struct Request<'a>(&'a [u8]);

impl Request<'_> {
    fn operation(&self) -> u32 {
        u32::from_ne_bytes(self.0[4..8].try_into().expect("four bytes"))
    }

    fn unique(&self) -> u64 {
        u64::from_ne_bytes(self.0[8..16].try_into().expect("eight bytes"))
    }

    fn body(&self) -> &[u8] {
        &self.0[REQUEST_HEAD..]
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.body()[at..at + 4].try_into().expect("four bytes"))
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.body()[at..at + 8].try_into().expect("eight bytes"))
    }
}

#[derive(Default)]
struct Reply(Vec<u8>);

impl Reply {
    fn word(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn words(&mut self, values: &[u32]) -> &mut Self {
        values.iter().fold(self, |reply, value| reply.word(*value))
    }

    fn long(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
}
