//! Where an image's bytes are looked for: `registries.conf` and its drop-ins, by the rules of
//! containers-registries.conf(5).
//!
//! skopeo reads the same files by the same rules; this module exists because its proxy hands out whole blobs only.

use crate::fault::{Fault, Kind};
use crate::host::surroundings::Surroundings;
use crate::image::name::RegistryName;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The registries that are configured, by their prefix.
#[derive(Debug, Default)]
pub(super) struct Registries {
    entries: BTreeMap<String, Entry>,
    credential_helpers: Option<Vec<String>>,
}

/// A place at which a repository is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Host and, where there is one, port.
    pub(super) host: String,
    /// The repository's path at that host.
    pub(super) path: String,
    /// Whether plain http and certificates of anybody are accepted.
    pub(super) insecure: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
    #[serde(default)]
    credential_helpers: Option<Vec<String>>,
    /// Begins every table of the format before version 2.
    #[serde(default)]
    registries: Option<toml::Table>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: Pulls,
}

/// Which references a mirror answers for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Pulls {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

impl Registries {
    /// Reads the configuration in force in `surroundings`.
    ///
    /// Fails with a fault that names the file when one does not parse, or has the format before version 2.
    pub(super) fn load(surroundings: &Surroundings) -> Result<Self> {
        let own = surroundings
            .home()
            .map(|home| home.join(".config/containers/registries.conf"));
        let system = PathBuf::from("/etc/containers/registries.conf");
        let main = match surroundings.path("CONTAINERS_REGISTRIES_CONF") {
            Some(named) => named,
            None => own
                .clone()
                .filter(|own| own.exists())
                .unwrap_or_else(|| system.clone()),
        };
        let mut files = vec![main];
        // What a user writes goes after, and so over, what the system has.
        for main in [Some(system), own].into_iter().flatten() {
            files.extend(drop_ins(&main.with_extension("conf.d"))?);
        }
        let mut registries = Self::default();
        for file in files {
            match std::fs::read_to_string(&file) {
                Ok(text) => registries.add(&file, &text)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("Reading {}", file.display())),
            }
        }
        Ok(registries)
    }

    /// Takes in one file; its entries replace those of the same prefix.
    fn add(&mut self, file: &Path, text: &str) -> Result<(), Fault> {
        let invalid = |reason: String| {
            Fault::new(
                Kind::Invalid,
                format!("{} is not valid: {reason}", file.display()),
            )
            .hint("see containers-registries.conf(5)")
        };
        let parsed: File = toml::from_str(text).map_err(|error| invalid(error.message().to_owned()))?;
        if parsed.registries.is_some() {
            return Err(invalid("it has the format of version 1".to_owned()));
        }
        for mut entry in parsed.registry {
            entry.location = trimmed(&entry.location).map_err(invalid)?;
            entry.prefix = trimmed(&entry.prefix).map_err(invalid)?;
            for mirror in &mut entry.mirror {
                mirror.location = trimmed(&mirror.location).map_err(invalid)?;
                if mirror.location.is_empty() {
                    return Err(invalid(format!("a mirror of `{}` has no location", entry.prefix)));
                }
            }
            if entry.prefix.is_empty() {
                entry.prefix.clone_from(&entry.location);
            }
            if entry.prefix.is_empty() {
                return Err(invalid("a registry has neither prefix nor location".to_owned()));
            }
            if entry.location.is_empty() && !entry.prefix.starts_with("*.") {
                return Err(invalid(format!(
                    "the registry `{}` has no location",
                    entry.prefix
                )));
            }
            self.entries.insert(entry.prefix.clone(), entry);
        }
        if let Some(helpers) = parsed.credential_helpers.filter(|helpers| !helpers.is_empty()) {
            self.credential_helpers = Some(helpers);
        }
        Ok(())
    }

    /// Returns the programs that know credentials, where others than the credential files are configured.
    pub(super) fn credential_helpers(&self) -> Option<&[String]> {
        self.credential_helpers.as_deref()
    }

    /// Returns the places at which the image is found, in the order in which they are to be asked.
    ///
    /// Nothing is returned for an image that is blocked.
    pub(super) fn places(&self, name: &RegistryName) -> Vec<Place> {
        let repository = name.full_repository();
        let Some((entry, matched)) = self.find(&repository) else {
            return place(&repository, false).into_iter().collect();
        };
        if entry.blocked {
            return Vec::new();
        }
        let digested = name.digest.is_some();
        let rest = &repository[matched..];
        let wanted = |mirror: &&Mirror| match mirror.pull_from_mirror {
            Pulls::All => digested || !entry.mirror_by_digest_only,
            Pulls::DigestOnly => digested,
            Pulls::TagOnly => !digested && !entry.mirror_by_digest_only,
        };
        let mirrors = entry.mirror.iter().filter(wanted);
        let mirrors = mirrors.map(|mirror| (format!("{}{rest}", mirror.location), mirror.insecure));
        let primary = match entry.location.is_empty() {
            true => repository.clone(),
            false => format!("{}{rest}", entry.location),
        };
        mirrors
            .chain([(primary, entry.insecure)])
            // A mirror may be blocked under its own name.
            .filter(|(location, _)| !self.find(location).is_some_and(|(entry, _)| entry.blocked))
            .filter_map(|(location, insecure)| place(&location, insecure))
            .collect()
    }

    /// Finds the entry with the longest prefix that matches, and how many bytes of the name it matches.
    fn find(&self, repository: &str) -> Option<(&Entry, usize)> {
        self.entries
            .values()
            .filter_map(|entry| Some((entry, matches(repository, &entry.prefix)?)))
            .max_by_key(|(entry, _)| entry.prefix.len())
    }
}

