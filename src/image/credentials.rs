//! Registry credentials: ostree's own files first, then what `podman login` wrote.
//!
//! A secret never appears in an argument, in the environment or in a log: skopeo is given a file name, or the
//! descriptor of a file without a name.

use crate::fault::{Fault, Kind};
use crate::host::surroundings::Surroundings;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::fs::Dir;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// ostree's places below the root directory, the first that exists wins.
const OSTREE_PLACES: &[&str] = &[
    "run/ostree/auth.json",
    "etc/ostree/auth.json",
    "usr/lib/ostree/auth.json",
];

/// What skopeo is told about credentials.
#[derive(Debug)]
pub enum Credentials {
    /// Nothing: skopeo searches podman's places itself.
    Podman,
    /// The file with this path.
    File(PathBuf),
    /// A nameless file in which ostree's credentials go before podman's.
    Merged(File),
}

impl Credentials {
    /// Finds the credentials of this host.
    ///
    /// ostree's file (`/run`, `/etc`, `/usr/lib` in that order) comes first; what it does not name is looked up
    /// among podman's. Fails with a fault that names the file when one of them does not parse.
    pub fn find(root: &Dir, root_path: &Path, surroundings: &Surroundings) -> Result<Self> {
        let mut found = None;
        for place in OSTREE_PLACES {
            let path = root_path.join(place);
            if let Some(text) =
                read_below(root, place).with_context(|| format!("Reading {}", path.display()))?
            {
                found = Some((parse(&path, &text)?, path));
                break;
            }
        }
        let mut others = Vec::new();
        for path in podman_places(surroundings) {
            match std::fs::read(&path) {
                Ok(text) => others.push(parse(&path, &text)?),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error).with_context(|| format!("Reading {}", path.display())),
            }
        }
        let mut only_ours = false;
        for place in places_of_root(surroundings) {
            let path = root_path.join(&place);
            if let Some(text) =
                read_below(root, &place).with_context(|| format!("Reading {}", path.display()))?
            {
                others.push(parse(&path, &text)?);
                only_ours = true;
            }
        }
        let mut merged = match found {
            Some((_, path)) if others.is_empty() => return Ok(Self::File(path)),
            Some((merged, _)) => merged,
            None if !only_ours => return Ok(Self::Podman),
            None => Map::new(),
        };
        for other in others {
            fill_in(&mut merged, other);
        }
        let mut file = tempfile::tempfile().context("Making a nameless file for credentials")?;
        file.write_all(&serde_json::to_vec(&merged)?)?;
        file.rewind()?;
        Ok(Self::Merged(file))
    }

    /// Returns what the files say, in the order in which skopeo looks at them.
    ///
    /// Fails with a fault that names the file when one of them does not parse.
    pub(crate) fn documents(self, surroundings: &Surroundings) -> Result<Vec<Map<String, Value>>> {
        let places = match self {
            Self::Podman => podman_places(surroundings),
            Self::File(path) => vec![path],
            Self::Merged(mut file) => {
                let mut text = Vec::new();
                file.read_to_end(&mut text)
                    .context("Reading the merged credentials")?;
                return Ok(vec![parse(Path::new("of the host"), &text)?]);
            }
        };
        let mut documents = Vec::new();
        for path in places {
            match std::fs::read(&path) {
                Ok(text) => documents.push(parse(&path, &text)?),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error).with_context(|| format!("Reading {}", path.display())),
            }
        }
        Ok(documents)
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}

