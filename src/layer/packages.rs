//! The packages of a commit, read from the dpkg database it carries, and what differs between two of them.

use crate::image::content::CommitTree;
use crate::layer::plan::PackageId;
use anyhow::{Context, Result};
use debversion::Version;
use ostree_ext::ostree;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;

/// Where the database of an image is; the second place is that of an image that was never prepared.
const PLACES: [&str; 2] = ["usr/lib/sysimage/dpkg/status", "var/lib/dpkg/status"];

/// The states of a package whose files are there and set up.
pub const INSTALLED: [&str; 3] = ["installed", "triggers-pending", "triggers-awaited"];

/// Installed packages: `(name, architecture)` to version.
pub type Packages = BTreeMap<(String, String), String>;

/// A package that both lists have, in different versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// What the old list has.
    pub before: PackageId,
    /// What the new list has.
    pub after: PackageId,
}

/// What differs between two lists of packages, each part sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageDifference {
    /// Only the new list has them.
    pub added: Vec<PackageId>,
    /// Only the old list has them.
    pub removed: Vec<PackageId>,
    /// The new version is the later one, by Debian's order.
    pub upgraded: Vec<Changed>,
    /// The new version is the earlier one, or the same one of another architecture.
    pub downgraded: Vec<Changed>,
}

impl PackageDifference {
    /// Returns whether both lists are the same.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.removed.is_empty()
            && self.upgraded.is_empty()
            && self.downgraded.is_empty()
    }
}

/// Returns the installed packages of a tree; none at all when it has no dpkg database.
pub fn of(tree: &CommitTree) -> Result<Packages> {
    for place in PLACES {
        if let Some(bytes) = tree.read(place)? {
            return Ok(parse(&String::from_utf8_lossy(&bytes)));
        }
    }
    Ok(Packages::new())
}

/// Returns the paths that a package of a tree ships, by the lists that dpkg keeps.
pub fn files_of(tree: &CommitTree, name: &str) -> Result<Vec<String>> {
    let folder = "usr/lib/sysimage/dpkg/info";
    let mut files = Vec::new();
    for list in tree.list(folder)? {
        let package = list
            .strip_suffix(".list")
            .map(|stem| stem.split(':').next().unwrap_or(stem));
        if package == Some(name) {
            let text = tree.read(&format!("{folder}/{list}"))?.unwrap_or_default();
            files.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
        }
    }
    Ok(files)
}

/// Returns the installed packages of a commit.
pub fn of_commit(repo: &ostree::Repo, commit: &str) -> Result<Packages> {
    of(&CommitTree::open(repo, commit)?)
}

/// Returns what differs between the packages of two commits.
pub fn between(repo: &ostree::Repo, old: &str, new: &str) -> Result<PackageDifference> {
    Ok(difference(&of_commit(repo, old)?, &of_commit(repo, new)?))
}

/// Returns the installed packages of a dpkg status file (deb-control(5) paragraphs).
pub fn parse(status: &str) -> Packages {
    let mut packages = Packages::new();
    for paragraph in status.split("\n\n") {
        let field = |name: &str| {
            paragraph
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(|value| value.trim().to_owned())
        };
        let installed = field("Status").is_some_and(|value| {
            value
                .split(' ')
                .next_back()
                .is_some_and(|word| INSTALLED.contains(&word))
        });
        if let (true, Some(name), Some(version)) = (installed, field("Package"), field("Version")) {
            packages.insert((name, field("Architecture").unwrap_or_default()), version);
        }
    }
    packages
}

/// Returns each package as one value, sorted by name and architecture.
pub fn ids(packages: &Packages) -> impl Iterator<Item = PackageId> + '_ {
    packages.iter().map(|((name, architecture), version)| PackageId {
        name: name.clone(),
        architecture: architecture.clone(),
        version: version.clone(),
    })
}

/// Compares two versions as dpkg does; text that is no version is compared letter by letter.
pub fn compare(a: &str, b: &str) -> Ordering {
    match (Version::parse_lenient(a), Version::parse_lenient(b)) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(b),
    }
}

/// Returns whether a name matches a pattern, in which `*` stands for any letters and `?` for one.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some(first) = pattern.chars().next() else {
        return name.is_empty();
    };
    let rest = &pattern[first.len_utf8()..];
    let mut letters = name.chars();
    match first {
        '*' => name
            .char_indices()
            .map(|(index, _)| &name[index..])
            .chain([""])
            .any(|end| matches(rest, end)),
        '?' => letters.next().is_some() && matches(rest, letters.as_str()),
        letter => letters.next() == Some(letter) && matches(rest, letters.as_str()),
    }
}

