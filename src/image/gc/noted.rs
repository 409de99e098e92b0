//! Commits that came or lost a ref since the last collection, one checksum per line of a file.
//!
//! A commit whose ref moves on before a collection sees it would be found by listing every object only. A line too many
//! does no harm, and one too few leaves a commit to the next full collection.

use super::index;
use crate::host::durable;
use crate::tree::Checksum;
use anyhow::{Context, Result};
use ostree_ext::ostree;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

const NAME: &str = "new-commits";

/// Tells the next collection of commits that are about to be published, inside their transaction, so that no collection
/// runs; or of commits that are about to lose a ref.
///
/// A repository in which that cannot be written does not fail for it: the next collection is then no worse than
/// a full one.
pub fn note<'a>(repo: &ostree::Repo, commits: impl IntoIterator<Item = &'a str>) {
    let commits: Result<BTreeSet<Checksum>> = commits.into_iter().map(str::parse).collect();
    let noted = commits.and_then(|commits| match commits.is_empty() {
        true => Ok(()),
        false => append(index::open_folder(repo.dfd_borrow())?.as_fd(), &commits),
    });
    if let Err(error) = noted {
        tracing::warn!("new commits are left to a full collection: {error:#}");
    }
}

/// Adds commits to the file of a folder.
pub(super) fn append(folder: BorrowedFd<'_>, commits: &BTreeSet<Checksum>) -> Result<()> {
    let text: String = commits.iter().map(|commit| format!("{commit}\n")).collect();
    let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(folder, NAME, flags, Mode::from_raw_mode(0o600));
    File::from(file.with_context(|| format!("Opening {NAME}"))?)
        .write_all(text.as_bytes())
        .with_context(|| format!("Writing {NAME}"))
}

/// Returns the commits in the file of a folder.
///
/// Fails when something else is in it, or more than anyone pulls between two collections.
pub(super) fn load(folder: BorrowedFd<'_>) -> Result<BTreeSet<Checksum>> {
    let bytes = durable::read(folder, NAME)?.unwrap_or_default();
    std::str::from_utf8(&bytes)?
        .lines()
        .map(|line| line.parse().with_context(|| format!("Reading {NAME}")))
        .collect()
}

/// Removes the file: a collection has seen to all commits in it.
pub(super) fn clear(folder: BorrowedFd<'_>) -> Result<()> {
    durable::remove(folder, NAME)
}
