//! What a host asks for on top of its image, as the origin file keeps it.
//!
//! Pure data: reading and writing the origin is `deployment::origin`'s, everything that is computed from an intent
//! stands in the derived commit's [`super::record::Record`].

use crate::fault::{Fault, Kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The whole intent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// Packages from repositories: `[packages] requested`.
    pub packages: BTreeSet<PackageRequest>,
    /// Packages from files: `[packages] requested-local`.
    pub local_packages: BTreeSet<LocalPackage>,
    /// Packages of the image that are taken out: `[overrides] remove`.
    pub removals: BTreeSet<PackageRequest>,
    /// Packages of the image that follow a repository instead: `[overrides] replace`.
    pub replacements: BTreeSet<PackageRequest>,
    /// Packages of the image that a file replaces: `[overrides] replace-local`.
    pub local_replacements: BTreeSet<LocalPackage>,
    /// What to do with maintainer scripts that cannot work offline: `[apt-ostree] scripts`.
    pub scripts: ScriptMode,
    /// Whose file stays when two packages ship the same path: `[apt-ostree] conflicts`.
    pub conflicts: ConflictMode,
    /// SHA-256 of the stored debconf answers: `[apt-ostree] debconf`.
    pub debconf: Option<String>,
    /// Whether the initramfs is made on this host: `[apt-ostree] regenerate-initramfs`.
    pub regenerate_initramfs: bool,
    /// More arguments for dracut: `[apt-ostree] initramfs-args`.
    pub initramfs_args: Vec<String>,
    /// Files of the host's `/etc` that are added to the initramfs: `[apt-ostree] initramfs-etc`.
    pub initramfs_etc: BTreeSet<String>,
}

impl Intent {
    /// Returns whether the image is deployed as it is.
    ///
    /// Files of `/etc` for the initramfs do not count: they are laid beside the image's own initramfs.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
            && self.local_packages.is_empty()
            && self.removals.is_empty()
            && self.replacements.is_empty()
            && self.local_replacements.is_empty()
            && !self.regenerate_initramfs
    }
}

/// A package from the repositories, in apt's own words: `name`, `name:arch`, `name=version`, `name/suite`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageRequest {
    /// The name.
    pub name: String,
    /// The architecture, when one was given.
    pub architecture: Option<String>,
    /// The exact version, when one was given.
    pub version: Option<String>,
    /// The suite to take it from, when one was given.
    pub suite: Option<String>,
}

impl FromStr for PackageRequest {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let refuse = |reason: &str| {
            Fault::new(Kind::Usage, format!("`{text}` is no package request: {reason}")).hint(
                "give NAME, NAME:ARCH, NAME=VERSION, NAME/SUITE, or a path that starts with `./` or `/`",
            )
        };
        if text.ends_with('-') {
            return Err(refuse("apt takes what ends with `-` for a removal"));
        }
        let (rest, version) = match text.split_once('=') {
            Some((rest, version)) => (rest, Some(version)),
            None => (text, None),
        };
        let (rest, suite) = match rest.split_once('/') {
            Some((rest, suite)) => (rest, Some(suite)),
            None => (rest, None),
        };
        if version.is_some() && suite.is_some() {
            return Err(refuse("it names both a version and a suite"));
        }
        let (name, architecture) = match rest.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (rest, None),
        };
        // Debian policy 5.6.1, 5.6.8 and 5.6.12; a leading letter or digit keeps options out.
        let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if name.len() < 2 || !begins_well || !name.chars().all(is_name) {
            return Err(refuse(
                "a name has lower case letters, digits and `+-.`, and begins with a letter or digit",
            ));
        }
        if architecture.is_some_and(|text| text.is_empty() || !text.chars().all(is_name)) {
            return Err(refuse("the architecture is no word"));
        }
        let is_version = |c: char| c.is_ascii_alphanumeric() || "+-.~:".contains(c);
        if version.is_some_and(|text| text.is_empty() || !text.chars().all(is_version)) {
            return Err(refuse("the version has characters that no version has"));
        }
        let is_suite = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        if suite.is_some_and(|text| text.is_empty() || text.starts_with('-') || !text.chars().all(is_suite)) {
            return Err(refuse("the suite has characters that no suite has"));
        }
        Ok(Self {
            name: name.to_owned(),
            architecture: architecture.map(str::to_owned),
            version: version.map(str::to_owned),
            suite: suite.map(str::to_owned),
        })
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c)
}

impl fmt::Display for PackageRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(architecture) = &self.architecture {
            write!(f, ":{architecture}")?;
        }
        if let Some(version) = &self.version {
            write!(f, "={version}")?;
        }
        if let Some(suite) = &self.suite {
            write!(f, "/{suite}")?;
        }
        Ok(())
    }
}

