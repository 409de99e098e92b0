//! How much an import may still write: the file system's free space less what the repository keeps free.

use crate::fault::{Fault, Kind};
use anyhow::{Context, Result};
use ostree_ext::ostree;
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI64, Ordering};

/// A block of the file systems this runs on; every object takes whole ones.
const BLOCK: u64 = 4096;

/// The free space, counted down by writers and looked up again when it seems used up.
#[derive(Debug)]
pub struct Space {
    folder: OwnedFd,
    reserve: u64,
    left: AtomicI64,
}

impl Space {
    /// Looks at the file system of a repository and at the space the repository keeps free.
    pub fn of(repo: &ostree::Repo) -> Result<Self> {
        let folder = repo.dfd_borrow().try_clone_to_owned()?;
        let reserve = repo
            .min_free_space_bytes()
            .context("Reading min-free-space of the repository")?;
        let space = Self {
            folder,
            reserve,
            left: AtomicI64::new(0),
        };
        space.left.store(signed(space.available()?), Ordering::Relaxed);
        Ok(space)
    }

    /// Returns how many bytes may be written now.
    pub fn available(&self) -> Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.folder).context("Looking up free space")?;
        Ok((stat.f_bavail * stat.f_frsize).saturating_sub(self.reserve))
    }

    /// Fails when `needed` bytes, for `what`, do not fit.
    pub fn require(&self, needed: u64, what: &str) -> Result<()> {
        let available = self.available()?;
        if needed <= available {
            return Ok(());
        }
        Err(no_space(format!(
            "{what} needs at least {}, and {} are available",
            readable(needed),
            readable(available)
        ))
        .into())
    }

    /// Takes the space of an object of `size` bytes.
    ///
    /// Fails when the repository's reserve would be touched.
    pub fn take(&self, size: u64) -> Result<()> {
        let blocks = signed(size.div_ceil(BLOCK) * BLOCK);
        if self.left.fetch_sub(blocks, Ordering::Relaxed) >= blocks {
            return Ok(());
        }
        // What was taken for objects that turned out to exist is free again, and others free space as well.
        let available = signed(self.available()?);
        if available < blocks {
            return Err(no_space(format!(
                "The repository's file system is full: a file of {} does not fit into {}",
                readable(size),
                readable(available.unsigned_abs())
            ))
            .into());
        }
        self.left.store(available - blocks, Ordering::Relaxed);
        Ok(())
    }
}

/// Turns a full disk, reported by the system anywhere below, into the fault that says so.
pub fn explain_full_disk(error: anyhow::Error) -> anyhow::Error {
    if Fault::find(&error).is_some() {
        return error;
    }
    let is_full = error.chain().any(|cause| {
        let number = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
            .or_else(|| cause.downcast_ref::<Errno>().map(|errno| errno.raw_os_error()));
        number.is_some_and(|number| [Errno::NOSPC, Errno::DQUOT].contains(&Errno::from_raw_os_error(number)))
            || cause
                .downcast_ref::<ostree_ext::glib::Error>()
                .is_some_and(|error| error.matches(ostree_ext::gio::IOErrorEnum::NoSpace))
    });
    if is_full {
        tracing::debug!("full disk: {error:#}");
        return no_space("The repository's file system is full".to_owned()).into();
    }
    error
}

fn no_space(message: String) -> Fault {
    Fault::new(Kind::NoSpace, message)
        .hint("free space, for example with `apt-ostree cleanup -b -m` or `apt-ostree image prune`")
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn readable(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {unit}")
    }
}
