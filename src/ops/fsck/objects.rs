//! The objects of the repository: each one that a deployment, an image, a layer or another ref needs is there and is
//! what its name says.

use super::finding::{BadObject, Finding, Findings, Remedy};
use super::images::{self, KnownImage};
use super::site::Site;
use crate::image::commit::{self, Commit};
use crate::image::objects::StoredObjects;
use crate::layer::record;
use crate::report::{Report, Unit, Work, counted};
use crate::tree::{Checksum, Directory};
use anyhow::{Context, Result};
use ostree_ext::{gio, ostree};
use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// Files between two words of progress.
const STRIDE: usize = 256;

/// An object by its kind and its name.
pub(super) type Object = (ostree::ObjectType, Checksum);

/// Looks at every object that is needed; `quick` does not read files.
pub(super) fn check(
    site: &Site<'_>,
    quick: bool,
    report: &dyn Report,
    findings: &mut Findings,
) -> Result<()> {
    let commits = commits(site)?;
    let mut census = Census::new(&site.repo, quick);
    for commit in commits.keys() {
        census.commit(commit)?;
    }
    census.files(report)?;
    findings.checked.objects += census.seen.len() as u64;
    for object in &census.unread {
        findings.unread("objects", shown(object));
    }
    partial(site, &commits, &census, findings)?;
    if census.bad.is_empty() {
        return Ok(());
    }
    let images = images::known(site)?;
    let mut needed = BTreeMap::new();
    for commit in commits.keys() {
        Search::new(&site.repo, &census.bad).commit(commit, &mut needed);
    }
    for (object, is_corrupt) in &census.bad {
        let holders = needed.remove(object).unwrap_or_default();
        let is_deployed = holders
            .keys()
            .any(|holder| commits.get(holder).is_some_and(|needed| needed.is_deployed));
        if object.0 == ostree::ObjectType::Commit && !*is_corrupt && !is_deployed {
            // A ref that names nothing, which is told with the refs.
            continue;
        }
        findings.push(describe(site, &commits, &images, *object, *is_corrupt, holders));
    }
    Ok(())
}

/// Commits with whoever needs them.
type Commits = BTreeMap<String, Needed>;

/// Who needs a commit.
#[derive(Debug, Default)]
struct Needed {
    /// In words, deployments first.
    names: Vec<String>,
    /// Whether a deployment does.
    is_deployed: bool,
}

/// Returns every commit that something names.
fn commits(site: &Site<'_>) -> Result<Commits> {
    let mut commits = Commits::new();
    let mut add = |commit: &str, name: String, is_deployed: bool| {
        let needed = commits.entry(commit.to_owned()).or_default();
        needed.names.push(name);
        needed.is_deployed |= is_deployed;
    };
    for found in &site.deployments {
        add(&found.commit, format!("the deployment {}", found.id), true);
        // A commit that cannot be read has no base that could be named; the commit itself is found wanting.
        if let Ok(base) = record::base_of(&site.repo, &found.commit) {
            if base != found.commit {
                add(
                    &base,
                    format!("the image below the deployment {}", found.id),
                    true,
                );
            }
        }
    }
    for (name, commit) in super::refs::all(&site.repo)? {
        add(&commit, format!("the ref {name}"), false);
    }
    Ok(commits)
}

/// Tells of commits that are marked as incomplete.
fn partial(site: &Site<'_>, commits: &Commits, census: &Census<'_>, findings: &mut Findings) -> Result<()> {
    for (commit, needed) in commits {
        let object = (ostree::ObjectType::Commit, commit.parse()?);
        if census.bad.contains_key(&object) || commit::is_whole(&site.repo, commit)? {
            continue;
        }
        let message = format!(
            "The commit {commit} of {} is marked as incomplete",
            needed.names[0]
        );
        let finding = Finding::warning("commit-partial", format!("{commit} (mark)"), message);
        let mut lacking = BTreeMap::new();
        Search::new(&site.repo, &census.bad).commit(commit, &mut lacking);
        findings.push(match lacking.is_empty() && census.unread.is_empty() {
            true => finding.remedy(Remedy::Complete(commit.clone())),
            false => finding,
        });
    }
    Ok(())
}

