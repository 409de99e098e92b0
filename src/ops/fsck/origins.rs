//! The origins: readable, and what they name is kept by this host.

use super::finding::{Finding, Findings, Remedy, is_denied};
use super::site::{Found, Site};
use crate::deployment::origin::Origin;
use crate::layer::intent::Intent;
use crate::layer::places::Places;
use crate::layer::store;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Looks at the origin of every deployment; `quick` does not read stored packages.
pub(super) fn check(site: &Site<'_>, quick: bool, findings: &mut Findings) -> Result<()> {
    for found in &site.deployments {
        if let Some(intent) = origin(site, found, findings)? {
            stored(site, found, &intent, quick, findings)?;
        }
    }
    Ok(())
}

/// Returns where the origin of a deployment is, below the sysroot.
fn path(found: &Found) -> PathBuf {
    let mut name = found.folder.clone().into_os_string();
    name.push(".origin");
    PathBuf::from(name)
}

fn origin(site: &Site<'_>, found: &Found, findings: &mut Findings) -> Result<Option<Intent>> {
    let path = path(found);
    let thing = path.display().to_string();
    let rebase = "choose what to follow with `apt-ostree rebase REF`";
    let text = match site.root.read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("The deployment {} has no origin file", found.id);
            findings.push(Finding::error("origin-missing", thing, message).hint(rebase));
            return Ok(None);
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            findings.unread("origins", thing);
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("Reading {thing}")),
    };
    let origin = match Origin::parse(&text) {
        Ok(origin) => origin,
        Err(error) => {
            let message = format!("The origin file /{thing} is damaged: {error:#}");
            findings.push(
                Finding::error("origin-unreadable", thing, message)
                    .remedy(Remedy::SetAside(path))
                    .hint(format!("`--repair` keeps it beside its place; then {rebase}")),
            );
            return Ok(None);
        }
    };
    if let Err(error) = origin.reference() {
        let message = format!("The origin file /{thing} names no image that can be used: {error:#}");
        findings.push(Finding::error("origin-reference", &thing, message).hint(rebase));
    }
    match origin.intent() {
        Ok(intent) => Ok(Some(intent)),
        Err(error) => {
            let message = format!("The requests of the origin file /{thing} cannot be used: {error:#}");
            findings.push(
                Finding::error("origin-requests", thing, message)
                    .hint("drop every request with `apt-ostree reset`, or mend the origin file"),
            );
            Ok(None)
        }
    }
}

/// Checks the packages and answers that an origin names by their SHA-256.
fn stored(
    site: &Site<'_>,
    found: &Found,
    intent: &Intent,
    quick: bool,
    findings: &mut Findings,
) -> Result<()> {
    let places = Places::of(site.host.path(), &found.stateroot);
    for package in intent.local_packages.iter().chain(&intent.local_replacements) {
        let path = store::path(&places.state(), &package.sha256);
        let verb = match intent.local_packages.contains(package) {
            true => "uninstall",
            false => "override reset",
        };
        let hint = format!(
            "give its file again: `apt-ostree {verb} {}`, then `apt-ostree install FILE`",
            package.name
        );
        let sort = Sort {
            code: "local-package",
            name: format!("package {}", package.id()),
            hint,
        };
        compare(&path, &package.sha256, &sort, quick, findings)?;
    }
    if let Some(digest) = &intent.debconf {
        let sort = Sort {
            code: "answers",
            name: "answers for debconf".to_owned(),
            hint: "give them again with `--debconf FILE`".to_owned(),
        };
        compare(&places.debconf(digest), digest, &sort, quick, findings)?;
    }
    Ok(())
}

struct Sort {
    code: &'static str,
    name: String,
    hint: String,
}

fn compare(path: &Path, sha256: &str, sort: &Sort, quick: bool, findings: &mut Findings) -> Result<()> {
    let thing = path.display().to_string();
    if findings.list.iter().any(|finding| finding.thing == thing) {
        return Ok(());
    }
    let state = match sum(path, quick) {
        Ok(None) => return Ok(()),
        Ok(Some(found)) if found == sha256 => return Ok(()),
        Ok(Some(_)) => ("corrupt", "is damaged"),
        Err(error) if is_denied(&error) => {
            findings.unread("stored packages and answers", thing);
            return Ok(());
        }
        Err(error) if is_missing(&error) => ("missing", "is missing"),
        Err(error) => return Err(error),
    };
    let message = format!("The {} that an origin names, {thing}, {}", sort.name, state.1);
    let code = format!("{}-{}", sort.code, state.0);
    findings.push(Finding::error(&code, thing, message).hint(&sort.hint));
    Ok(())
}

/// Returns the SHA-256 of a file; of a file that is only looked for, nothing.
fn sum(path: &Path, quick: bool) -> Result<Option<String>> {
    let mut file = File::open(path).with_context(|| format!("Opening {}", path.display()))?;
    if quick {
        return Ok(None);
    }
    let mut digest = Sha256::new();
    std::io::copy(&mut file, &mut digest).with_context(|| format!("Reading {}", path.display()))?;
    Ok(Some(hex::encode(digest.finalize())))
}

fn is_missing(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Renames an origin file that cannot be read, so that nothing of it is lost and the sysroot can be loaded.
pub(super) fn set_aside(site: &Site<'_>, path: &Path) -> Result<()> {
    for number in 0.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        if site.root.symlink_metadata(&name).is_err() {
            return site
                .root
                .rename(path, &site.root, &name)
                .with_context(|| format!("Setting /{} aside", path.display()));
        }
    }
    Ok(())
}
