//! Packages that are ready to be unpacked: verified, their data not compressed.
//!
//! ```text
//! archives/<name>_<version>_<architecture>.<first 16 digits of the SHA-256>.deb
//! archives/<the same>.sum     what the file is, and when that was last checked
//! archives/partial            downloads; nothing there is trusted
//! ```
//! dpkg spends half of its time inflating; a package that is inflated while others are fetched saves that at every
//! later layering. A file is hashed again after each start of the machine and after each change of its inode, so that
//! neither a power cut nor a stray write goes unnoticed; in between its size and times are enough.

use super::archive::{make_folder, remove_if_there, write_if_other};
use super::plan::PackageId;
use crate::fault::{Fault, Kind};
use crate::host::runner::Cmd;
use anyhow::{Context, Result, bail};
use fn_error_context::context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes that the cache may have besides what deployments need.
pub const LIMIT: u64 = 2 << 30;

const BUFFER: usize = 1 << 20;

/// The length of a member's header in an ar archive, and where the ten digits of its size are.
const HEADER: u64 = 60;
const SIZE: u64 = 48;

/// The folder of the packages.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    boot: String,
}

/// What is known of a cached file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    sha256: String,
    size: u64,
    /// The start of the machine during which it was checked, and the inode's state then.
    boot: String,
    inode: u64,
    changed: (i64, i64),
}

impl Cache {
    /// Returns the cache below a host's cache folder; nothing is made.
    pub(super) fn of(cache: &Path) -> Result<Self> {
        let boot =
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("Reading the boot id")?;
        Ok(Self {
            folder: cache.join("archives"),
            boot: boot.trim().to_owned(),
        })
    }

    /// Returns the folder for downloads, which is empty and belongs to the user that fetches.
    pub(super) fn clean_partial(&self, user: Option<u32>) -> Result<PathBuf> {
        let partial = self.folder.join("partial");
        make_folder(&partial)?;
        for entry in std::fs::read_dir(&partial)? {
            std::fs::remove_file(entry?.path())?;
        }
        rustix::fs::chmod(&partial, rustix::fs::Mode::from_raw_mode(0o700))?;
        if user.is_some() {
            std::os::unix::fs::chown(&partial, user, None)?;
        }
        Ok(partial)
    }

