//! The packages of a commit, read from the dpkg database it carries.

use crate::image::content::CommitTree;
use anyhow::Result;
use std::collections::BTreeMap;

/// Where the database of an image is; the second place is that of an image that was never prepared.
const PLACES: [&str; 2] = ["usr/lib/sysimage/dpkg/status", "var/lib/dpkg/status"];

/// Installed packages: `(name, architecture)` to version.
pub type Packages = BTreeMap<(String, String), String>;

/// What differs between two lists of packages, each list sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageDifference {
    /// `(name, version)` that only the new list has.
    pub added: Vec<(String, String)>,
    /// `(name, version)` that only the old list has.
    pub removed: Vec<(String, String)>,
    /// `(name, old version, new version)`.
    pub changed: Vec<(String, String, String)>,
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
        let installed = field("Status").is_some_and(|value| value.ends_with(" installed"));
        if let (true, Some(name), Some(version)) = (installed, field("Package"), field("Version")) {
            packages.insert((name, field("Architecture").unwrap_or_default()), version);
        }
    }
    packages
}

/// Returns what differs from `old` to `new`.
pub fn difference(old: &Packages, new: &Packages) -> PackageDifference {
    let mut found = PackageDifference::default();
    for ((name, architecture), version) in new {
        match old.get(&(name.clone(), architecture.clone())) {
            None => found.added.push((name.clone(), version.clone())),
            Some(before) if before != version => {
                found
                    .changed
                    .push((name.clone(), before.clone(), version.clone()))
            }
            Some(_) => {}
        }
    }
    for ((name, architecture), version) in old {
        if !new.contains_key(&(name.clone(), architecture.clone())) {
            found.removed.push((name.clone(), version.clone()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count_and_differences_are_told_apart() {
        let old = parse(
            "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\nPackage: b\nStatus: install ok installed\nArchitecture: all\nVersion: 2\n",
        );
        let new = parse(
            "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.1\n\nPackage: c\nStatus: install ok installed\nArchitecture: all\nVersion: 3\n\nPackage: d\nStatus: deinstall ok config-files\nVersion: 4\n",
        );
        assert_eq!(old.len(), 2);
        let found = difference(&old, &new);
        assert_eq!(found.added, [("c".to_owned(), "3".to_owned())]);
        assert_eq!(found.removed, [("b".to_owned(), "2".to_owned())]);
        assert_eq!(
            found.changed,
            [("a".to_owned(), "1".to_owned(), "1.1".to_owned())]
        );
    }
}
