//! Standard error while a library that writes to it runs.

use anyhow::{Context, Result};
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;

/// Runs `action` with standard error going to the log, line by line, under the target `libostree`.
///
/// libostree 2022.7 prints a note for each folder below `/var` of a commit that it deploys. Nobody can act on these
/// (`container prepare` made the folders on purpose), and they would stand between our lines and in the JSON stream.
/// Nothing else of this process may write to standard error meanwhile.
pub fn to_log<T>(action: impl FnOnce() -> Result<T>) -> Result<T> {
    let collected = rustix::fs::memfd_create("apt-ostree-stderr", MemfdFlags::CLOEXEC)
        .context("Making a place for what libostree prints")?;
    let mut collected = File::from(collected);
    let before =
        Restore(rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3).context("Keeping standard error")?);
    rustix::stdio::dup2_stderr(&collected).context("Redirecting standard error")?;
    let outcome = action();
    drop(before);
    let mut text = String::new();
    collected.rewind().context("Reading what libostree printed")?;
    collected
        .read_to_string(&mut text)
        .context("Reading what libostree printed")?;
    for line in text.lines() {
        tracing::info!(target: "libostree", "{line}");
    }
    outcome
}

/// Puts the former standard error back when dropped, on a panic as well.
struct Restore(OwnedFd);

impl Drop for Restore {
    fn drop(&mut self) {
        if let Err(error) = rustix::stdio::dup2_stderr(&self.0) {
            tracing::error!("Standard error could not be put back: {error}");
        }
    }
}
