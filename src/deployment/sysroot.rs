//! A sysroot: opened for reading by anyone, locked for writing by one.
//!
//! Invariants: nothing is written without a [`WriteLock`], and what a writer decides on is read after locking.

use crate::deployment::journal::{self, Journal};
use crate::fault::{Fault, Kind};
use crate::host::{environment, lock};
use crate::report::Report;
use anyhow::{Context, Result};
use fn_error_context::context;
use ostree_ext::{gio, ostree};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to wait between two tries to take the lock.
const RETRY: Duration = Duration::from_millis(250);

/// The name of the stateroot of a host that was made without naming one.
pub const DEFAULT_STATEROOT: &str = "debian";

/// A loaded sysroot.
#[derive(Debug)]
pub struct Host {
    sysroot: ostree::Sysroot,
    path: PathBuf,
    journal: Option<Journal>,
    /// Whether libostree has read what is deployed; before, it must not be asked.
    is_loaded: Cell<bool>,
}

/// The right to change a sysroot; given back when dropped.
#[derive(Debug)]
pub struct WriteLock<'a> {
    host: &'a Host,
}

/// What to do while somebody else holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Say who holds it and wait.
    Wait,
    /// Say who holds it and fail.
    Fail,
}

impl Host {
    /// Opens the sysroot at `path`, or the one this machine booted from.
    ///
    /// Needs neither root nor the lock. `verb` is named in the guidance when there is no sysroot. With `writes`
    /// the process must already be in a mount namespace of its own, where libostree makes `/sysroot` writable.
    pub fn open(path: Option<&Path>, verb: &str, writes: bool) -> Result<Self> {
        let host = Self::open_unloaded(path, verb, writes)?;
        host.load()?;
        if path.is_none() && host.booted().is_none() {
            return Err(environment::guidance(&host.path, verb, false).into());
        }
        Ok(host)
    }

    /// Opens a sysroot as [`Host::open`] does, and does not ask libostree yet what is deployed.
    ///
    /// Until [`Host::load`] succeeded it has no deployments, and its repository must not be asked for.
    pub fn open_unloaded(path: Option<&Path>, verb: &str, writes: bool) -> Result<Self> {
        let real = path.unwrap_or(Path::new("/")).to_path_buf();
        if path.is_none() && !real.join("run/ostree-booted").exists() {
            return Err(environment::guidance(&real, verb, false).into());
        }
        if !real.join("ostree/repo").is_dir() {
            return Err(match path {
                None => environment::guidance(&real, verb, false),
                Some(path) => Fault::new(
                    Kind::NotFound,
                    format!("{} is not a sysroot: it has no ostree/repo", path.display()),
                )
                .hint(format!(
                    "make one with `apt-ostree provision to-filesystem --image REF {}`",
                    path.display()
                )),
            }
            .into());
        }
        let sysroot = ostree::Sysroot::new(Some(&gio::File::for_path(&real)));
        if writes {
            sysroot.set_mount_namespace_in_use();
        }
        Ok(Self {
            sysroot,
            path: real,
            journal: None,
            is_loaded: Cell::new(false),
        })
    }

    /// Lets libostree read what is deployed; fails on a sysroot that it refuses.
    pub fn load(&self) -> Result<()> {
        self.sysroot
            .load(gio::Cancellable::NONE)
            .with_context(|| format!("Loading the sysroot {}", self.path.display()))?;
        self.is_loaded.set(true);
        Ok(())
    }

    /// Lets the transaction journal begin its record when the sysroot is locked, and announce there what is published.
    #[must_use]
    pub fn journalled(mut self, journal: &Journal) -> Self {
        self.journal = Some(journal.clone());
        self
    }