fn read_below(root: &Dir, path: &str) -> std::io::Result<Option<Vec<u8>>> {
    match root.read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The places skopeo searches, in its order.
fn podman_places(surroundings: &Surroundings) -> Vec<PathBuf> {
    if let Some(named) = surroundings.path("REGISTRY_AUTH_FILE") {
        return vec![named];
    }
    let run_time = match surroundings.path("XDG_RUNTIME_DIR") {
        Some(directory) => directory.join("containers/auth.json"),
        None => PathBuf::from(format!(
            "/run/containers/{}/auth.json",
            rustix::process::getuid().as_raw()
        )),
    };
    let home = surroundings.home();
    let configuration = surroundings
        .path("XDG_CONFIG_HOME")
        .or_else(|| home.as_ref().map(|home| home.join(".config")));
    [
        Some(run_time),
        configuration.map(|directory| directory.join("containers/auth.json")),
        home.map(|home| home.join(".docker/config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Where else a `podman login` as root may have written, below the root directory.
///
/// A login shell has `XDG_RUNTIME_DIR` and a timer or daemon has not, so the one looks where the other did not
/// write; here both look at both.
fn places_of_root(surroundings: &Surroundings) -> Vec<String> {
    let named = surroundings.path("REGISTRY_AUTH_FILE").is_some();
    if named || !rustix::process::getuid().is_root() {
        return Vec::new();
    }
    match surroundings.path("XDG_RUNTIME_DIR") {
        Some(_) => vec!["run/containers/0/auth.json".to_owned()],
        None => vec!["run/user/0/containers/auth.json".to_owned()],
    }
}

/// Reads a credentials file; the error names the place in it and nothing of its content.
fn parse(path: &Path, text: &[u8]) -> Result<Map<String, Value>, Fault> {
    let invalid = |reason: String| {
        Fault::new(
            Kind::Invalid,
            format!("The credentials file {} is not valid: {reason}", path.display()),
        )
        .hint("see containers-auth.json(5); `podman login --authfile FILE REGISTRY` writes a valid one")
    };
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        invalid(format!(
            "it is not JSON at line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    let Value::Object(object) = value else {
        return Err(invalid("it is not a JSON object".to_owned()));
    };
    for key in ["auths", "credHelpers"] {
        if object.get(key).is_some_and(|value| !value.is_object()) {
            return Err(invalid(format!("`{key}` is not a JSON object")));
        }
    }
    Ok(object)
}

/// Adds what `lower` has and `upper` lacks.
fn fill_in(upper: &mut Map<String, Value>, lower: Map<String, Value>) {
    for (key, value) in lower {
        if key != "auths" && key != "credHelpers" {
            continue;
        }
        let Value::Object(entries) = value else { continue };
        // A registry that either kind of entry of the upper file names is settled there.
        let settled: Vec<String> = ["auths", "credHelpers"]
            .iter()
            .filter_map(|kind| upper.get(*kind)?.as_object())
            .flat_map(|entries| entries.keys().cloned())
            .collect();
        let target = upper.entry(key).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(target) = target {
            for (registry, entry) in entries {
                if !settled.contains(&registry) {
                    target.insert(registry, entry);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std_ext::cap_std::ambient_authority;

    struct Place {
        root: tempfile::TempDir,
        home: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let temporary = || tempfile::tempdir().unwrap();
            Self {
                root: temporary(),
                home: temporary(),
            }
        }

        fn write(directory: &tempfile::TempDir, path: &str, text: &str) {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn find(&self) -> Result<Credentials> {
            let root = Dir::open_ambient_dir(self.root.path(), ambient_authority()).unwrap();
            let runtime = self.home.path().join("run");
            let surroundings = Surroundings::below_home(self.home.path()).with("XDG_RUNTIME_DIR", runtime);
            Credentials::find(&root, self.root.path(), &surroundings)
        }
    }

    #[test]
    fn run_goes_before_etc_and_usr() {
        let place = Place::new();
        assert!(matches!(place.find().unwrap(), Credentials::Podman));
        for path in [
            "usr/lib/ostree/auth.json",
            "etc/ostree/auth.json",
            "run/ostree/auth.json",
        ] {
            Place::write(&place.root, path, "{}");
            let expected = place.root.path().join(path);
            assert!(matches!(place.find().unwrap(), Credentials::File(found) if found == expected));
        }
    }

    #[test]
    fn ostree_goes_before_podman_and_podman_fills_in() {
        let place = Place::new();
        let ostree =
            r#"{"auths": {"a.example": {"auth": "one"}}, "credHelpers": {"h.example": "secretservice"}}"#;
        let podman = r#"{"auths": {"a.example": {"auth": "two"}, "b.example": {"auth": "three"},
                         "h.example": {"auth": "four"}}}"#;
        Place::write(&place.root, "etc/ostree/auth.json", ostree);
        Place::write(&place.home, "run/containers/auth.json", podman);
        let Credentials::Merged(mut file) = place.find().unwrap() else {
            panic!("not merged");
        };
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let merged: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            merged,
            serde_json::json!({
                "auths": {"a.example": {"auth": "one"}, "b.example": {"auth": "three"}},
                "credHelpers": {"h.example": "secretservice"},
            })
        );
    }

    #[test]
    fn a_daemon_finds_what_root_wrote_in_a_login_shell() {
        if !rustix::process::getuid().is_root() {
            return;
        }
        let place = Place::new();
        let written = r#"{"auths": {"a.example": {"auth": "one"}}}"#;
        Place::write(&place.root, "run/user/0/containers/auth.json", written);
        assert!(matches!(place.find().unwrap(), Credentials::Podman));
        let root = Dir::open_ambient_dir(place.root.path(), ambient_authority()).unwrap();
        let daemon = Surroundings::below_home(place.home.path());
        let found = Credentials::find(&root, place.root.path(), &daemon).unwrap();
        assert!(matches!(found, Credentials::Merged(_)));
        Place::write(&place.root, "run/containers/0/auth.json", written);
        assert!(matches!(place.find().unwrap(), Credentials::Merged(_)));
    }

    #[test]
    fn a_broken_file_is_named_and_its_content_is_not() {
        for text in ["{\"auths\": {\"a\": c2VjcmV0}}", "[]", "{\"auths\": []}"] {
            let place = Place::new();
            Place::write(&place.root, "etc/ostree/auth.json", text);
            let error = place.find().unwrap_err();
            let fault = Fault::find(&error).unwrap();
            assert_eq!(fault.kind, Kind::Invalid);
            assert!(fault.message.contains("etc/ostree/auth.json"), "{fault}");
            assert!(!format!("{error:#}").contains("c2VjcmV0"));
        }
    }
}
