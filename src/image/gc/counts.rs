//! Counting what commits hold, from an index and the commits that came and went since.
//!
//! A directory object's entries count once, however often it is named itself. So a commit that comes is read only where
//! it has directories that nothing had, and one that goes only where it had directories that nothing has any more.

use super::index::{Changed, Index, Kind};
use crate::tree::{Checksum, Children, MetadataKind, Objects};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

/// The two objects of a commit's root directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    /// Its entries.
    pub(super) tree: Checksum,
    /// Its metadata.
    pub(super) metadata: Checksum,
}

/// How often each object is named.
pub(super) struct Counts<'a> {
    objects: &'a dyn Objects,
    index: Index,
    changed: Changed,
    dead: Vec<(Kind, Checksum)>,
}

impl<'a> Counts<'a> {
    /// Starts with what an index says; directory objects are read through `objects`.
    pub(super) fn new(index: Index, objects: &'a dyn Objects) -> Self {
        Self {
            objects,
            index,
            changed: Changed::new(),
            dead: Vec::new(),
        }
    }

    /// Adds a commit. All that come are added before one is removed, so that what they share stays.
    pub(super) fn add(&mut self, root: Root) -> Result<()> {
        debug_assert!(self.dead.is_empty(), "a commit came after one went");
        let mut unread = Vec::new();
        self.add_directory(root.tree, root.metadata, &mut unread)?;
        while let Some(tree) = unread.pop() {
            let children = self.children(&tree)?;
            for file in children.files {
                self.more(Kind::File, file)?;
            }
            for (tree, metadata) in children.directories {
                self.add_directory(tree, metadata, &mut unread)?;
            }
        }
        Ok(())
    }

    fn add_directory(
        &mut self,
        tree: Checksum,
        metadata: Checksum,
        unread: &mut Vec<Checksum>,
    ) -> Result<()> {
        self.more(Kind::DirMeta, metadata)?;
        if self.more(Kind::DirTree, tree)? == 1 {
            unread.push(tree);
        }
        Ok(())
    }

    /// Removes a commit that was counted before.
    pub(super) fn remove(&mut self, root: Root) -> Result<()> {
        let mut unread = Vec::new();
        self.remove_directory(root.tree, root.metadata, &mut unread)?;
        while let Some(tree) = unread.pop() {
            let children = self.children(&tree)?;
            for file in children.files {
                self.less(Kind::File, file)?;
            }
            for (tree, metadata) in children.directories {
                self.remove_directory(tree, metadata, &mut unread)?;
            }
        }
        Ok(())
    }

    fn remove_directory(
        &mut self,
        tree: Checksum,
        metadata: Checksum,
        unread: &mut Vec<Checksum>,
    ) -> Result<()> {
        self.less(Kind::DirMeta, metadata)?;
        if self.less(Kind::DirTree, tree)? == 0 {
            unread.push(tree);
        }
        Ok(())
    }

    /// Returns the objects that nothing names any more, each once.
    pub(super) fn take_dead(&mut self) -> Vec<(Kind, Checksum)> {
        std::mem::take(&mut self.dead)
    }

    /// Returns the bytes of the index of these commits, which were counted.
    pub(super) fn index(&self, commits: &BTreeSet<Checksum>, collections: u32) -> Result<Vec<u8>> {
        self.index.rewritten(commits, collections, &self.changed)
    }

    fn children(&self, tree: &Checksum) -> Result<Children> {
        let bytes = self.objects.read(MetadataKind::DirTree, tree)?;
        // A flipped bit here would be a file too few later.
        ensure!(
            Checksum::of(&bytes) == *tree,
            "The directory object {tree} is damaged"
        );
        Children::read(&bytes).with_context(|| format!("Reading the directory object {tree}"))
    }

    fn uses(&self, key: &(Kind, Checksum)) -> u32 {
        match self.changed.get(key) {
            Some(uses) => *uses,
            None => self.index.uses(key.0, &key.1),
        }
    }

    fn more(&mut self, kind: Kind, object: Checksum) -> Result<u32> {
        let key = (kind, object);
        let uses = self.uses(&key).checked_add(1);
        let uses = uses.with_context(|| format!("The object {object} is named too often to count"))?;
        self.changed.insert(key, uses);
        Ok(uses)
    }

    fn less(&mut self, kind: Kind, object: Checksum) -> Result<u32> {
        let key = (kind, object);
        let uses = self.uses(&key).checked_sub(1);
        let uses = uses.with_context(|| format!("The object {object} was not counted"))?;
        self.changed.insert(key, uses);
        if uses == 0 {
            self.dead.push(key);
        }
        Ok(uses)
    }
}
