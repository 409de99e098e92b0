//! dpkg's database in a deployment, held against the files of the deployment.
//!
//! What a package ships below `/usr` must be there, as its checksums say. An image may be made otherwise on purpose, so
//! a file that differs although the deployment is what its commit says is a note. dpkg's diversions, its rules for
//! paths to leave out, and the links of a merged `/usr` are taken into account.

use super::finding::{Finding, Findings, is_denied};
use super::site::{Found, Site};
use crate::layer::packages;
use crate::report::Report;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::fs::Dir;
use deb822_fast::Deb822;
use ostree_ext::glib;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;

const DATABASE: &str = "usr/lib/sysimage/dpkg";

/// Top folders that are links into `/usr`.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// States of a package that is not set up to the end.
const UNFINISHED: [&str; 3] = ["half-installed", "unpacked", "half-configured"];

/// Files that a finding names before it counts the rest.
const EXAMPLES: usize = 3;

const BUFFER: usize = 1 << 16;

/// Looks at the database of every deployment, of equal ones once; `quick` compares no checksums.
pub(super) fn check(
    site: &Site<'_>,
    quick: bool,
    report: &dyn Report,
    findings: &mut Findings,
) -> Result<()> {
    let step = report.step("Checking package databases");
    let mut seen = BTreeSet::new();
    for found in &site.deployments {
        if !seen.insert(&found.commit) || !site.root.is_dir(&found.folder) {
            continue;
        }
        let root = site.root.open_dir(&found.folder)?;
        match deployment(&root, found, quick, findings) {
            Ok(()) => {}
            Err(error) if is_denied(&error) => findings.unread("package databases", format!("{error:#}")),
            Err(error) => return Err(error),
        }
    }
    step.done("Checked package databases");
    Ok(())
}

fn deployment(root: &Dir, found: &Found, quick: bool, findings: &mut Findings) -> Result<()> {
    if !root.is_dir(DATABASE) {
        return Ok(());
    }
    let thing = |rest: &str| format!("{}: {rest}", found.id);
    let status = match root.read(format!("{DATABASE}/status")) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Err(error.into()),
        Err(error) => {
            let message = format!(
                "dpkg's status file of the deployment {} cannot be read: {error}",
                found.id
            );
            findings.push(Finding::error("dpkg-status-unreadable", thing("status"), message));
            return Ok(());
        }
    };
    let parsed = match parse(&status) {
        Ok(packages) => packages,
        Err(error) => {
            let message = format!(
                "dpkg's status file of the deployment {} is damaged: {error:#}",
                found.id
            );
            findings.push(Finding::error("dpkg-status-unreadable", thing("status"), message));
            return Ok(());
        }
    };
    let rules = Rules::read(root)?;
    for package in parsed {
        if UNFINISHED.contains(&package.state.as_str()) {
            let message = format!(
                "The package {} of the deployment {} is {}",
                package.name, found.id, package.state
            );
            findings.push(
                Finding::warning("package-unfinished", thing(&package.name), message)
                    .hint("see the package's maintainer scripts in `journalctl APT_OSTREE_PACKAGE=NAME`"),
            );
            continue;
        }
        if !packages::INSTALLED.contains(&package.state.as_str()) {
            continue;
        }
        findings.checked.packages += 1;
        let Some(list) = package.info(root, "list")? else {
            let message = format!(
                "dpkg's list of the files of {} is missing in the deployment {}",
                package.name, found.id
            );
            findings.push(Finding::warning(
                "package-list-missing",
                thing(&package.name),
                message,
            ));
            continue;
        };
        let paths: Vec<String> = list
            .lines()
            .filter_map(|path| rules.place(path, &package.name))
            .collect();
        let mut missing = Vec::new();
        for path in &paths {
            if open(root, path, OFlags::PATH)?.is_none() {
                missing.push(path.clone());
            }
        }
        let mut differing = Vec::new();
        if let (false, Some(sums)) = (quick, package.info(root, "md5sums")?) {
            for (sum, path) in sums.lines().filter_map(|line| line.split_once("  ")) {
                let Some(place) = rules.place(&format!("/{path}"), &package.name) else {
                    continue;
                };
                if let Some(file) = open(root, &place, OFlags::RDONLY)? {
                    if md5(file).with_context(|| format!("Reading {place}"))? != sum {
                        differing.push(place);
                    }
                }
            }
        }
        for (code, paths, what) in [
            ("package-file-missing", missing, "lacks"),
            ("package-file-differs", differing, "has in another version"),
        ] {
            if !paths.is_empty() {
                let message = format!(
                    "The deployment {} {what} what the package {} ships: {}",
                    found.id,
                    package.name,
                    examples(&paths)
                );
                findings.push(Finding::note(
                    code,
                    format!("{} ({code})", thing(&package.name)),
                    message,
                ));
            }
        }
    }
    Ok(())
}

fn examples(paths: &[String]) -> String {
    let named: Vec<String> = paths
        .iter()
        .take(EXAMPLES)
        .map(|path| format!("/{path}"))
        .collect();
    match paths.len().saturating_sub(EXAMPLES) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

struct Package {
    name: String,
    architecture: String,
    state: String,
}

impl Package {
    /// Returns the text of one of dpkg's files about the package.
    fn info(&self, root: &Dir, kind: &str) -> Result<Option<String>> {
        for stem in [self.name.clone(), format!("{}:{}", self.name, self.architecture)] {
            let path = format!("{DATABASE}/info/{stem}.{kind}");
            match root.read(&path) {
                Ok(bytes) => return Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("Reading {path}")),
            }
        }
        Ok(None)
    }
}

