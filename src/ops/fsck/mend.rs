//! Mending: what `--repair` does about findings, in the order in which one thing rests on another.
//!
//! Nothing a user owns is lost: damaged origins are set aside, what somebody put into `/usr` stays, and nothing below
//! the booted deployment is touched.

use super::finding::{Finding, Remedy};
use super::site::Site;
use super::{checkout, deployments, entry_repair, images, leftovers, objects};
use crate::deployment::sysroot::WriteLock;
use crate::deployment::{journal, prune};
use crate::image::commit;
use crate::report::Report;
use anyhow::{Context, Result};
use ostree_ext::{gio, ostree};
use std::collections::BTreeSet;

/// Does what the findings ask for. What fails is a warning, and is found again afterwards.
pub(super) fn mend(lock: &WriteLock<'_>, site: &Site<'_>, findings: &[Finding], report: &dyn Report) {
    let mut work = Work {
        lock,
        site,
        report,
        fetch: BTreeSet::new(),
        hold: false,
        recover: false,
        clean_up: false,
        keeps_folders: false,
    };
    let mut remedies: Vec<(u8, &Finding, &Remedy)> = findings
        .iter()
        .filter_map(|finding| {
            finding
                .remedy
                .as_ref()
                .map(|remedy| (rank(remedy), finding, remedy))
        })
        .collect();
    remedies.sort_by_key(|(rank, ..)| *rank);
    for (_, finding, remedy) in remedies {
        let done = work.apply(remedy);
        if let (Err(_), Remedy::RestoreEntry(_)) = (&done, remedy) {
            work.keeps_folders = true;
        }
        work.tell(done.with_context(|| format!("{} could not be mended", finding.thing)));
    }
    work.finish();
}

/// Returns the place of a remedy in the order of work.
fn rank(remedy: &Remedy) -> u8 {
    match remedy {
        Remedy::SetAside(_) | Remedy::DropEntry(_) => 0,
        Remedy::DropRef(_) => 1,
        Remedy::Object(_) | Remedy::FetchImage(_) | Remedy::Complete(_) => 2,
        Remedy::Restore(_) | Remedy::SetImmutable(_) | Remedy::DropStaged => 3,
        Remedy::PointEntry { .. } | Remedy::CopyBootFile { .. } | Remedy::WriteScript => 4,
        Remedy::RestoreEntry(_) => 5,
        Remedy::Hold | Remedy::Recover | Remedy::CleanUp | Remedy::RemoveScratch(_) => 6,
    }
}

struct Work<'a> {
    lock: &'a WriteLock<'a>,
    site: &'a Site<'a>,
    report: &'a dyn Report,
    /// Digests of images that are to be imported again.
    fetch: BTreeSet<String>,
    hold: bool,
    recover: bool,
    clean_up: bool,
    /// Whether a folder without a boot entry may be one that could not be given its entry.
    keeps_folders: bool,
}

impl Work<'_> {
    fn apply(&mut self, remedy: &Remedy) -> Result<()> {
        let site = self.site;
        match remedy {
            Remedy::SetAside(path) => {
                super::origins::set_aside(site, path)?;
                entry_repair::changed(site)
            }
            Remedy::DropEntry(name) => entry_repair::drop_entry(site, name),
            Remedy::DropRef(name) => drop_ref(&site.repo, name),
            Remedy::Object(bad) => objects::mend(site, bad),
            Remedy::Complete(commit) => Ok(site.repo.mark_commit_partial(commit, false)?),
            Remedy::FetchImage(digest) => {
                self.fetch.insert(digest.clone());
                Ok(())
            }
            Remedy::Restore(restore) => checkout::restore(site, restore),
            Remedy::DropStaged => deployments::drop_staged(site),
            Remedy::SetImmutable(id) => deployments::set_immutable(site, id),
            Remedy::PointEntry { entry, path, folder } => {
                entry_repair::point_entry(site, entry, path, folder)
            }
            Remedy::CopyBootFile { from, to } => entry_repair::copy_file(site, from, to),
            Remedy::WriteScript => entry_repair::write_script(site),
            Remedy::RestoreEntry(lost) => entry_repair::restore_entry(self.lock, site, lost),
            Remedy::RemoveScratch(name) => leftovers::remove(site, name),
            Remedy::Hold => {
                self.hold = true;
                Ok(())
            }
            Remedy::Recover => {
                self.recover = true;
                Ok(())
            }
            Remedy::CleanUp => {
                self.clean_up = true;
                Ok(())
            }
        }
    }

    /// Does what is done once for all findings.
    fn finish(&mut self) {
        if self.site.refused.is_some() {
            // The next round begins with what libostree loads then.
            return;
        }
        if self.hold {
            self.tell(prune::protect(self.lock));
        }
        let fetched = self.fetch_images();
        self.tell(fetched);
        if self.keeps_folders {
            return;
        }
        if self.recover {
            self.tell(journal::recover_locked(self.lock, self.report).map(drop));
        }
        if self.clean_up {
            let cleaned = self.site.host.sysroot().prepare_cleanup(gio::Cancellable::NONE);
            self.tell(cleaned.context("Removing what belongs to no deployment"));
        }
    }

    /// Imports the images again that were asked for, and those with commits that lack objects.
    fn fetch_images(&self) -> Result<()> {
        let repo = &self.site.repo;
        for image in images::known(self.site)? {
            let mut wanted = self.fetch.contains(&image.digest);
            for made in image.commits() {
                wanted |= !commit::is_whole(repo, made)?;
            }
            if wanted {
                self.tell(images::fetch(repo, &image, self.report));
            }
        }
        Ok(())
    }

    fn tell(&self, done: Result<()>) {
        if let Err(error) = done {
            self.report.warning(&format!("{error:#}."));
        }
    }
}

/// Removes a ref; of a remote where one stands before a colon.
fn drop_ref(repo: &ostree::Repo, name: &str) -> Result<()> {
    let (remote, name) = match name.split_once(':') {
        Some((remote, name)) => (Some(remote), name),
        None => (None, name),
    };
    Ok(repo.set_ref_immediate(remote, name, None, gio::Cancellable::NONE)?)
}
