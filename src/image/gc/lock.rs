//! libostree's lock of a repository, for this process alone.
//!
//! A transaction shares the lock, a prune has it alone: what one counts on, the other must not remove.

use anyhow::{Context, Result};
use ostree_ext::glib::translate::{ToGlibPtr, from_glib_full};
use ostree_ext::{glib, ostree};
use std::marker::PhantomData;

/// The lock, until it is dropped. libostree keeps account of its locks by thread, so it stays on the one that took it;
/// there the same repository may be locked again, as a prune does.
#[derive(Debug)]
pub(super) struct RepositoryLock<'a> {
    repo: &'a ostree::Repo,
    on_this_thread: PhantomData<*const ()>,
}

impl<'a> RepositoryLock<'a> {
    /// Waits as long as the repository's configuration says until no transaction runs.
    ///
    /// Fails when that time is over.
    pub(super) fn alone(repo: &'a ostree::Repo) -> Result<Self> {
        call(repo, ostree::ffi::ostree_repo_lock_push).context("Locking the repository")?;
        Ok(Self {
            repo,
            on_this_thread: PhantomData,
        })
    }
}

impl Drop for RepositoryLock<'_> {
    fn drop(&mut self) {
        if let Err(error) = call(self.repo, ostree::ffi::ostree_repo_lock_pop) {
            tracing::warn!("unlocking the repository: {error}");
        }
    }
}

type LockFunction = unsafe extern "C" fn(
    *mut ostree::ffi::OstreeRepo,
    ostree::ffi::OstreeRepoLockType,
    *mut ostree_ext::gio::ffi::GCancellable,
    *mut *mut glib::ffi::GError,
) -> glib::ffi::gboolean;

#[expect(
    unsafe_code,
    reason = "the bindings leave out the two functions of the lock, which libostree has had since 2021.3"
)]
fn call(repo: &ostree::Repo, function: LockFunction) -> Result<(), glib::Error> {
    let mut error = std::ptr::null_mut();
    // SAFETY: `repo` lives as long as the borrow, no cancellable is allowed by both functions, and `error` is theirs to
    // set when they return false.
    let done = unsafe {
        function(
            repo.to_glib_none().0,
            ostree::ffi::OSTREE_REPO_LOCK_EXCLUSIVE,
            std::ptr::null_mut(),
            &raw mut error,
        )
    };
    if done != glib::ffi::GFALSE {
        return Ok(());
    }
    // SAFETY: a call that returned false has set the error and leaves it to the caller.
    Err(unsafe { from_glib_full(error) })
}
