//! `diff`: packages, files, defaults below `/etc` and kernel arguments of two trees, told from the repository alone.
//!
//! Needs neither root nor the lock. Folders that are equal are not read, so that a small difference is found quickly.

use crate::deployment::staging;
use crate::image::commit::Commit;
use crate::image::content::CommitTree;
use crate::image::objects::StoredObjects;
use crate::layer::packages::{self, PackageDifference};
use crate::ops::revision::{self, Revision};
use crate::ops::store::Store;
use crate::tree::{Change, Directory, Found};
use anyhow::Result;
use ostree_ext::ostree;
use serde::Serialize;

/// Where the defaults of `/etc` are in a tree.
const ETC: &str = "usr/etc/";

/// What to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct What {
    /// The packages.
    pub packages: bool,
    /// Files, defaults below `/etc` and kernel arguments.
    pub files: bool,
}

/// What differs between two revisions.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The old one.
    pub from: Revision,
    /// The new one.
    pub to: Revision,
    /// The packages, where they were asked for.
    pub packages: Option<PackageDifference>,
    /// The rest, where it was asked for.
    pub tree: Option<TreeDifference>,
}

/// What differs between two trees besides packages.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TreeDifference {
    /// Files, links and folders by their paths; a folder ends in `/`.
    pub files: Paths,
    /// How many of the changed paths are defaults of `/etc`.
    pub etc: Counts,
    /// Kernel arguments: of two deployments those they boot with, else those that the trees ask for.
    pub kernel_arguments: Words,
}

/// Paths that differ, sorted.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Paths {
    /// Only the new tree has them; all that is in a new folder is named too.
    pub added: Vec<String>,
    /// Only the old tree has them; all that was in a folder is named too.
    pub removed: Vec<String>,
    /// Their content, owner, permissions or attributes differ.
    pub changed: Vec<String>,
}

/// How many paths differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Only the new tree has so many.
    pub added: usize,
    /// Only the old tree has so many.
    pub removed: usize,
    /// So many differ.
    pub changed: usize,
}

/// Words that differ, in their order.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Words {
    /// Only the new list has them.
    pub added: Vec<String>,
    /// Only the old list has them.
    pub removed: Vec<String>,
}

/// Compares two revisions, which are chosen as [`revision::pair`] says.
pub fn run(store: &Store, from: Option<&str>, to: Option<&str>, what: What) -> Result<Difference> {
    let (from, to) = revision::pair(store, from, to)?;
    let repo = store.repo();
    let packages = match what.packages {
        true => Some(packages::between(&repo, &from.commit, &to.commit)?),
        false => None,
    };
    let tree = match what.files {
        true => Some(trees(&repo, &from, &to)?),
        false => None,
    };
    Ok(Difference {
        from,
        to,
        packages,
        tree,
    })
}

fn trees(repo: &ostree::Repo, from: &Revision, to: &Revision) -> Result<TreeDifference> {
    let objects = StoredObjects(repo);
    let mut old = Commit::load(repo, &from.commit)?.root;
    let mut new = Commit::load(repo, &to.commit)?.root;
    let mut files = Paths::default();
    for change in old.changes_to(&mut new, &objects)? {
        match change {
            Change::Removed(path) => add(&mut old, &objects, &path, &mut files.removed)?,
            Change::Directory(path) => add(&mut new, &objects, &path, &mut files.added)?,
            Change::Metadata(path, _) => files.changed.push(format!("{path}/")),
            Change::File(path) => match old.find(&objects, &path)? {
                Some(Found::File(_)) => files.changed.push(path),
                _ => files.added.push(path),
            },
        }
    }
    for list in [&mut files.added, &mut files.removed, &mut files.changed] {
        list.sort();
    }
    let below_etc = |list: &[String]| list.iter().filter(|path| path.starts_with(ETC)).count();
    let etc = Counts {
        added: below_etc(&files.added),
        removed: below_etc(&files.removed),
        changed: below_etc(&files.changed),
    };
    for path in [&mut files.added, &mut files.removed, &mut files.changed]
        .into_iter()
        .flatten()
    {
        path.insert(0, '/');
    }
    Ok(TreeDifference {
        files,
        etc,
        kernel_arguments: arguments(repo, from, to)?,
    })
}

/// Adds what stands at a path, and all that is below a folder.
fn add(root: &mut Directory, objects: &StoredObjects<'_>, path: &str, list: &mut Vec<String>) -> Result<()> {
    match root.find_directory(objects, path)? {
        Some(folder) => add_folder(folder, objects, path, list),
        None => {
            list.push(path.to_owned());
            Ok(())
        }
    }
}

fn add_folder(
    folder: &mut Directory,
    objects: &StoredObjects<'_>,
    path: &str,
    list: &mut Vec<String>,
) -> Result<()> {
    list.push(format!("{path}/"));
    let entries = folder.entries(objects)?;
    list.extend(entries.files.keys().map(|name| format!("{path}/{name}")));
    for (name, below) in &mut entries.directories {
        add_folder(below, objects, &format!("{path}/{name}"), list)?;
    }
    Ok(())
}

fn arguments(repo: &ostree::Repo, from: &Revision, to: &Revision) -> Result<Words> {
    let (old, new) = match (&from.deployment, &to.deployment) {
        (Some(old), Some(new)) => {
            let words = |deployment| staging::current_arguments(deployment).words().to_vec();
            (words(old), words(new))
        }
        _ => {
            let wanted = |commit: &str| CommitTree::open(repo, commit)?.kernel_arguments();
            (wanted(&from.commit)?, wanted(&to.commit)?)
        }
    };
    let only = |these: &[String], others: &[String]| {
        let missing = these.iter().filter(|word| !others.contains(word));
        missing.cloned().collect()
    };
    Ok(Words {
        added: only(&new, &old),
        removed: only(&old, &new),
    })
}