    /// Returns the file of a package when the cache has it, unharmed; a harmed one is removed.
    pub(super) fn find(&self, id: &PackageId, sha256: &str) -> Result<Option<PathBuf>> {
        let path = self.path(id, sha256);
        let known = std::fs::read(sum_of(&path))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Sum>(&bytes).ok());
        let (Some(known), Ok(file)) = (known, File::open(&path)) else {
            return Ok(None);
        };
        let now = self.state(&file, known.sha256.clone())?;
        if now == known {
            // Tells `trim` that it was of use.
            File::open(sum_of(&path))?.set_modified(SystemTime::now())?;
            return Ok(Some(path));
        }
        if digest(file)? != known.sha256 {
            tracing::warn!("the cached package {} is damaged and removed", path.display());
            self.remove(&path)?;
            return Ok(None);
        }
        write_if_other(&sum_of(&path), &serde_json::to_vec(&now)?, 0o644)?;
        Ok(Some(path))
    }

    /// Verifies a package file, takes it in with its data inflated, and returns the new file.
    #[context("Taking in the package {} {}", id.name, id.version)]
    pub(super) fn take(&self, source: &Path, id: &PackageId, sha256: &str) -> Result<PathBuf> {
        let found = digest(File::open(source)?)?;
        if found != sha256 {
            return Err(Fault::new(
                Kind::Invalid,
                format!(
                    "The file of {} has the SHA-256 {found} instead of {sha256}",
                    id.name
                ),
            )
            .into());
        }
        let path = self.path(id, sha256);
        self.remove(&path)?;
        let mut plain = tempfile::Builder::new()
            .prefix("inflating.")
            .tempfile_in(self.folder.join("partial"))?;
        inflate(source, plain.as_file_mut())?;
        plain.as_file_mut().seek(SeekFrom::Start(0))?;
        let sha256 = digest(plain.as_file().try_clone()?)?;
        rustix::fs::fchmod(plain.as_file(), rustix::fs::Mode::from_raw_mode(0o644))?;
        let file = plain.persist(&path)?;
        // After the rename, which changes the inode's time.
        let sum = self.state(&file, sha256)?;
        write_if_other(&sum_of(&path), &serde_json::to_vec(&sum)?, 0o644)?;
        Ok(path)
    }

    /// Removes the packages that were not used for the longest time until the rest is below `limit` bytes.
    ///
    /// What is in `keep` stays and does not count.
    #[context("Trimming the package cache")]
    pub(super) fn trim(&self, keep: &[PackageId], limit: u64) -> Result<()> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let kept: Vec<String> = keep.iter().map(stem).collect();
        let mut loose = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let Some(name) = name.strip_suffix(".deb") else {
                continue;
            };
            if kept
                .iter()
                .any(|kept| name.rsplit_once('.').is_some_and(|(stem, _)| stem == kept))
            {
                continue;
            }
            let used = std::fs::metadata(sum_of(&path)).and_then(|state| state.modified());
            loose.push((
                used.unwrap_or(SystemTime::UNIX_EPOCH),
                std::fs::metadata(&path)?.len(),
                path,
            ));
        }
        loose.sort();
        let mut size: u64 = loose.iter().map(|(_, size, _)| size).sum();
        for (_, bytes, path) in loose {
            if size <= limit {
                break;
            }
            self.remove(&path)?;
            size -= bytes;
        }
        Ok(())
    }

    fn path(&self, id: &PackageId, sha256: &str) -> PathBuf {
        let digits = sha256.get(..16).unwrap_or(sha256);
        self.folder.join(format!("{}.{digits}.deb", stem(id)))
    }

    fn state(&self, file: &File, sha256: String) -> Result<Sum> {
        let state = file.metadata()?;
        Ok(Sum {
            sha256,
            size: state.len(),
            boot: self.boot.clone(),
            inode: state.ino(),
            changed: (state.ctime(), state.ctime_nsec()),
        })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        // The sum first: a file without one counts for nothing.
        remove_if_there(&sum_of(path))?;
        remove_if_there(path)
    }
}

fn stem(id: &PackageId) -> String {
    format!(
        "{}_{}_{}",
        id.name,
        id.version.replace(':', "%3a"),
        id.architecture
    )
}

fn sum_of(path: &Path) -> PathBuf {
    path.with_extension("sum")
}

fn digest(mut file: File) -> Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex::encode(digest.finalize()));
        }
        digest.update(&buffer[..count]);
    }
}

/// Copies a package with its data member not compressed; everything else stays as it is.
fn inflate(source: &Path, target: &mut File) -> Result<()> {
    let mut members = ar::Archive::new(File::open(source)?);
    target.write_all(b"!<arch>\n")?;
    let mut has_data = false;
    while let Some(member) = members.next_entry() {
        let mut member = member.context("Reading a member of the package")?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        if !name.starts_with("data.tar") || name == "data.tar" {
            has_data |= name == "data.tar";
            target.write_all(header(&name, member.header().size()).as_bytes())?;
            std::io::copy(&mut member, target)?;
            pad(target)?;
            continue;
        }
        has_data = true;
        let start = target.stream_position()?;
        target.write_all(header("data.tar", 0).as_bytes())?;
        // dpkg's own reader, so that every compression it knows is known here.
        Cmd::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(source)
            .output_to(target.try_clone()?)
            .run()?;
        let end = target.seek(SeekFrom::End(0))?;
        let size = end - start - HEADER;
        target.write_all_at(format!("{size:<10}").as_bytes(), start + SIZE)?;
        pad(target)?;
    }
    if !has_data {
        bail!("The package has no data");
    }
    Ok(())
}

fn header(name: &str, size: u64) -> String {
    format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644)
}

/// Members begin at even places.
fn pad(target: &mut File) -> Result<()> {
    if target.stream_position()? % 2 == 1 {
        target.write_all(b"\n")?;
    }
    Ok(())
}
