//! What differs between two trees, as the steps that turn the one into the other.

use super::{Checksum, Directory, Objects};
use anyhow::Result;

/// One step; paths are below the two directories, without a leading `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What stands at the path goes, with all that is below it.
    Removed(String),
    /// A file or link is new or another one.
    File(String),
    /// A folder is new, with all that is below it.
    Directory(String),
    /// A folder has another owner, other permissions or attributes; the checksum names them.
    Metadata(String, Checksum),
}

impl Change {
    /// Returns the path.
    pub fn path(&self) -> &str {
        match self {
            Self::Removed(path) | Self::File(path) | Self::Directory(path) | Self::Metadata(path, _) => path,
        }
    }
}

impl Directory {
    /// Returns the steps from this directory to `new`, in the order of their paths; what becomes something else is
    /// removed first. Folders that are equal are not read.
    pub fn changes_to(&mut self, new: &mut Self, objects: &dyn Objects) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        walk("", self, new, objects, &mut changes)?;
        Ok(changes)
    }
}

fn walk(
    prefix: &str,
    old: &mut Directory,
    new: &mut Directory,
    objects: &dyn Objects,
    changes: &mut Vec<Change>,
) -> Result<()> {
    if old.tree().is_some() && old.tree() == new.tree() {
        return Ok(());
    }
    let old = old.entries(objects)?;
    let new = new.entries(objects)?;
    for name in old.files.keys().chain(old.directories.keys()) {
        let stays = match old.files.contains_key(name) {
            true => new.files.contains_key(name),
            false => new.directories.contains_key(name),
        };
        if !stays {
            changes.push(Change::Removed(format!("{prefix}{name}")));
        }
    }
    for (name, object) in &new.files {
        if old.files.get(name) != Some(object) {
            changes.push(Change::File(format!("{prefix}{name}")));
        }
    }
    for (name, directory) in &mut new.directories {
        let path = format!("{prefix}{name}");
        let Some(before) = old.directories.get_mut(name) else {
            changes.push(Change::Directory(path));
            continue;
        };
        if before.metadata() != directory.metadata() {
            changes.push(Change::Metadata(path.clone(), directory.metadata()));
        }
        walk(&format!("{path}/"), before, directory, objects, changes)?;
    }
    Ok(())
}