    /// Returns the journal of the transaction that uses this sysroot.
    pub(super) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Takes the lock, waiting or failing as `patience` says while another process holds it.
    ///
    /// Fails when the caller is not root or the sysroot cannot be written. State read before this call may be
    /// stale; the sysroot is loaded again here. Transactions that were interrupted are told of and closed, and the
    /// record of this one begins: that fails on a full disk.
    pub fn lock(&self, verb: &str, patience: Patience, report: &dyn Report) -> Result<WriteLock<'_>> {
        let lock = self.acquire(verb, patience, report)?;
        if let Err(error) = journal::recover_locked(&lock, report) {
            report.warning(&format!("{error:#}."));
        }
        if let Some(journal) = &self.journal {
            journal.begin(&lock, report)?;
        }
        Ok(lock)
    }

    /// Takes the lock of a sysroot that libostree may refuse, to mend it: interrupted transactions are left as they are.
    pub fn lock_to_mend(&self, verb: &str, patience: Patience, report: &dyn Report) -> Result<WriteLock<'_>> {
        let lock = self.acquire_unloaded(verb, patience, report)?;
        if let Some(journal) = &self.journal {
            journal.begin(&lock, report)?;
        }
        Ok(lock)
    }

    /// Takes the lock, reads again what is deployed, and does no more.
    pub(super) fn acquire(
        &self,
        verb: &str,
        patience: Patience,
        report: &dyn Report,
    ) -> Result<WriteLock<'_>> {
        let lock = self.acquire_unloaded(verb, patience, report)?;
        self.sysroot
            .load_if_changed(gio::Cancellable::NONE)
            .context("Loading the sysroot again")?;
        Ok(lock)
    }

    #[context("Locking the sysroot")]
    fn acquire_unloaded(&self, verb: &str, patience: Patience, report: &dyn Report) -> Result<WriteLock<'_>> {
        environment::require_root(verb)?;
        let mut told = false;
        while !self.sysroot.try_lock().map_err(|error| self.lock_error(error))? {
            let holder = lock::holder_of(&self.path.join("ostree/lock"));
            let who = holder.map_or("another process".to_owned(), |holder| {
                format!("process {} (`{}`)", holder.pid, holder.command)
            });
            if patience == Patience::Fail {
                return Err(Fault::new(
                    Kind::Busy,
                    format!("The sysroot {} is locked by {who}", self.path.display()),
                )
                .hint("wait for it to end, or run the command without `--no-wait`")
                .into());
            }
            if !told {
                report.note(&format!(
                    "Waiting for {who}, which holds the lock of the sysroot."
                ));
                told = true;
            }
            std::thread::sleep(RETRY);
        }
        let lock = WriteLock { host: self };
        self.require_writable()?;
        Ok(lock)
    }

    fn lock_error(&self, error: ostree_ext::glib::Error) -> anyhow::Error {
        if error.matches(gio::IOErrorEnum::ReadOnly) {
            return read_only(&self.path).into();
        }
        error.into()
    }

    fn require_writable(&self) -> Result<()> {
        let repo = self.path.join("ostree/repo");
        let state = rustix::fs::statvfs(&repo).with_context(|| format!("Looking at {}", repo.display()))?;
        if state.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            return Err(read_only(&self.path).into());
        }
        Ok(())
    }

    /// Returns the libostree object.
    pub fn sysroot(&self) -> &ostree::Sysroot {
        &self.sysroot
    }

    /// Returns the repository of the sysroot.
    pub fn repo(&self) -> ostree::Repo {
        self.sysroot.repo()
    }

    /// Returns the path the sysroot was opened at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory of a deployment.
    pub fn root_of(&self, deployment: &ostree::Deployment) -> PathBuf {
        self.path
            .join(self.sysroot.deployment_dirpath(deployment).as_str())
    }

    /// Returns the root whose `/usr` and `/etc` hold the settings for a stateroot: the running system's, else that of
    /// the deployment that boots next.
    pub fn settings_root(&self, stateroot: &str) -> PathBuf {
        match self.merge_deployment(stateroot) {
            Some(next) if self.booted().is_none() => self.root_of(&next),
            _ => self.path.clone(),
        }
    }

    /// Returns the deployment this machine runs from; none for a sysroot it did not boot from.
    pub fn booted(&self) -> Option<ostree::Deployment> {
        self.is_loaded.get().then(|| self.sysroot.booted_deployment())?
    }

    /// Returns all deployments in boot order; a staged one comes first.
    pub fn deployments(&self) -> Vec<ostree::Deployment> {
        if !self.is_loaded.get() {
            return Vec::new();
        }
        self.sysroot.deployments()
    }

    /// Returns the stateroot to work on: the one named, else the booted one, else the only one there is.
    ///
    /// Fails when the named one does not exist and when there are several and none is booted.
    pub fn stateroot(&self, named: Option<&str>) -> Result<String> {
        let mut known = Vec::new();
        let folder = self.path.join("ostree/deploy");
        for entry in std::fs::read_dir(&folder).with_context(|| format!("Reading {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                known.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        known.sort();
        if let Some(name) = named {
            if known.iter().any(|other| other == name) {
                return Ok(name.to_owned());
            }
            return Err(Fault::new(
                Kind::NotFound,
                format!("There is no stateroot `{name}`; there is: {}", known.join(", ")),
            )
            .into());
        }
        if let Some(booted) = self.booted() {
            return Ok(booted.osname().to_string());
        }
        match known.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(Fault::new(
                Kind::NotFound,
                format!("{} has no stateroot", self.path.display()),
            )
            .hint(format!(
                "make one with `ostree admin os-init --sysroot={} {DEFAULT_STATEROOT}`",
                self.path.display()
            ))
            .into()),
            _ => Err(Fault::new(
                Kind::Usage,
                format!("There are several stateroots: {}", known.join(", ")),
            )
            .hint("name one with `--stateroot NAME`")
            .into()),
        }
    }

    /// Returns the deployment whose origin and kernel arguments the next one continues: the pending one, else the
    /// booted one, else the newest; none in an empty stateroot.
    ///
    /// libostree's own choice is another: on a booted host it names the booted one, from whose `/etc` the next
    /// `/etc` is merged.
    pub fn merge_deployment(&self, stateroot: &str) -> Option<ostree::Deployment> {
        let booted = self.booted();
        let of_stateroot = |deployment: &&ostree::Deployment| deployment.osname() == stateroot;
        let all = self.deployments();
        let pending = booted.as_ref().and_then(|booted| {
            all.iter()
                .take_while(|deployment| !deployment.equal(booted))
                .find(of_stateroot)
        });
        pending
            .cloned()
            .or_else(|| self.sysroot.merge_deployment(Some(stateroot)))
    }

    /// Returns [`Host::merge_deployment`], or the fault that there is none; `purpose` follows "has no deployment".
    pub fn require_merge_deployment(
        &self,
        stateroot: &str,
        purpose: &str,
    ) -> Result<ostree::Deployment, Fault> {
        self.merge_deployment(stateroot).ok_or_else(|| {
            Fault::new(
                Kind::NotFound,
                format!("The stateroot `{stateroot}` has no deployment {purpose}"),
            )
            .hint("deploy a first image with `apt-ostree rebase REF`")
        })
    }
}

impl WriteLock<'_> {
    /// Returns the sysroot this lock is for.
    pub fn host(&self) -> &Host {
        self.host
    }
}

impl Drop for WriteLock<'_> {
    fn drop(&mut self) {
        self.host.sysroot.unlock();
    }
}

fn read_only(path: &Path) -> Fault {
    Fault::new(
        Kind::Unsupported,
        format!("The sysroot {} is on a read-only file system", path.display()),
    )
    .hint(format!(
        "mount it writable, for example with `mount -o remount,rw {}`",
        path.display()
    ))
}
