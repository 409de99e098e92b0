//! The small collection: what goes follows from the commits that came and went since the last one.
//!
//! It relies on the index of the last collection, and reads no directory but those that came or go. Whatever is not as
//! expected is an error before anything is removed, and the caller leaves the matter to libostree's prune.
//!
//! Removed are first the commits, so that none is ever here without what it names, then the objects, and at last the
//! index is replaced. After a kill in between, the old index, or the file of noted commits, names commits that are gone:
//! the next collection is a full one, which finds the rest.

use super::counts::{Counts, Root};
use super::index::{self, Index, Kind};
use super::{Freed, noted};
use crate::host::{checkpoint, folder};
use crate::image::commit;
use crate::tree::{Checksum, Objects};
use anyhow::{Context, Result, bail, ensure};
use ostree_ext::{gio, ostree};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};

/// After so many small collections in a row comes a full one, which finds objects that no commit ever held.
const FULL_EVERY: u32 = 32;

/// What is known from the last collection, and of the time since.
pub(super) struct Known {
    folder: OwnedFd,
    index: Index,
    counted: BTreeSet<Checksum>,
    noted: BTreeSet<Checksum>,
}

impl Known {
    /// Reads what the last collection left; `held` are the commits that refs name now.
    ///
    /// Fails, with the reason, when a full collection is due.
    pub(super) fn load(repo: &ostree::Repo, held: &BTreeSet<Checksum>) -> Result<Self> {
        require_countable(repo)?;
        let folder = index::open_folder(repo.dfd_borrow())?;
        let index = Index::load(folder.as_fd())?.context("There is no index yet")?;
        ensure!(
            index.collections() < FULL_EVERY,
            "A full collection is due after {FULL_EVERY} small ones"
        );
        let counted = index.commits()?;
        let mut noted = noted::load(folder.as_fd())?;
        // Whoever is killed after a ref is gone leaves the commit to the next run all the same.
        let unknown: BTreeSet<Checksum> = held
            .iter()
            .filter(|commit| !counted.contains(commit) && !noted.contains(commit))
            .copied()
            .collect();
        if !unknown.is_empty() {
            noted::append(folder.as_fd(), &unknown)?;
            noted.extend(unknown);
        }
        Ok(Self {
            folder,
            index,
            counted,
            noted,
        })
    }

    /// Removes what only commits held that are not among `kept` any more, and counts it into `freed`.
    pub(super) fn sweep(
        self,
        repo: &ostree::Repo,
        objects: &dyn Objects,
        kept: &BTreeSet<Checksum>,
        freed: &mut Freed,
    ) -> Result<()> {
        let added: BTreeSet<Checksum> = kept.difference(&self.counted).copied().collect();
        let mut dead: BTreeSet<Checksum> = self.counted.union(&self.noted).copied().collect();
        dead.retain(|commit| !kept.contains(commit));
        if added.is_empty() && dead.is_empty() && self.noted.is_empty() {
            return Ok(());
        }
        let roots = read_commits(repo, &added, &mut dead, kept)?;
        refuse_partial(repo, |commit| kept.contains(commit) || dead.contains(commit))?;

        let collections = self.index.collections() + 1;
        let mut counts = Counts::new(self.index, objects);
        for (commit, root) in &roots {
            if !self.counted.contains(commit) {
                counts.add(*root)?;
            }
        }
        for commit in &dead {
            counts.remove(*roots.get(commit).context("A commit that goes was not read")?)?;
        }
        let mut unneeded = counts.take_dead();
        let rewritten = counts.index(kept, collections)?;
        drop(counts);

        remove_commits(repo, &dead, freed)?;
        checkpoint::reach("gc-commits-removed")?;
        unneeded.sort_unstable_by_key(|(_, object)| *object);
        remove_objects(repo, &unneeded, freed)?;
        checkpoint::reach("gc-objects-removed")?;
        index::write(self.folder.as_fd(), &rewritten)?;
        noted::clear(self.folder.as_fd())
    }
}

/// Counts everything the commits hold, from the beginning, and writes the index.
///
/// Fails where no index can be relied on; the old one is gone then.
pub(super) fn count_all(repo: &ostree::Repo, objects: &dyn Objects, kept: &BTreeSet<Checksum>) -> Result<()> {
    let folder = index::open_folder(repo.dfd_borrow())?;
    index::remove(folder.as_fd())?;
    noted::clear(folder.as_fd())?;
    require_countable(repo)?;
    refuse_partial(repo, |commit| kept.contains(commit))?;
    let mut counts = Counts::new(Index::empty(), objects);
    for commit in kept {
        counts.add(read_commit(repo, commit)?.0)?;
    }
    index::write(folder.as_fd(), &counts.index(kept, 0)?)
}

