//! What no importer of compressed layers can be faster than: reading and inflating them, and hashing what comes out.
//!
//! usage: bench_floor inflate|hash BLOB...
//!
//! Takes as many layers at a time as there are processors, the largest first, with the inflaters that the program uses.
//! `hash` adds SHA-256 of the compressed bytes and of the inflated ones: each is needed once, for the digest of the
//! layer and for the names of the objects. Prints the inflated bytes.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Mutex;

#[path = "../../src/image/gzip.rs"]
mod gzip;

const BLOCK: usize = 256 * 1024;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let with_hash = match arguments.next().as_deref() {
        Some("inflate") => false,
        Some("hash") => true,
        _ => bail!("usage: bench_floor inflate|hash BLOB..."),
    };
    let mut blobs = Vec::new();
    for path in arguments {
        blobs.push((std::fs::metadata(&path)?.len(), path));
    }
    blobs.sort_unstable();
    let queue = Mutex::new(blobs);
    let take = || queue.lock().ok()?.pop();
    let work = || -> Result<u64> {
        let mut total = 0;
        while let Some((_, path)) = take() {
            total += inflate(&path, with_hash).with_context(|| path.clone())?;
        }
        Ok(total)
    };
    let total = std::thread::scope(|scope| -> Result<u64> {
        let cores = std::thread::available_parallelism()?.get();
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut total = 0;
        for thread in threads {
            match thread.join() {
                Ok(done) => total += done?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(total)
    })?;
    writeln!(std::io::stdout(), "{total}")?;
    Ok(())
}

/// Reads one layer to its end; returns how many bytes came out.
fn inflate(path: &str, with_hash: bool) -> Result<u64> {
    let mut compressed = BufReader::with_capacity(
        BLOCK,
        Hashed {
            inner: File::open(path)?,
            hash: with_hash.then(Sha256::new),
        },
    );
    let is_gzip = compressed.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let mut inflated: Box<dyn Read> = if is_gzip {
        Box::new(gzip::Gzip::new(&mut compressed))
    } else {
        Box::new(zstd::stream::read::Decoder::with_buffer(&mut compressed)?)
    };
    let mut hash = with_hash.then(Sha256::new);
    let mut block = vec![0; BLOCK];
    let mut total = 0;
    loop {
        let read = inflated.read(&mut block)?;
        if read == 0 {
            break;
        }
        total += read as u64;
        if let Some(hash) = &mut hash {
            hash.update(&block[..read]);
        }
    }
    std::hint::black_box(hash.map(Sha256::finalize));
    drop(inflated);
    std::hint::black_box(compressed.into_inner().hash.map(Sha256::finalize));
    Ok(total)
}

/// Hashes what is read through it.
struct Hashed {
    inner: File,
    hash: Option<Sha256>,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..read]);
        }
        Ok(read)
    }
}
