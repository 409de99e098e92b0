//! The folder in which an import collects objects, so that a killed import can go on where it stopped.
//!
//! It lies in the repository's `tmp/`, holds `objects/`, content indexes and a journal with one line for each finished
//! layer, and is locked by the process that uses it. What a killed process wrote is complete as long as the kernel lives; after
//! a restart of the machine nobody knows what reached the disk, so a folder of another boot is thrown away.

use crate::host::{folder, process};
use crate::tree::Checksum;
use anyhow::Result;
use fn_error_context::context;
use ostree_ext::ostree;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

const PREFIX: &str = "apt-ostree-import.";
const JOURNAL: &str = "journal";
const OBJECTS: &str = "objects";

/// What is known of a finished layer; the journal and the layer's commit say the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Digest of the uncompressed layer.
    pub diff_id: String,
    /// Name of the object that lists the root directory.
    pub tree: String,
    /// Name of the root directory's metadata object.
    pub metadata: String,
    /// Facts about the layer that its tree does not show.
    pub traits: LayerTraits,
}

/// Facts about a layer that its stored tree does not show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerTraits {
    /// Whether a whiteout stands anywhere in it.
    pub whiteouts: bool,
    /// Whether it has entries below `/etc`.
    pub etc: bool,
    /// Whether it has entries below `/usr/etc`.
    pub usr_etc: bool,
    /// Directories that no entry declared; the metadata of a lower layer stays.
    pub implicit: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    boot: String,
    importer: String,
}

/// A locked scratch folder.
#[derive(Debug)]
pub struct Scratch {
    temporary: OwnedFd,
    name: String,
    folder: OwnedFd,
    journal: File,
}

impl Scratch {
    /// Takes over the folder of an import that was killed during this boot, or makes one, and removes the others.
    ///
    /// Returns with it the layers that were finished there.
    #[context("Preparing the import folder in the repository")]
    pub fn open(repo: &ostree::Repo) -> Result<(Self, Vec<LayerRecord>)> {
        let temporary = folder::open(repo.dfd_borrow(), "tmp")?;
        let mut chosen: Option<(Self, Vec<LayerRecord>)> = None;
        for entry in rustix::fs::Dir::read_from(&temporary)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if !name.starts_with(PREFIX) {
                continue;
            }
            let Some(folder) = folder::lock(temporary.as_fd(), name)? else {
                continue;
            };
            if chosen.is_none() {
                if let Some(found) = Self::resume(&temporary, name, folder)? {
                    chosen = Some(found);
                    continue;
                }
            }
            folder::remove_tree(temporary.as_fd(), name)?;
        }
        match chosen {
            Some(found) => Ok(found),
            None => Ok((Self::create(temporary)?, Vec::new())),
        }
    }

    fn resume(temporary: &OwnedFd, name: &str, folder: OwnedFd) -> Result<Option<(Self, Vec<LayerRecord>)>> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let Ok(journal) = rustix::fs::openat(&folder, JOURNAL, flags, Mode::empty()) else {
            return Ok(None);
        };
        let mut journal = File::from(journal);
        let mut text = String::new();
        if journal.read_to_string(&mut text).is_err() {
            return Ok(None);
        }
        let mut lines = text.lines();
        let head = lines
            .next()
            .and_then(|line| serde_json::from_str::<Head>(line).ok());
        let fits = head.is_some_and(|head| {
            head.importer == super::IMPORTER_VERSION && process::boot_id().is_ok_and(|boot| boot == head.boot)
        });
        if !fits || folder::open(folder.as_fd(), OBJECTS).is_err() {
            return Ok(None);
        }
        // A line that was cut off in the middle names a layer that is simply fetched again.
        let records = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
        if !text.ends_with('\n') {
            journal.write_all(b"\n")?;
        }
        let scratch = Self {
            temporary: temporary.try_clone()?,
            name: name.to_owned(),
            folder,
            journal,
        };
        Ok(Some((scratch, records)))
    }

    fn create(temporary: OwnedFd) -> Result<Self> {
        let (name, folder) = folder::create(temporary.as_fd(), PREFIX)?;
        rustix::fs::mkdirat(&folder, OBJECTS, Mode::from_raw_mode(0o700))?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
        let mut journal = File::from(rustix::fs::openat(
            &folder,
            JOURNAL,
            flags,
            Mode::from_raw_mode(0o600),
        )?);
        let head = Head {
            boot: process::boot_id()?,
            importer: super::IMPORTER_VERSION.to_owned(),
        };
        writeln!(journal, "{}", serde_json::to_string(&head)?)?;
        Ok(Self {
            temporary,
            name,
            folder,
            journal,
        })
    }

    /// Opens the folder for staged objects.
    pub fn objects(&self) -> Result<OwnedFd> {
        folder::open(self.folder.as_fd(), OBJECTS)
    }

    /// Notes that all objects of a layer are staged or stored.
    #[context("Noting a finished layer")]
    pub fn record(&mut self, record: &LayerRecord) -> Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.journal.write_all(&line)?;
        Ok(())
    }

    /// Keeps the content index of a layer until its commit is written.
    #[context("Keeping a content index")]
    pub fn keep_index(&self, diff_id: &str, index: &[u8]) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let mut file = File::from(rustix::fs::openat(
            &self.folder,
            index_name(diff_id),
            flags,
            mode,
        )?);
        file.write_all(index)?;
        Ok(())
    }

    /// Returns the content index that was kept for a layer; one that was cut off is none of a known form.
    #[context("Reading a content index")]
    pub fn index(&self, diff_id: &str) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.folder, index_name(diff_id), flags, Mode::empty()) {
            Ok(file) => {
                let mut bytes = Vec::new();
                File::from(file).read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the folder: its objects are published, or cannot be used.
    pub fn remove(self) -> Result<()> {
        folder::remove_tree(self.temporary.as_fd(), &self.name)
    }
}

/// Returns the name of a file for the index of a layer; a diff id is whatever the configuration of an image says.
fn index_name(diff_id: &str) -> String {
    format!("index-{}", Checksum::of(diff_id.as_bytes()))
}
