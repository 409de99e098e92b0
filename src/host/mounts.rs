//! Mounts in a namespace of our own: a writable `/sysroot` that nobody else sees, and overlays over a tree.

use anyhow::{Context, Result};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

/// Moves the calling thread into a mount namespace of its own, from which no mount leaks back.
///
/// Threads started later by it are inside, other threads are not: a program calls this while it has one thread.
/// Fails without `CAP_SYS_ADMIN`. libostree then makes `/sysroot` and `/boot` writable in here only.
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

/// The folders of an overlay mount.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// What is seen where nothing was written, the uppermost first.
    pub lower: &'a [BorrowedFd<'a>],
    /// What was written.
    pub upper: BorrowedFd<'a>,
    /// An empty folder beside `upper`, for the kernel.
    pub work: BorrowedFd<'a>,
}

/// Mounts an overlay at `target` for one use: what is written is not synchronised to the disk.
///
/// The options leave a plain difference in `upper`: whole files, no redirected directories. Without an index, a file
/// that has several names in `lower` is copied alone when one of them is written to. Fails where the file system of
/// `upper` cannot hold an overlay's attributes.
pub fn overlay(folders: Overlay<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let lower: Vec<_> = folders.lower.iter().map(descriptor_path).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},index=off,metacopy=off,redirect_dir=off,xino=off,volatile",
        lower.join(":"),
        descriptor_path(&folders.upper),
        descriptor_path(&folders.work)
    );
    let options = CString::new(options)?;
    mount(
        "overlay",
        descriptor_path(&target),
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .context("Mounting an overlay")
}

/// Shows the folder `source` at the folder `target` too.
pub fn bind(source: impl AsFd, target: impl AsFd) -> Result<()> {
    mount_bind(descriptor_path(&source), descriptor_path(&target)).context("Binding a folder")
}

/// Takes away what is mounted at `path`, whoever still uses it; does not follow a link.
pub fn detach(path: &Path) -> Result<()> {
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .with_context(|| format!("Unmounting {}", path.display()))
}

/// Returns a path by which the kernel finds an open folder, whatever its own path consists of.
fn descriptor_path(folder: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd())
}