/// A package that came as a file and is kept by this host: `<sha256>:name_version_architecture`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPackage {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The architecture; `all` for a package without one.
    pub architecture: String,
    /// SHA-256 of the file, in hexadecimal; its name in the host's store.
    pub sha256: String,
}

impl LocalPackage {
    /// Returns `name_version_architecture`, by which a user may name it.
    pub fn id(&self) -> String {
        format!("{}_{}_{}", self.name, self.version, self.architecture)
    }
}

impl FromStr for LocalPackage {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let refuse = || {
            Fault::new(
                Kind::Invalid,
                format!("`{text}` in an origin is no local package (`<sha256>:name_version_architecture`)"),
            )
        };
        let (sha256, id) = text.split_once(':').ok_or_else(refuse)?;
        let mut parts = id.splitn(3, '_');
        let (Some(name), Some(version), Some(architecture)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse());
        };
        if sha256.len() != 64
            || !sha256
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(refuse());
        }
        // The parts become words of command lines.
        format!("{name}:{architecture}={version}")
            .parse::<PackageRequest>()
            .map_err(|_| refuse())?;
        Ok(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: architecture.to_owned(),
            sha256: sha256.to_owned(),
        })
    }
}

impl fmt::Display for LocalPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sha256, self.id())
    }
}

/// What to do with a maintainer script that matches a pattern that cannot work offline, or that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScriptMode {
    /// Refuse before anything is unpacked.
    Strict,
    /// Run it and tell; a script that fails ends the transaction.
    #[default]
    Warn,
    /// Unpack the package, do not run that script, and record it.
    Skip,
}

/// Whose file stays when two packages ship the same path with different content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConflictMode {
    /// The transaction fails and names both packages.
    #[default]
    Fail,
    /// The package that was unpacked last wins.
    KeepLatest,
    /// What was there before wins.
    KeepBase,
}

macro_rules! words {
    ($type:ident, $what:literal, $($variant:ident = $word:literal),+) => {
        impl $type {
            /// Every value with its word on the command line and in the origin.
            pub const WORDS: &'static [(Self, &'static str)] = &[$((Self::$variant, $word)),+];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer)?;
                word.parse().map_err(serde::de::Error::custom)
            }
        }

        impl FromStr for $type {
            type Err = Fault;

            fn from_str(text: &str) -> Result<Self, Fault> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(Fault::new(
                        Kind::Usage,
                        format!("`{text}` is no {}; there is: {}", $what, [$($word),+].join(", ")),
                    )),
                }
            }
        }
    };
}

words!(
    ScriptMode,
    "mode for scripts",
    Strict = "strict",
    Warn = "warn",
    Skip = "skip"
);
words!(
    ConflictMode,
    "mode for file conflicts",
    Fail = "fail",
    KeepLatest = "keep-latest",
    KeepBase = "keep-base"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip_and_options_are_refused() {
        for text in [
            "htop",
            "libc6:i386",
            "nginx=1:2.3~rc1-4+b1",
            "git/trixie-backports",
            "g++-14:amd64=1",
        ] {
            assert_eq!(text.parse::<PackageRequest>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "-y",
            "--force",
            "A",
            "a b",
            "x;rm",
            "foo=",
            "foo/",
            "foo:",
            "foo=1/x",
            "foo=$(id)",
            "foo/-t",
            "foo-",
            "foo:amd64-",
            "foo=1-",
            "foo/sid-",
        ] {
            assert!(text.parse::<PackageRequest>().is_err(), "{text}");
        }
    }

    #[test]
    fn local_packages_round_trip() {
        let text = format!("{}:foo_1:1.2-3_amd64", "a".repeat(64));
        let local = text.parse::<LocalPackage>().unwrap();
        assert_eq!(
            (local.to_string(), local.id()),
            (text, "foo_1:1.2-3_amd64".to_owned())
        );
        for text in [
            "foo_1_all",
            "ab:foo_1_all",
            &format!("{}:foo_1", "a".repeat(64)),
            &format!("{}:-o_1_all", "a".repeat(64)),
        ] {
            assert!(text.parse::<LocalPackage>().is_err(), "{text}");
        }
    }

    #[test]
    fn words_round_trip() {
        for (mode, word) in ScriptMode::WORDS {
            assert_eq!(
                (word.parse::<ScriptMode>().unwrap(), mode.to_string().as_str()),
                (*mode, *word)
            );
        }
        for (mode, word) in ConflictMode::WORDS {
            assert_eq!(
                (word.parse::<ConflictMode>().unwrap(), mode.to_string().as_str()),
                (*mode, *word)
            );
        }
    }
}
