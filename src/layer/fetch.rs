//! Fetching the packages of a plan: several at the same time, each inflated while others are fetched.
//!
//! apt-helper fetches with apt's own transports, credentials and checks; what it brings is verified again against the
//! plan. Interrupted downloads leave only files in `partial`, which the next run removes.

use super::acquire::{self, Failure, Trouble};
use super::archive::Archive;
use super::cache::{self, Cache};
use super::plan::{FetchedPackage, PackageId, Plan, PlannedPackage};
use crate::fault::{Fault, Kind};
use crate::report::{Item, Report, Step, Unit, Work as Amount, counted};
use anyhow::{Context, Result, anyhow, bail};
use fn_error_context::context;
use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Transfers at the same time.
const TRANSFERS: usize = 4;

/// A transfer takes packages until it has so many bytes or packages, because each costs a connection.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_PACKAGES: usize = 16;

/// How often it is looked how much of the files has come; apt's program does not tell.
const LOOK_EVERY: Duration = Duration::from_millis(200);

const HELPER: &str = "/usr/lib/apt/apt-helper";

/// Packages that the indexes name and the repository no longer has: the indexes are old.
///
/// Its source is the fault for the user, for a caller that has refreshed and solved again already.
#[derive(Debug)]
pub struct Vanished {
    /// The packages.
    pub packages: Vec<PackageId>,
    fault: Fault,
}

impl fmt::Display for Vanished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("The package lists are out of date")
    }
}

impl std::error::Error for Vanished {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.fault)
    }
}