fn describe(
    site: &Site<'_>,
    commits: &Commits,
    images: &[KnownImage],
    object: Object,
    is_corrupt: bool,
    holders: BTreeMap<String, String>,
) -> Finding {
    let place = |(commit, path): (&String, &String)| {
        let names = commits.get(commit).map(|needed| needed.names.as_slice());
        let name = names.and_then(|names| names.first()).unwrap_or(commit);
        match path.is_empty() {
            true => name.to_owned(),
            false => format!("`/{path}` of {name}"),
        }
    };
    // A deployment's own words tell a person most.
    let is_deployed = |commit: &&String| site.deployments.iter().any(|found| found.commit == **commit);
    let first = holders
        .iter()
        .find(|(commit, _)| is_deployed(commit))
        .or_else(|| holders.iter().next());
    let others = holders.len().saturating_sub(1);
    let mut whose = first.map(place).unwrap_or_default();
    if others > 0 {
        whose += &format!(" and {others} more");
    }
    let (code, state) = match is_corrupt {
        true => ("object-corrupt", "is not what its name says"),
        false => ("object-missing", "is missing"),
    };
    let message = format!("The object {}, needed for {whose}, {state}", shown(&object));
    let copy = match is_corrupt {
        true => None,
        false => super::checkout::copy_of(site, &object, &holders),
    };
    // Whoever of them is written again brings the object back for the others too.
    let can_fetch = holders
        .keys()
        .any(|holder| images.iter().any(|image| image.makes(holder)));
    let bad = BadObject {
        kind: object.0,
        checksum: object.1,
        is_corrupt,
        holders: holders.into_keys().collect(),
        copy,
    };
    let finding = Finding::error(code, shown(&object), message);
    if can_fetch || bad.copy.is_some() {
        return finding.remedy(Remedy::Object(bad));
    }
    finding
        .attempt(Remedy::Object(bad))
        .hint("after `apt-ostree fsck --repair` the next `apt-ostree upgrade` makes what is missing again")
}

/// Every object that commits need, looked at once.
struct Census<'a> {
    repo: &'a ostree::Repo,
    quick: bool,
    seen: HashSet<Object>,
    files: Vec<Checksum>,
    /// What is missing (false) or damaged (true).
    bad: BTreeMap<Object, bool>,
    unread: Vec<Object>,
}

impl<'a> Census<'a> {
    fn new(repo: &'a ostree::Repo, quick: bool) -> Self {
        Self {
            repo,
            quick,
            seen: HashSet::new(),
            files: Vec::new(),
            bad: BTreeMap::new(),
            unread: Vec::new(),
        }
    }

    fn commit(&mut self, name: &str) -> Result<()> {
        let object = (ostree::ObjectType::Commit, name.parse()?);
        if self.look(object)? {
            let commit = Commit::load(self.repo, name)?;
            self.directory(commit.root)?;
        }
        Ok(())
    }

    fn directory(&mut self, mut directory: Directory) -> Result<()> {
        self.look((ostree::ObjectType::DirMeta, directory.metadata()))?;
        let tree = directory.tree().context("A stored directory has no name")?;
        if !self.look((ostree::ObjectType::DirTree, tree))? {
            return Ok(());
        }
        let entries = std::mem::take(directory.entries(&StoredObjects(self.repo))?);
        for file in entries.files.into_values() {
            if self.seen.insert((ostree::ObjectType::File, file)) {
                self.files.push(file);
            }
        }
        for below in entries.directories.into_values() {
            self.directory(below)?;
        }
        Ok(())
    }

    fn files(&mut self, report: &dyn Report) -> Result<()> {
        let files = std::mem::take(&mut self.files);
        let work = [Work::new(Unit::Objects, files.len() as u64)];
        let step = report.begin("Checking objects", &work);
        for some in files.chunks(STRIDE) {
            for file in some {
                self.judge((ostree::ObjectType::File, *file), self.quick)?;
            }
            step.advance(Unit::Objects, some.len() as u64);
        }
        step.done(&format!("Checked {}", counted(files.len() as u64, "object")));
        Ok(())
    }

    /// Looks at an object that was not seen before; returns whether it is good and new.
    fn look(&mut self, object: Object) -> Result<bool> {
        Ok(self.seen.insert(object) && self.judge(object, false)?)
    }

    fn judge(&mut self, object: Object, only_presence: bool) -> Result<bool> {
        let (kind, checksum) = (object.0, object.1.to_string());
        let is_here = self.repo.has_object(kind, &checksum, gio::Cancellable::NONE)?;
        if !is_here || only_presence {
            if !is_here {
                self.bad.insert(object, false);
            }
            return Ok(is_here);
        }
        match self.repo.fsck_object(kind, &checksum, gio::Cancellable::NONE) {
            Ok(()) => Ok(true),
            Err(error) if error.matches(gio::IOErrorEnum::PermissionDenied) => {
                self.unread.push(object);
                Ok(false)
            }
            Err(error) => {
                tracing::debug!("{}: {error}", shown(&object));
                self.bad.insert(object, true);
                Ok(false)
            }
        }
    }
}