/// Returns the lists of files of the packages in a tree that is checked out at `root`, by package name.
///
/// Fails when the tree has no dpkg database in its place in `/usr`.
pub fn file_lists(root: &Path) -> Result<Vec<(String, String)>> {
    let folder = root.join("usr/lib/sysimage/dpkg/info");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("Reading {}", folder.display()))?;
    let mut lists = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(package) = name.and_then(|name| name.strip_suffix(".list")) else {
            continue;
        };
        let list = std::fs::read(&path).with_context(|| format!("Reading {}", path.display()))?;
        let package = package.split(':').next().unwrap_or(package).to_owned();
        lists.push((package, String::from_utf8_lossy(&list).into_owned()));
    }
    lists.sort();
    Ok(lists)
}

/// Returns what differs from `old` to `new`.
///
/// A package that changes its architecture (`all` to `amd64`, say) is the same package, unless several
/// architectures of it are there.
pub fn difference(old: &Packages, new: &Packages) -> PackageDifference {
    let gone: Vec<PackageId> = ids(old).filter(|id| !new.contains_key(&key(id))).collect();
    let mut found = PackageDifference::default();
    let mut moved = Vec::new();
    for after in ids(new) {
        let before = match old.get(&key(&after)) {
            Some(version) => PackageId {
                version: version.clone(),
                ..after.clone()
            },
            None => match only(&gone, &after.name) {
                Some(before) if new.keys().filter(|(name, _)| *name == after.name).count() == 1 => {
                    moved.push(before.clone());
                    before.clone()
                }
                _ => {
                    found.added.push(after);
                    continue;
                }
            },
        };
        match compare(&before.version, &after.version) {
            _ if before == after => {}
            Ordering::Less => found.upgraded.push(Changed { before, after }),
            _ => found.downgraded.push(Changed { before, after }),
        }
    }
    found.removed = gone.into_iter().filter(|id| !moved.contains(id)).collect();
    found
}

fn key(id: &PackageId) -> (String, String) {
    (id.name.clone(), id.architecture.clone())
}

/// Returns the one package of that name, if there is exactly one.
fn only<'a>(packages: &'a [PackageId], name: &str) -> Option<&'a PackageId> {
    let mut found = packages.iter().filter(|id| id.name == name);
    match (found.next(), found.next()) {
        (Some(one), None) => Some(one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(packages: &[(&str, &str, &str)]) -> Packages {
        let text: Vec<String> = packages
            .iter()
            .map(|(name, architecture, version)| {
                format!("Package: {name}\nStatus: install ok installed\nArchitecture: {architecture}\nVersion: {version}\n")
            })
            .collect();
        parse(&text.join("\n"))
    }

    fn names(list: &[PackageId]) -> Vec<&str> {
        list.iter().map(|id| id.name.as_str()).collect()
    }

    #[test]
    fn only_installed_packages_count() {
        let text = "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n\
                    Package: b\nStatus: install ok triggers-pending\nArchitecture: all\nVersion: 2\n\n\
                    Package: c\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 3\n\n\
                    Package: d\nStatus: install reinstreq half-installed\nArchitecture: all\nVersion: 4\n";
        let found: Vec<PackageId> = ids(&parse(text)).collect();
        assert_eq!(names(&found), ["a", "b"]);
    }

    #[test]
    fn differences_are_told_apart_by_debian_s_order() {
        let old = status(&[
            ("a", "amd64", "1.9"),
            ("b", "amd64", "1:1"),
            ("gone", "all", "1"),
            ("same", "all", "1"),
            ("pre", "all", "1.0~rc1"),
        ]);
        let new = status(&[
            ("a", "amd64", "1.10"),
            ("b", "amd64", "2"),
            ("fresh", "all", "1"),
            ("same", "all", "1"),
            ("pre", "all", "1.0"),
        ]);
        let found = difference(&old, &new);
        assert_eq!(names(&found.added), ["fresh"]);
        assert_eq!(names(&found.removed), ["gone"]);
        let upgraded: Vec<&str> = found
            .upgraded
            .iter()
            .map(|pair| pair.after.name.as_str())
            .collect();
        assert_eq!(upgraded, ["a", "pre"]);
        assert_eq!(found.downgraded.len(), 1);
        assert_eq!(found.downgraded[0].before.version, "1:1");
        assert!(difference(&new, &new).is_empty() && !found.is_empty());
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("lib*", "libc6", true),
            ("lib*", "lib", true),
            ("*c6", "libc6", true),
            ("l?bc6", "libc6", true),
            ("l?bc6", "lbc6", false),
            ("lib", "libc6", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn an_architecture_may_change() {
        let one = status(&[("a", "all", "1")]);
        let other = status(&[("a", "amd64", "2")]);
        let both = status(&[("a", "amd64", "2"), ("a", "i386", "2")]);
        let found = difference(&one, &other);
        assert_eq!(
            (found.upgraded.len(), found.added.len(), found.removed.len()),
            (1, 0, 0)
        );
        let found = difference(&one, &both);
        assert_eq!(
            (found.upgraded.len(), found.added.len(), found.removed.len()),
            (0, 2, 1)
        );
        let found = difference(&other, &both);
        assert_eq!(
            (found.upgraded.len(), found.added.len(), found.removed.len()),
            (0, 1, 0)
        );
    }
}