/// What the transfers share.
struct Work<'a, 's> {
    archive: &'a Archive,
    partial: PathBuf,
    batches: Mutex<VecDeque<Vec<&'a PlannedPackage>>>,
    stopped: AtomicBool,
    failures: Mutex<Vec<(&'a PlannedPackage, Failure)>>,
    step: &'s Step<'s>,
    items: Vec<(PathBuf, Item<'s>)>,
}

impl Archive {
    /// Returns the plan's packages as verified files with inflated data, in the plan's order.
    ///
    /// With `cache_only` nothing is fetched. Fails with [`Vanished`] when a repository no longer has a package; what
    /// was fetched until then stays in the cache.
    #[context("Fetching packages")]
    pub fn fetch(&self, plan: &Plan, cache_only: bool, report: &dyn Report) -> Result<Vec<FetchedPackage>> {
        let cache = Cache::of(&self.cache)?;
        let partial = cache.clean_partial(self.sandbox_user)?;
        let mut missing = Vec::new();
        let mut found = Vec::new();
        for package in &plan.packages {
            match cache.find(&package.id, &package.sha256)? {
                Some(path) => found.push((&package.id, path)),
                None => missing.push(package),
            }
        }
        let (remote, local): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|package| package.uri.is_some());
        if cache_only && !remote.is_empty() {
            return Err(not_stored(&remote).into());
        }
        if !(remote.is_empty() && local.is_empty()) {
            let (begin, end, amounts) = amounts(&remote, &local);
            let step = report.begin(begin, &amounts);
            let items = remote.iter().map(|package| {
                let item = Item::new(&step, &package.id.name, package.download_size);
                (file_in(&partial, package), item)
            });
            let work = Work {
                archive: self,
                items: items.collect(),
                partial,
                batches: Mutex::new(batches(remote)),
                stopped: AtomicBool::new(false),
                failures: Mutex::new(Vec::new()),
                step: &step,
            };
            found.extend(work.run(&cache, &local)?);
            step.done(&end);
        }
        let path_of = |package: &PlannedPackage| {
            let of_package = found.iter().find(|(id, _)| **id == package.id);
            let (_, path) = of_package.with_context(|| format!("{} was not fetched", package.id.name))?;
            Ok(FetchedPackage {
                id: package.id.clone(),
                path: path.clone(),
            })
        };
        plan.packages.iter().map(path_of).collect()
    }

    /// Bounds the package cache: beyond `keep`, what deployments need, it has at most [`cache::LIMIT`] bytes.
    pub fn trim(&self, keep: &[PackageId]) -> Result<()> {
        self.trim_to(keep, cache::LIMIT)
    }

    /// Bounds the package cache as [`Archive::trim`] does, to another number of bytes.
    pub fn trim_to(&self, keep: &[PackageId], limit: u64) -> Result<()> {
        Cache::of(&self.cache)?.trim(keep, limit)
    }
}

impl<'a> Work<'a, '_> {
    /// Runs all transfers and inflates what they bring.
    fn run(&self, cache: &Cache, local: &[&'a PlannedPackage]) -> Result<Vec<(&'a PackageId, PathBuf)>> {
        let (sender, receiver) = channel::<(&PlannedPackage, PathBuf)>();
        for package in local {
            let file = super::store::path(&self.archive.state, &package.sha256);
            sender
                .send((package, file))
                .map_err(|_| anyhow!("Nobody takes the packages in"))?;
        }
        let receiver = Mutex::new(receiver);
        let inflaters = std::thread::available_parallelism().map_or(1, usize::from);
        let (ended, end) = channel::<()>();
        let (fetched, inflated) = std::thread::scope(|scope| {
            scope.spawn(move || self.watch(&end));
            let transfers: Vec<_> = (0..TRANSFERS)
                .map(|_| {
                    let sender = sender.clone();
                    scope.spawn(move || self.transfer(&sender))
                })
                .collect();
            // The receivers end when the last sender is gone.
            drop(sender);
            let inflaters: Vec<_> = (0..inflaters)
                .map(|_| scope.spawn(|| self.inflate(cache, &receiver)))
                .collect();
            let fetched: Vec<_> = transfers.into_iter().map(|thread| thread.join()).collect();
            drop(ended);
            let inflated: Vec<_> = inflaters.into_iter().map(|thread| thread.join()).collect();
            (fetched, inflated)
        });
        for result in fetched {
            result.map_err(|_| anyhow!("A thread that fetches packages panicked"))??;
        }
        let mut found = Vec::new();
        for result in inflated {
            found.extend(result.map_err(|_| anyhow!("A thread that inflates packages panicked"))??);
        }
        let failures = self.failures.lock().map_err(|_| anyhow!("A transfer panicked"))?;
        match failures.as_slice() {
            [] => Ok(found),
            failures => Err(blame(failures)),
        }
    }

    /// Tells how much of the files has come, until the other end of the channel is gone.
    fn watch(&self, end: &Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(LOOK_EVERY) {
            for (path, item) in &self.items {
                // One that is not there has not begun, or is taken in already.
                if let Ok(state) = std::fs::metadata(path) {
                    item.reached(state.len());
                }
            }
        }
    }

    fn transfer(&self, sender: &Sender<(&'a PlannedPackage, PathBuf)>) -> Result<()> {
        while !self.stopped.load(Ordering::Relaxed) {
            let next = self
                .batches
                .lock()
                .map_err(|_| anyhow!("A transfer panicked"))?
                .pop_front();
            let Some(batch) = next else { break };
            if let Err(error) = self.fetch_batch(&batch, sender) {
                self.stopped.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    fn fetch_batch(
        &self,
        batch: &[&'a PlannedPackage],
        sender: &Sender<(&'a PlannedPackage, PathBuf)>,
    ) -> Result<()> {
        let mut command = self
            .archive
            .apt(HELPER)
            .args(["-q", acquire::OPTION, "download-file"]);
        for package in batch {
            let uri = package.uri.as_deref().context("A package without an address")?;
            command = command
                .arg(uri)
                .arg(self.file(package))
                .arg(format!("SHA256:{}", package.sha256));
        }
        let output = command.output()?;
        let log = String::from_utf8_lossy(&output.stderr);
        let failures = acquire::failures(&log);
        let mut unexplained = Vec::new();
        for package in batch {
            let file = self.file(package);
            if file.is_file() {
                if let Some((_, item)) = self.items.iter().find(|(path, _)| *path == file) {
                    item.reached(package.download_size);
                }
                if sender.send((package, file)).is_err() {
                    // Those who inflate ended with an error of their own.
                    self.stopped.store(true, Ordering::Relaxed);
                }
                continue;
            }
            let failure = failures
                .iter()
                .find(|failure| Some(&failure.uri) == package.uri.as_ref());
            match failure {
                Some(failure) => {
                    if failure.trouble != Trouble::Missing {
                        self.stopped.store(true, Ordering::Relaxed);
                    }
                    let mut all = self.failures.lock().map_err(|_| anyhow!("A transfer panicked"))?;
                    all.push((package, failure.clone()));
                }
                None => unexplained.push(package.id.name.as_str()),
            }
        }
        // Not a transfer that failed: apt refused what came.
        if !unexplained.is_empty() && failures.is_empty() {
            return Err(Fault::new(
                Kind::Invalid,
                format!(
                    "{} cannot be fetched: {}",
                    unexplained.join(", "),
                    acquire::errors(&log)
                ),
            )
            .hint("fetch the package lists again with `apt-ostree refresh-md --force`")
            .into());
        }
        Ok(())
    }

    fn inflate(
        &self,
        cache: &Cache,
        receiver: &Mutex<Receiver<(&'a PlannedPackage, PathBuf)>>,
    ) -> Result<Vec<(&'a PackageId, PathBuf)>> {
        let mut done = Vec::new();
        loop {
            let next = match receiver.lock() {
                Ok(receiver) => receiver.recv(),
                Err(_) => bail!("A thread that inflates packages panicked"),
            };
            let Ok((package, file)) = next else {
                return Ok(done);
            };
            match cache.take(&file, &package.id, &package.sha256) {
                Ok(path) => {
                    self.step.advance(Unit::Packages, 1);
                    done.push((&package.id, path));
                }
                Err(error) => {
                    self.stopped.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
            if file.starts_with(&self.partial) {
                std::fs::remove_file(&file)?;
            }
        }
    }

    fn file(&self, package: &PlannedPackage) -> PathBuf {
        file_in(&self.partial, package)
    }
}

fn file_in(partial: &Path, package: &PlannedPackage) -> PathBuf {
    partial.join(Path::new(&package.sha256).with_extension("deb"))
}

/// Returns what is begun, what will have been done, and how much there is to do.
fn amounts(remote: &[&PlannedPackage], local: &[&PlannedPackage]) -> (&'static str, String, Vec<Amount>) {
    let packages = (remote.len() + local.len()) as u64;
    let amount = Amount::new(Unit::Packages, packages);
    let number = counted(packages, "package");
    if remote.is_empty() {
        return ("Reading packages", format!("Read {number}"), vec![amount]);
    }
    let bytes = remote.iter().map(|package| package.download_size).sum();
    (
        "Fetching packages",
        format!("Fetched {number}"),
        vec![Amount::new(Unit::Bytes, bytes), amount],
    )
}

/// Sorts packages into transfers, the largest first.
fn batches(mut packages: Vec<&PlannedPackage>) -> VecDeque<Vec<&PlannedPackage>> {
    packages.sort_by_key(|package| std::cmp::Reverse(package.download_size));
    // Few packages are spread over all transfers rather than put into one.
    let share = packages.len().div_ceil(TRANSFERS).clamp(1, BATCH_PACKAGES);
    let mut batches: VecDeque<Vec<&PlannedPackage>> = VecDeque::new();
    for package in packages {
        let last = batches.back_mut().filter(|batch| {
            let bytes: u64 = batch.iter().map(|package| package.download_size).sum();
            batch.len() < share && bytes + package.download_size <= BATCH_BYTES
        });
        match last {
            Some(batch) => batch.push(package),
            None => batches.push_back(vec![package]),
        }
    }
    batches
}

fn not_stored(packages: &[&PlannedPackage]) -> Fault {
    let names: Vec<&str> = packages.iter().map(|package| package.id.name.as_str()).collect();
    Fault::new(
        Kind::NotFound,
        format!("Not stored on this host: the packages {}", names.join(", ")),
    )
    .hint("run the same command without `--cache-only`")
}

/// Turns failed transfers into one error: vanished packages only when nothing else went wrong.
fn blame(failures: &[(&PlannedPackage, Failure)]) -> anyhow::Error {
    if let Some((package, failure)) = failures
        .iter()
        .find(|(_, failure)| failure.trouble != Trouble::Missing)
    {
        let fault = Fault::new(
            failure.trouble.kind(),
            format!(
                "The package {} cannot be fetched: {}",
                package.id.name, failure.message
            ),
        );
        return failure.trouble.advise(fault).into();
    }
    let packages: Vec<PackageId> = failures.iter().map(|(package, _)| package.id.clone()).collect();
    let names: Vec<String> = packages
        .iter()
        .map(|id| format!("{} {}", id.name, id.version))
        .collect();
    let fault = Fault::new(
        Kind::NotFound,
        format!("The repository no longer has {}", names.join(", ")),
    )
    .hint(format!(
        "try again later, or go on without: `apt-ostree uninstall {}`",
        packages
            .iter()
            .map(|id| id.name.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    ));
    Vanished { packages, fault }.into()
}