/// Finds where the trees of commits need bad objects.
struct Search<'a> {
    objects: StoredObjects<'a>,
    bad: &'a BTreeMap<Object, bool>,
    /// Directory objects below which all is well.
    clean: HashSet<Checksum>,
}

impl<'a> Search<'a> {
    fn new(repo: &'a ostree::Repo, bad: &'a BTreeMap<Object, bool>) -> Self {
        Self {
            objects: StoredObjects(repo),
            bad,
            clean: HashSet::new(),
        }
    }

    /// Adds to each bad object the commit, with the first path at which it needs the object.
    fn commit(&mut self, name: &str, needed: &mut BTreeMap<Object, BTreeMap<String, String>>) {
        let Ok(commit) = name.parse::<Checksum>() else {
            return;
        };
        let mut found = Vec::new();
        let object = (ostree::ObjectType::Commit, commit);
        if self.bad.contains_key(&object) {
            found.push((object, String::new()));
        } else if let Ok(commit) = Commit::load(self.objects.0, name) {
            self.directory(commit.root, "", &mut found);
        }
        for (object, path) in found {
            needed
                .entry(object)
                .or_default()
                .entry(name.to_owned())
                .or_insert(path);
        }
    }

    fn directory(&mut self, mut directory: Directory, path: &str, found: &mut Vec<(Object, String)>) {
        let before = found.len();
        let metadata = (ostree::ObjectType::DirMeta, directory.metadata());
        if self.bad.contains_key(&metadata) {
            found.push((metadata, path.to_owned()));
        }
        let Some(tree) = directory.tree() else { return };
        let object = (ostree::ObjectType::DirTree, tree);
        if self.bad.contains_key(&object) {
            found.push((object, path.to_owned()));
            return;
        }
        if self.clean.contains(&tree) {
            return;
        }
        // What cannot be read was found bad, or the caller may not read it.
        let Ok(entries) = directory.entries(&self.objects) else {
            return;
        };
        let entries = std::mem::take(entries);
        let join = |name: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}/{name}"),
        };
        for (name, file) in entries.files {
            let object = (ostree::ObjectType::File, file);
            if self.bad.contains_key(&object) {
                found.push((object, join(&name)));
            }
        }
        for (name, below) in entries.directories {
            self.directory(below, &join(&name), found);
        }
        if found.len() == before {
            self.clean.insert(tree);
        }
    }
}

/// Makes one object available again as far as that needs no network: a copy of a deployment's file takes the place
/// of a missing one, a damaged one goes, and commits that lack it are marked.
pub(super) fn mend(site: &Site<'_>, bad: &BadObject) -> Result<()> {
    let (repo, name) = (&site.repo, bad.checksum.to_string());
    if let Some(copy) = &bad.copy {
        link_in(site, copy, bad)?;
        repo.fsck_object(bad.kind, &name, gio::Cancellable::NONE)?;
        return Ok(());
    }
    if bad.is_corrupt {
        repo.delete_object(bad.kind, &name, gio::Cancellable::NONE)?;
    }
    for holder in &bad.holders {
        repo.mark_commit_partial_reason(holder, true, ostree::RepoCommitState::FSCK_PARTIAL)
            .with_context(|| format!("Marking the commit {holder}"))?;
    }
    Ok(())
}

/// Makes a deployment's file an object by one more link to it.
fn link_in(site: &Site<'_>, copy: &Path, bad: &BadObject) -> Result<()> {
    let place = path(&(bad.kind, bad.checksum));
    let folder = place.parent().context("An object lies in a folder")?;
    let objects = crate::host::folder::open(site.repo.dfd_borrow(), "objects")?;
    match rustix::fs::mkdirat(&objects, folder, rustix::fs::Mode::from_raw_mode(0o775)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error).with_context(|| format!("Making {}", folder.display())),
    }
    rustix::fs::linkat(&site.root, copy, &objects, &place, rustix::fs::AtFlags::empty())
        .with_context(|| format!("Linking {} into the repository", copy.display()))
}

/// Returns the checksum under which a file of a folder would be an object.
pub(super) fn checksum_of(folder: impl AsFd, name: &str) -> Result<Checksum> {
    let sum = ostree::checksum_file_at(
        folder.as_fd().as_raw_fd(),
        Path::new(name),
        None,
        ostree::ObjectType::File,
        ostree::ChecksumFlags::NONE,
        gio::Cancellable::NONE,
    )?;
    sum.parse()
}

/// Returns where an object lies below `objects/`.
pub(super) fn path(object: &Object) -> std::path::PathBuf {
    let name = shown(object);
    Path::new(&name[..2]).join(&name[2..])
}

fn shown(object: &Object) -> String {
    ostree::object_to_string(&object.1.to_string(), object.0).to_string()
}