/// Fails for repositories in which there is more to an object than its file and the directories that name it.
fn require_countable(repo: &ostree::Repo) -> Result<()> {
    match repo.mode() {
        ostree::RepoMode::Bare | ostree::RepoMode::BareUser => {}
        other => bail!("The objects of a repository of mode {other:?} are not counted"),
    }
    ensure!(repo.parent().is_none(), "The repository has a parent");
    let links = repo.config().has_key("core", "payload-link-threshold");
    ensure!(!links.unwrap_or(false), "The repository may have payload links");
    // These hold commits as well, and the bindings do not list them.
    match folder::open(repo.dfd_borrow(), "refs")
        .and_then(|refs| is_empty_folder(&refs, "mirrors").context("Reading refs/mirrors"))
    {
        Ok(true) => Ok(()),
        Ok(false) => bail!("The repository has refs of collections"),
        Err(error) => Err(error),
    }
}

fn is_empty_folder(parent: &OwnedFd, name: &str) -> Result<bool> {
    Ok(names(parent, name)?.is_empty())
}

/// Returns the names in a folder; none where there is no such folder.
fn names(parent: impl AsFd, name: &str) -> Result<Vec<String>> {
    match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("Looking at {name}")),
        Ok(_) => {}
    }
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder::open(&parent, name)?)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Fails when a commit of interest is known to lack objects: what it names cannot be counted.
fn refuse_partial(repo: &ostree::Repo, is_of_interest: impl Fn(&Checksum) -> bool) -> Result<()> {
    for name in names(repo.dfd_borrow(), "state")? {
        let Some(commit) = name.strip_suffix(".commitpartial") else {
            continue;
        };
        ensure!(
            !is_of_interest(&commit.parse()?),
            "The commit {commit} is known to lack objects"
        );
    }
    Ok(())
}

/// Reads the commits that came and those that go. What they were made from goes as well when no ref names it: for
/// libostree, history that is not asked for is nothing to keep.
fn read_commits(
    repo: &ostree::Repo,
    added: &BTreeSet<Checksum>,
    dead: &mut BTreeSet<Checksum>,
    kept: &BTreeSet<Checksum>,
) -> Result<BTreeMap<Checksum, Root>> {
    let mut roots = BTreeMap::new();
    let mut unread: Vec<Checksum> = added.iter().chain(&*dead).copied().collect();
    while let Some(name) = unread.pop() {
        let (root, parent) = read_commit(repo, &name)?;
        roots.insert(name, root);
        let Some(parent) = parent else { continue };
        let is_here = || {
            repo.has_object(
                ostree::ObjectType::Commit,
                &parent.to_string(),
                gio::Cancellable::NONE,
            )
        };
        if !kept.contains(&parent) && !dead.contains(&parent) && is_here()? {
            dead.insert(parent);
            unread.push(parent);
        }
    }
    Ok(roots)
}

/// Returns the root of a commit and what it was made from.
fn read_commit(repo: &ostree::Repo, name: &Checksum) -> Result<(Root, Option<Checksum>)> {
    let object = repo
        .load_variant(ostree::ObjectType::Commit, &name.to_string())
        .with_context(|| format!("Reading the commit {name}"))?;
    ensure!(
        Checksum::of(object.data()) == *name,
        "The commit {name} is damaged"
    );
    let commit = commit::parse(object.data())?;
    let root = Root {
        tree: commit.root.tree().context("A commit names no tree")?,
        metadata: commit.root.metadata(),
    };
    Ok((root, commit.parent.map(|parent| parent.parse()).transpose()?))
}

/// Removes commits with all that libostree keeps beside them.
fn remove_commits(repo: &ostree::Repo, commits: &BTreeSet<Checksum>, freed: &mut Freed) -> Result<()> {
    for commit in commits {
        let name = commit.to_string();
        let size =
            repo.query_object_storage_size(ostree::ObjectType::Commit, &name, gio::Cancellable::NONE)?;
        repo.delete_object(ostree::ObjectType::Commit, &name, gio::Cancellable::NONE)
            .with_context(|| format!("Removing the commit {name}"))?;
        freed.count(size);
    }
    if !commits.is_empty() {
        repo.prune_static_deltas(None, gio::Cancellable::NONE)?;
    }
    Ok(())
}

/// Removes objects; one that is gone already is none that fails here.
fn remove_objects(repo: &ostree::Repo, unneeded: &[(Kind, Checksum)], freed: &mut Freed) -> Result<()> {
    let objects = folder::open(repo.dfd_borrow(), "objects")?;
    for (kind, object) in unneeded {
        let name = object.to_string();
        let path = format!("{}/{}.{}", &name[..2], &name[2..], kind.extension());
        let size = match rustix::fs::statat(&objects, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => u64::try_from(stat.st_size)?,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error).with_context(|| format!("Looking at the object {path}")),
        };
        rustix::fs::unlinkat(&objects, &path, AtFlags::empty())
            .with_context(|| format!("Removing the object {path}"))?;
        freed.count(size);
    }
    Ok(())
}