/// Lists the drop-ins of a folder in the order of their names.
fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).with_context(|| format!("Reading {}", folder.display())),
    };
    let mut files = Vec::new();
    for entry in listed {
        let path = entry
            .with_context(|| format!("Reading {}", folder.display()))?
            .path();
        if path.extension().is_some_and(|extension| extension == "conf") && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Returns a location without the slashes at its end; a location is no address.
fn trimmed(location: &str) -> Result<String, String> {
    let location = location.trim().trim_end_matches('/');
    if location.starts_with("http://") || location.starts_with("https://") {
        return Err(format!(
            "`{location}` is an address; a location begins with the host"
        ));
    }
    Ok(location.to_owned())
}

/// Returns how many bytes of `name` the prefix matches; it ends where a part of the name ends.
fn matches(name: &str, prefix: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        Some(domain) if domain.starts_with('.') => {
            let start = name.find(domain)?;
            if name[..start].contains('/') {
                return None;
            }
            start + domain.len()
        }
        _ => name.starts_with(prefix).then_some(prefix.len())?,
    };
    let ends = name[end..].is_empty() || name[end..].starts_with([':', '/', '@']);
    ends.then_some(end)
}

fn place(location: &str, insecure: bool) -> Option<Place> {
    let (host, path) = location.split_once('/')?;
    Some(Place {
        host: host.to_owned(),
        path: path.to_owned(),
        insecure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn registries(text: &str) -> Registries {
        let mut registries = Registries::default();
        registries.add(Path::new("registries.conf"), text).unwrap();
        registries
    }

    fn places(registries: &Registries, name: &str) -> Vec<String> {
        let name = RegistryName::parse(name).unwrap();
        let shown = |place: Place| {
            let mark = if place.insecure { " insecure" } else { "" };
            format!("{}/{}{mark}", place.host, place.path)
        };
        registries.places(&name).into_iter().map(shown).collect()
    }

    #[test]
    fn an_image_without_an_entry_is_where_its_name_says() {
        let none = Registries::default();
        assert_eq!(
            places(&none, "r.example:5000/os/debian:13"),
            ["r.example:5000/os/debian"]
        );
        assert_eq!(places(&none, "debian"), ["docker.io/library/debian"]);
    }

    #[test]
    fn the_longest_prefix_wins_and_is_rewritten() {
        let known = registries(
            "[[registry]]\nlocation = 'r.example'\n\
             [[registry]]\nprefix = 'r.example/team'\nlocation = 'other.example/moved/'\ninsecure = true\n\
             [[registry]]\nprefix = '*.example'\n[[registry.mirror]]\nlocation = 'cache.test/all'\n",
        );
        assert_eq!(places(&known, "r.example/os:1"), ["r.example/os"]);
        assert_eq!(
            places(&known, "r.example/team/os:1"),
            ["other.example/moved/os insecure"]
        );
        assert_eq!(places(&known, "r.example/teams/os:1"), ["r.example/teams/os"]);
        assert_eq!(
            places(&known, "a.b.example/os:1"),
            ["cache.test/all/os", "a.b.example/os"]
        );
        assert_eq!(places(&known, "a.examples/os:1"), ["a.examples/os"]);
        assert_eq!(places(&known, "x.test/a.example/os:1"), ["x.test/a.example/os"]);
    }

    #[test]
    fn mirrors_go_first_where_they_answer_for_the_reference() {
        let known = registries(
            "[[registry]]\nlocation = 'r.example'\n\
             [[registry.mirror]]\nlocation = 'one.test'\ninsecure = true\n\
             [[registry.mirror]]\nlocation = 'two.test'\npull-from-mirror = 'digest-only'\n\
             [[registry.mirror]]\nlocation = 'three.test'\npull-from-mirror = 'tag-only'\n\
             [[registry]]\nlocation = 'd.example'\nmirror-by-digest-only = true\n\
             [[registry.mirror]]\nlocation = 'one.test'\n",
        );
        assert_eq!(
            places(&known, "r.example/os:1"),
            ["one.test/os insecure", "three.test/os", "r.example/os"]
        );
        assert_eq!(
            places(&known, &format!("r.example/os@{DIGEST}")),
            ["one.test/os insecure", "two.test/os", "r.example/os"]
        );
        assert_eq!(places(&known, "d.example/os:1"), ["d.example/os"]);
        assert_eq!(
            places(&known, &format!("d.example/os@{DIGEST}")),
            ["one.test/os", "d.example/os"]
        );
    }

    #[test]
    fn blocked_places_are_not_asked() {
        let known = registries(
            "[[registry]]\nlocation = 'bad.example'\nblocked = true\n[[registry.mirror]]\nlocation = 'one.test'\n\
             [[registry]]\nlocation = 'r.example'\n[[registry.mirror]]\nlocation = 'bad.example/r'\n",
        );
        assert_eq!(places(&known, "bad.example/os:1"), Vec::<String>::new());
        assert_eq!(places(&known, "r.example/os:1"), ["r.example/os"]);
    }

    #[test]
    fn a_drop_in_replaces_the_entry_of_its_prefix() {
        let mut known = registries("[[registry]]\nlocation = 'r.example'\ninsecure = true\n");
        let text = "credential-helpers = ['pass']\n[[registry]]\nlocation = 'r.example'\n";
        known.add(Path::new("a.conf"), text).unwrap();
        assert_eq!(places(&known, "r.example/os:1"), ["r.example/os"]);
        assert_eq!(known.credential_helpers().unwrap(), ["pass"]);
    }

    #[test]
    fn files_are_read_where_the_container_tools_read_them() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/containers");
        std::fs::create_dir_all(folder.join("registries.conf.d")).unwrap();
        let entry = |location: &str| format!("[[registry]]\nprefix = 'r.invalid'\nlocation = '{location}'\n");
        let surroundings = Surroundings::below_home(home.path());
        let found =
            |surroundings: &Surroundings| places(&Registries::load(surroundings).unwrap(), "r.invalid/os:1");
        std::fs::write(folder.join("registries.conf"), entry("own.test")).unwrap();
        assert_eq!(found(&surroundings), ["own.test/os"]);
        let named = home.path().join("named.conf");
        std::fs::write(&named, entry("named.test")).unwrap();
        assert_eq!(
            found(&surroundings.clone().with("CONTAINERS_REGISTRIES_CONF", named)),
            ["named.test/os"]
        );
        for (name, location) in [("b.conf", "b.test"), ("a.conf", "a.test"), ("c.txt", "c.test")] {
            std::fs::write(folder.join("registries.conf.d").join(name), entry(location)).unwrap();
        }
        assert_eq!(found(&surroundings), ["b.test/os"]);
    }

    #[test]
    fn wrong_files_say_why() {
        for (text, reason) in [
            ("registry = 1", "registries.conf"),
            ("[[registry]]\ninsecure = true", "neither"),
            ("[[registry]]\nprefix = 'a.test'", "no location"),
            ("[[registry]]\nlocation = 'https://a.test'", "address"),
            ("[registries.search]\nregistries = ['a.test']", "version 1"),
        ] {
            let fault = Registries::default()
                .add(Path::new("registries.conf"), text)
                .expect_err(text);
            assert!(fault.message.contains(reason), "{fault}");
        }
    }
}
