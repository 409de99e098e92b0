//! Paths that two packages ship: found before anything is unpacked.

use super::deb::{self, ControlFiles};
use super::packages;
use super::seed::DATABASE;
use crate::fault::{Fault, Kind};
use crate::layer::plan::{FetchedPackage, Plan, Step};
use crate::layer::stage::Stage;
use anyhow::{Context, Result};
use debversion::Version;
use fn_error_context::context;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path that a package ships though it belongs to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The path, relative to the root.
    pub(crate) path: PathBuf,
    /// The package that comes later.
    pub(crate) package: String,
    /// The package that has the path before.
    pub(crate) owner: String,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "/{} is in {} and in {}",
            self.path.display(),
            self.owner,
            self.package
        )
    }
}

/// What is known of a package that is to be unpacked.
struct New {
    paths: BTreeSet<PathBuf>,
    replaces: Vec<Relation>,
    /// Whether its preinst may move a file of another package out of the way.
    diverts: bool,
}

struct Relation {
    name: String,
    version: Option<(String, Version)>,
}

/// Finds the conflicts of a plan, in the order in which its packages are unpacked.
///
/// What dpkg allows is none: a file of a package that the new one replaces, that goes away or comes anew without it,
/// a diverted file, and the same package in another architecture. Packages that divert files in their preinst are
/// left to dpkg. Fails when a package or the image's database cannot be read.
#[context("Looking for files that two packages ship")]
pub(crate) fn find(
    stage: &Stage,
    plan: &Plan,
    fetched: &[FetchedPackage],
    control: &[ControlFiles],
) -> Result<Vec<Conflict>> {
    let mut new = BTreeMap::new();
    for (package, files) in fetched.iter().zip(control) {
        new.insert(&package.id, read(package, files)?);
    }
    let diversions = diversions(stage)?;
    let place = |path: &Path, package: &str| -> PathBuf {
        match diversions.get(path) {
            Some((to, by)) if by != package => to.clone(),
            _ => path.to_owned(),
        }
    };
    // Only paths that matter are kept of the many of the image.
    let wanted: BTreeSet<&[u8]> = new
        .values()
        .flat_map(|new| &new.paths)
        .map(|path| path.as_os_str().as_bytes())
        .collect();
    let mut owners: HashMap<PathBuf, String> = HashMap::new();
    for (package, list) in packages::file_lists(stage.base())? {
        for path in list.lines().filter_map(|line| line.strip_prefix('/')) {
            if wanted.contains(path.as_bytes()) && !is_directory(&stage.base().join(path)) {
                owners.insert(place(Path::new(path), &package), package.clone());
            }
        }
    }
    let versions: HashMap<String, String> = {
        let status = std::fs::read_to_string(stage.base().join(DATABASE).join("status"))?;
        let installed = packages::parse(&status).into_iter();
        installed.map(|((name, _), version)| (name, version)).collect()
    };
    let going: BTreeSet<&str> = plan.removals.iter().map(|id| id.name.as_str()).collect();
    let mut conflicts = Vec::new();
    for id in plan.steps.iter().flat_map(unpacked) {
        let Some(package) = new.get(id) else {
            continue;
        };
        for path in &package.paths {
            let path = place(path, &id.name);
            let Some(owner) = owners.get(&path).filter(|owner| **owner != id.name) else {
                owners.insert(path, id.name.clone());
                continue;
            };
            let comes_anew = new.iter().find(|(other, _)| other.name == *owner);
            let keeps_it = comes_anew.is_none_or(|(_, anew)| anew.paths.contains(&path));
            let version = comes_anew
                .map(|(other, _)| &other.version)
                .or_else(|| versions.get(owner));
            let is_replaced = package
                .replaces
                .iter()
                .any(|relation| relation.covers(owner, version));
            if !package.diverts && keeps_it && !is_replaced && !going.contains(owner.as_str()) {
                conflicts.push(Conflict {
                    path: path.clone(),
                    package: id.name.clone(),
                    owner: owner.clone(),
                });
            } else {
                owners.insert(path, id.name.clone());
            }
        }
    }
    Ok(conflicts)
}