/// Reads dpkg's status file.
fn parse(text: &str) -> Result<Vec<Package>> {
    let parsed: Deb822 = text.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut packages = Vec::new();
    for paragraph in parsed.iter() {
        let field = |name: &str| {
            let value = paragraph.get(name).map(|value| value.trim().to_owned());
            value.with_context(|| format!("An entry has no field {name}"))
        };
        let name = field("Package")?;
        let status = field("Status")?;
        let words: Vec<&str> = status.split(' ').collect();
        let [_, _, state] = words.as_slice() else {
            anyhow::bail!("The entry {name} has a status of other than three words");
        };
        packages.push(Package {
            architecture: field("Architecture").unwrap_or_default(),
            state: (*state).to_owned(),
            name,
        });
    }
    anyhow::ensure!(!packages.is_empty(), "It has no entry");
    Ok(packages)
}

/// What dpkg does with the paths of packages.
struct Rules {
    /// Where a path is when another package than the named one ships it.
    diversions: BTreeMap<String, (String, String)>,
    /// Patterns of paths that are left out (true) or in, the last that matches decides.
    filters: Vec<(bool, String)>,
}

impl Rules {
    fn read(root: &Dir) -> Result<Self> {
        let mut rules = Self {
            diversions: BTreeMap::new(),
            filters: Vec::new(),
        };
        let optional = |path: &str| match root.read(path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error).with_context(|| format!("Reading {path}")),
        };
        let diversions = optional(&format!("{DATABASE}/diversions"))?;
        let lines: Vec<&str> = diversions.lines().collect();
        for diversion in lines.chunks_exact(3) {
            let place = (diversion[1].to_owned(), diversion[2].to_owned());
            rules.diversions.insert(diversion[0].to_owned(), place);
        }
        let folder = "usr/etc/dpkg/dpkg.cfg.d";
        let mut files = vec!["usr/etc/dpkg/dpkg.cfg".to_owned()];
        if root.is_dir(folder) {
            let mut names = Vec::new();
            for entry in root.read_dir(folder)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            files.extend(names.into_iter().map(|name| format!("{folder}/{name}")));
        }
        for file in files {
            for line in optional(&file)?.lines().map(str::trim) {
                for (key, out) in [("path-exclude", true), ("path-include", false)] {
                    let value = line
                        .strip_prefix(key)
                        .map(|rest| rest.trim_start_matches(['=', ' ']));
                    rules
                        .filters
                        .extend(value.map(|pattern| (out, pattern.to_owned())));
                }
            }
        }
        Ok(rules)
    }

    /// Returns where a path of a package is expected, from the root without a leading `/`; nothing for what dpkg leaves
    /// out and for what is not below `/usr`.
    fn place(&self, path: &str, package: &str) -> Option<String> {
        let filter = self
            .filters
            .iter()
            .rfind(|(_, pattern)| packages::matches(pattern, path));
        if filter.is_some_and(|(out, _)| *out) {
            return None;
        }
        let path = match self.diversions.get(path) {
            Some((to, owner)) if owner != package => to,
            _ => path,
        };
        let path = path.trim_start_matches('/');
        let top = path.split('/').next().unwrap_or_default();
        match path.split_once('/') {
            Some(_) if MERGED.contains(&top) => Some(format!("usr/{path}")),
            Some(_) if top == "usr" => Some(path.to_owned()),
            _ => None,
        }
    }
}

/// Opens a path as a process in the root would; the last name may be a link, which is not followed and cannot be read.
fn open(root: &Dir, path: &str, how: OFlags) -> Result<Option<File>> {
    let flags = how | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("Opening {path}")),
    }
}

fn md5(mut file: File) -> Result<String> {
    let mut digest = glib::Checksum::new(glib::ChecksumType::Md5).context("MD5 is not available")?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return digest.string().context("MD5 has no result");
        }
        digest.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_where_dpkg_put_them() {
        let rules = Rules {
            diversions: BTreeMap::from([(
                "/usr/bin/sh".to_owned(),
                ("/usr/bin/sh.distrib".to_owned(), "dash".to_owned()),
            )]),
            filters: vec![
                (true, "/usr/share/doc/*".to_owned()),
                (false, "/usr/share/doc/*/copyright".to_owned()),
            ],
        };
        for (path, package, expected) in [
            ("/bin/ls", "coreutils", Some("usr/bin/ls")),
            ("/usr/bin/sh", "bash", Some("usr/bin/sh.distrib")),
            ("/usr/bin/sh", "dash", Some("usr/bin/sh")),
            ("/usr/share/doc/bash/README", "bash", None),
            (
                "/usr/share/doc/bash/copyright",
                "bash",
                Some("usr/share/doc/bash/copyright"),
            ),
            ("/etc/passwd", "base", None),
            ("/.", "base", None),
            ("/usr", "base", None),
            ("/lib", "base", None),
        ] {
            assert_eq!(rules.place(path, package).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_damaged_status_file_is_told_from_a_whole_one() {
        let whole = "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n";
        assert_eq!(parse(whole).unwrap().len(), 1);
        for text in ["", "\0\0\0\0", "Package: a\n", "Package: a\nStatus: installed\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
