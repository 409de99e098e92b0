//! Walks through the trees of commits: every object that they need once, and the places of those that are bad.

use super::objects::{self, Object};
use crate::image::commit::Commit;
use crate::image::objects::StoredObjects;
use crate::report::{Report, Unit, Work, counted};
use crate::tree::{Checksum, Directory};
use anyhow::{Context, Result};
use ostree_ext::{gio, ostree};
use std::collections::{BTreeMap, HashSet};

/// Files between two words of progress.
const STRIDE: usize = 256;

/// Every object that commits need, looked at once.
pub(super) struct Census<'a> {
    repo: &'a ostree::Repo,
    quick: bool,
    pub(super) seen: HashSet<Object>,
    files: Vec<Checksum>,
    /// What is missing (false) or damaged (true).
    pub(super) bad: BTreeMap<Object, bool>,
    pub(super) unread: Vec<Object>,
}

impl<'a> Census<'a> {
    pub(super) fn new(repo: &'a ostree::Repo, quick: bool) -> Self {
        Self {
            repo,
            quick,
            seen: HashSet::new(),
            files: Vec::new(),
            bad: BTreeMap::new(),
            unread: Vec::new(),
        }
    }

    pub(super) fn commit(&mut self, name: &str) -> Result<()> {
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

    pub(super) fn files(&mut self, report: &dyn Report) -> Result<()> {
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
                tracing::debug!("{}: {error}", objects::shown(&object));
                self.bad.insert(object, true);
                Ok(false)
            }
        }
    }
}

/// Finds where the trees of commits need bad objects.
pub(super) struct Search<'a> {
    objects: StoredObjects<'a>,
    bad: &'a BTreeMap<Object, bool>,
    /// Directory objects below which all is well.
    clean: HashSet<Checksum>,
}

impl<'a> Search<'a> {
    pub(super) fn new(repo: &'a ostree::Repo, bad: &'a BTreeMap<Object, bool>) -> Self {
        Self {
            objects: StoredObjects(repo),
            bad,
            clean: HashSet::new(),
        }
    }

    /// Adds to each bad object the commit, with the first path at which it needs the object.
    pub(super) fn commit(&mut self, name: &str, needed: &mut BTreeMap<Object, BTreeMap<String, String>>) {
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
