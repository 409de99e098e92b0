//! Packages that came as files, kept by this host under their SHA-256.
//!
//! ```text
//! <state>/local/<sha256>.deb   mode 0600, exactly what was given
//! ```

use super::archive::{make_folder, remove_if_there};
use super::intent::LocalPackage;
use super::places::Places;
use crate::fault::{Fault, Kind};
use crate::host::plain_file;
use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use deb822_fast::Paragraph;
use fn_error_context::context;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Bytes that are copied at once.
const BUFFER: usize = 1 << 20;

/// The largest file that the format of Debian packages has room for.
const LARGEST: u64 = 9_999_999_999;

/// Returns where the file of a local package is kept.
pub fn path(state: &Path, sha256: &str) -> PathBuf {
    state.join("local").join(format!("{sha256}.deb"))
}

/// Keeps the package in the file at `path` and returns what it is.
///
/// Fails when it is no Debian binary package; nothing is kept then.
#[context("Keeping the package {}", plain_file::shown(path))]
pub fn add_local(places: &Places, path: &Path) -> Result<LocalPackage> {
    let name = plain_file::shown(path);
    let source = plain_file::open(path).map_err(|error| match Fault::find(&error) {
        Some(fault) => no_package(&name, fault.clone()).into(),
        None => error,
    })?;
    keep(places, source, &name)
}

/// Adds what to do to a fault about a path that may have been meant as what a package ships.
fn no_package(name: &str, fault: Fault) -> Fault {
    if name.ends_with(".deb") {
        return fault;
    }
    fault.hint(format!(
        "a path names a .deb file; which package ships a path tells `apt-file search {name}`, and that one is asked for by its name"
    ))
}

/// Fetches the package at an `https://` address, keeps it and returns what it is.
///
/// `http://` is refused: without a digest or a signature nothing would tell a forged package from the right one.
#[context("Fetching the package {uri}")]
pub fn download_url(places: &Places, uri: &str) -> Result<LocalPackage> {
    if !uri.starts_with("https://") {
        return Err(Fault::new(
            Kind::Denied,
            format!("{uri} is not fetched: only `https://` protects a single package"),
        )
        .hint("download and check the file yourself, and give its path")
        .into());
    }
    let folder = tempfile::tempdir().context("Making a temporary folder")?;
    let file = folder.path().join("package.deb");
    super::download::fetch(uri, &file, None)?;
    keep(places, File::open(&file)?, uri)
}

/// Removes the files of local packages that nothing needs; `keep` are the SHA-256 sums of the others.
pub fn forget_unused(places: &Places, keep: &[String]) -> Result<()> {
    let folder = places.state().join("local");
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("Reading {}", folder.display()))?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let wanted = name
            .strip_suffix(".deb")
            .is_some_and(|sum| keep.iter().any(|kept| kept == sum));
        if !wanted {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// Keeps what is in `source` now: a file that grows while it is read must not fill the disk.
fn keep(places: &Places, source: File, name: &str) -> Result<LocalPackage> {
    let size = source.metadata()?.len();
    if size > LARGEST {
        return Err(Fault::new(Kind::Invalid, format!("{name} is larger than any Debian package")).into());
    }
    let mut source = source.take(size);
    let folder = places.state().join("local");
    make_folder(&folder)?;
    // Temporary files have the mode 0600.
    let mut copy = NamedTempFile::new_in(&folder)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
        copy.write_all(&buffer[..count])?;
    }
    let record = describe(copy.path()).map_err(|error| {
        let what = format!("{name} is no Debian package: {error:#}");
        no_package(name, Fault::new(Kind::Invalid, what))
    })?;
    let field = |name: &str| record.get(name).unwrap_or_default().to_owned();
    let local = LocalPackage {
        name: field("Package"),
        version: field("Version"),
        architecture: field("Architecture"),
        sha256: hex::encode(digest.finalize()),
    };
    // The origin must be able to name it.
    let local: LocalPackage = local.to_string().parse()?;
    copy.as_file().sync_all()?;
    copy.persist(path(&places.state(), &local.sha256))?;
    Ok(local)
}

/// Returns the control fields of a package file, with `Size` as the indexes have it.
pub(super) fn describe(file: &Path) -> Result<Paragraph> {
    let text = Cmd::new("dpkg-deb").arg("--field").arg(file).run()?;
    let mut record: Paragraph = String::from_utf8_lossy(&text)
        .parse()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    record.set("Size", &std::fs::metadata(file)?.len().to_string());
    Ok(record)
}