fn is_directory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Returns the fault that names all conflicts.
pub(crate) fn fault(conflicts: &[Conflict]) -> Fault {
    let list: Vec<_> = conflicts.iter().map(ToString::to_string).collect();
    Fault::new(
        Kind::Invalid,
        format!("Packages ship the same files: {}", list.join("; ")),
    )
    .hint("leave one of the packages out, or use `--conflicts=keep-latest` or `--conflicts=keep-base`")
}

fn unpacked(step: &Step) -> &[crate::layer::plan::PackageId] {
    match step {
        Step::Unpack(packages) => packages,
        Step::Configure(_) | Step::Remove(_) => &[],
    }
}

fn read(package: &FetchedPackage, files: &ControlFiles) -> Result<New> {
    let control = files
        .get("control")
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .with_context(|| format!("{} has no control file", package.path.display()))?;
    let replaces = field(&control, "Replaces");
    let diverts = files
        .get("preinst")
        .is_some_and(|text| String::from_utf8_lossy(text).contains("dpkg-divert"));
    Ok(New {
        paths: deb::paths(&package.path)?,
        replaces: replaces.split(',').filter_map(Relation::parse).collect(),
        diverts,
    })
}

/// Returns the value of a field with its continuation lines.
fn field(control: &str, name: &str) -> String {
    let mut value = String::new();
    let mut inside = false;
    for line in control.lines() {
        if line.starts_with([' ', '\t']) {
            if inside {
                value += line;
            }
            continue;
        }
        inside = false;
        if let Some((found, rest)) = line.split_once(':') {
            if found.eq_ignore_ascii_case(name) {
                value += rest;
                inside = true;
            }
        }
    }
    value
}

impl Relation {
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = match text.split_once('(') {
            Some((name, rest)) => (name, Some(rest.trim_end().trim_end_matches(')'))),
            None => (text, None),
        };
        let version = match rest {
            None => None,
            Some(rest) => {
                let number = rest.trim_start_matches(['<', '=', '>']);
                let operator = &rest[..rest.len() - number.len()];
                Some((operator.to_owned(), number.trim().parse().ok()?))
            }
        };
        let name = name.trim().split(':').next()?.to_owned();
        (!name.is_empty()).then_some(Self { name, version })
    }

    fn covers(&self, package: &str, version: Option<&String>) -> bool {
        if self.name != package {
            return false;
        }
        let Some((operator, limit)) = &self.version else {
            return true;
        };
        let Some(version) = version.and_then(|version| version.parse::<Version>().ok()) else {
            return false;
        };
        match operator.as_str() {
            "<<" => version < *limit,
            "<=" | "<" => version <= *limit,
            "=" => version == *limit,
            ">=" | ">" => version >= *limit,
            ">>" => version > *limit,
            _ => false,
        }
    }
}

/// Returns the diversions of the image: from where, to where and by which package.
fn diversions(stage: &Stage) -> Result<HashMap<PathBuf, (PathBuf, String)>> {
    let path = stage.base().join(DATABASE).join("diversions");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("Reading {}", path.display())),
    };
    let lines: Vec<_> = text.lines().collect();
    let relative = |path: &str| PathBuf::from(path.trim_start_matches('/'));
    Ok(lines
        .chunks_exact(3)
        .map(|three| (relative(three[0]), (relative(three[1]), three[2].to_owned())))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_is_read_with_versions() {
        let control = "Package: a\nReplaces: old (<< 2~),\n other,\n any:any\nDepends: x\n";
        let relations: Vec<_> = field(control, "replaces")
            .split(',')
            .filter_map(Relation::parse)
            .collect();
        let covers = |name: &str, version: &str| {
            let version = version.to_owned();
            relations
                .iter()
                .any(|relation| relation.covers(name, Some(&version)))
        };
        assert!(covers("old", "1.9") && !covers("old", "2") && covers("other", "5") && covers("any", "1"));
        assert!(!covers("x", "1"));
    }
}
