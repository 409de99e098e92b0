//! Mount namespaces: how a writer gets a writable `/sysroot` that nobody else sees.

use anyhow::{Context, Result};
use rustix::mount::{MountPropagationFlags, mount_change};

/// Moves the calling thread into a mount namespace of its own, from which no mount leaks back.
///
/// Must be called while the process has one thread; threads started later are inside. Fails without
/// `CAP_SYS_ADMIN`. libostree then makes `/sysroot` and `/boot` writable in here only.
#[expect(
    unsafe_code,
    reason = "rustix marks unshare unsafe because of descriptor tables, which are not unshared here"
)]
pub fn enter_private() -> Result<()> {
    // SAFETY: only NEWNS is asked for, so memory and descriptor tables stay shared and no Rust invariant changes.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
        .context("Entering a private mount namespace")?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .context("Making the mounts of the private namespace private")
}
