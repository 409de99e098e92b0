//! What the solver must know of the image: its packages, their virtual names, and the architectures.

use super::etc::Tree;
use super::packages::INSTALLED;
use super::plan::PackageId;
use crate::fault::{Fault, Kind};
use anyhow::{Context, Result};
use deb822_fast::Deb822;
use std::collections::BTreeMap;

/// Where the database of an image is; the second place is that of an image that was never prepared.
const PLACES: [&str; 2] = ["/usr/lib/sysimage/dpkg", "/var/lib/dpkg"];

/// The packages of an image.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// The architecture of the image.
    pub native: String,
    /// Architectures whose packages may be installed beside it.
    pub foreign: Vec<String>,
    /// Installed packages by name.
    packages: BTreeMap<String, Vec<Installed>>,
    /// The status file as it is.
    pub(super) status: Vec<u8>,
    /// apt's record of what was installed by itself.
    pub(super) extended_states: Vec<u8>,
}

/// An installed package.
#[derive(Clone, Debug)]
pub struct Installed {
    /// What it is.
    pub id: PackageId,
    /// Names it provides besides its own.
    pub provides: Vec<String>,
    /// Whether dpkg refuses to remove it.
    pub essential: bool,
    /// Whether the image's makers hold it at its version.
    pub held: bool,
}

impl Base {
    /// Reads the database of a tree; `wanted` are more foreign architectures.
    pub(super) fn read(tree: &Tree<'_>, wanted: &[String]) -> Result<Self> {
        let read = |name: &str| -> Result<Option<Vec<u8>>> {
            for place in PLACES {
                if let Some(content) = tree.read(&format!("{place}/{name}"))? {
                    return Ok(Some(content.bytes));
                }
            }
            Ok(None)
        };
        let Some(status) = read("status")? else {
            return Err(Fault::new(
                Kind::Unsupported,
                "The image has no dpkg database, so nothing can be layered on it",
            )
            .hint("build it with `apt-ostree container prepare` as the last step")
            .into());
        };
        let architectures = read("arch")?.unwrap_or_default();
        let extended_states = match read("extended_states")? {
            Some(bytes) => bytes,
            None => tree
                .read("/var/lib/apt/extended_states")?
                .map(|content| content.bytes)
                .unwrap_or_default(),
        };
        let mut base = Self {
            packages: parse(&String::from_utf8_lossy(&status))?,
            status,
            extended_states,
            ..Self::default()
        };
        base.native = base
            .find("dpkg", None)
            .map_or_else(own_architecture, |dpkg| dpkg.id.architecture.clone());
        let listed = String::from_utf8_lossy(&architectures);
        for name in listed
            .lines()
            .map(str::trim)
            .chain(wanted.iter().map(String::as_str))
        {
            if !name.is_empty() && name != base.native && !base.foreign.iter().any(|known| known == name) {
                base.foreign.push(name.to_owned());
            }
        }
        Ok(base)
    }

    /// Returns the installed package of this name; without an architecture the native one comes first.
    pub fn find(&self, name: &str, architecture: Option<&str>) -> Option<&Installed> {
        let all = self.packages.get(name)?;
        match architecture {
            Some(wanted) if wanted != self.native => {
                all.iter().find(|package| package.id.architecture == wanted)
            }
            _ => all.iter().find(|package| !self.is_foreign(package)),
        }
    }

    /// Returns an installed package that provides a virtual name.
    pub fn provider(&self, name: &str) -> Option<&Installed> {
        let mut native = self.iter().filter(|package| !self.is_foreign(package));
        native.find(|package| package.provides.iter().any(|provided| provided == name))
    }

    /// Returns every installed package.
    pub fn iter(&self) -> impl Iterator<Item = &Installed> {
        self.packages.values().flatten()
    }

    /// Returns whether a package of this architecture can be installed.
    pub fn accepts(&self, architecture: &str) -> bool {
        architecture == "all"
            || architecture == self.native
            || self.foreign.iter().any(|known| known == architecture)
    }

    fn is_foreign(&self, package: &Installed) -> bool {
        package.id.architecture != "all" && !self.native.is_empty() && package.id.architecture != self.native
    }
}

fn parse(status: &str) -> Result<BTreeMap<String, Vec<Installed>>> {
    let parsed: Deb822 = status
        .parse()
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("Reading the dpkg database of the image")?;
    let mut packages: BTreeMap<String, Vec<Installed>> = BTreeMap::new();
    for paragraph in parsed.iter() {
        let field = |name: &str| paragraph.get(name).unwrap_or_default().trim().to_owned();
        let state = field("Status");
        let known = state.rsplit(' ').next().unwrap_or_default();
        if !INSTALLED.contains(&known) {
            continue;
        }
        let id = PackageId {
            name: field("Package"),
            architecture: field("Architecture"),
            version: field("Version"),
        };
        let installed = Installed {
            provides: relation_names(&field("Provides")),
            essential: field("Essential") == "yes",
            held: state.starts_with("hold "),
            id,
        };
        packages
            .entry(installed.id.name.clone())
            .or_default()
            .push(installed);
    }
    Ok(packages)
}

/// Returns the names in a relation field such as `awk, editor (= 1), libx:any`.
pub(super) fn relation_names(field: &str) -> Vec<String> {
    field
        .split([',', '|'])
        .filter_map(|relation| relation.split_whitespace().next())
        .map(|name| name.split([':', '(']).next().unwrap_or(name).to_owned())
        .collect()
}

/// Returns Debian's name of the architecture this program was built for.
fn own_architecture() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "i386",
        "aarch64" => "arm64",
        "arm" => "armhf",
        "powerpc64" => "ppc64el",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_architectures_and_marks_are_read() {
        let status = "Package: dpkg\nEssential: yes\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 1\n\n\
                      Package: mawk\nStatus: install ok installed\nArchitecture: i386\nVersion: 2\nProvides: awk\n\n\
                      Package: mawk\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3\n\
                      Provides: awk (= 1), pattern:any\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n";
        let base = Base {
            native: "amd64".to_owned(),
            packages: parse(status).unwrap(),
            ..Base::default()
        };
        let version = |found: Option<&Installed>| found.map(|package| package.id.version.clone());
        assert_eq!(version(base.find("mawk", None)).as_deref(), Some("3"));
        assert_eq!(version(base.find("mawk", Some("i386"))).as_deref(), Some("2"));
        assert_eq!(version(base.provider("awk")).as_deref(), Some("3"));
        assert_eq!(version(base.provider("pattern")).as_deref(), Some("3"));
        assert!(base.find("gone", None).is_none());
        let dpkg = base.find("dpkg", None).unwrap();
        assert!(dpkg.essential && dpkg.held);
    }
}
