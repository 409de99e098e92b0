//! The entries of a layer's archive, one after the other, with what the headers before them say.

use super::header::{self, BLOCK, EntryKind, Header};
use super::inflate::Archive;
use super::object::ObjectStore;
use crate::fault::{Fault, Kind};
use crate::tree::{Checksum, Metadata};
use anyhow::Result;
use std::collections::BTreeMap;

/// A file up to this size is held while its name is computed, so that an existing one is not written.
const HELD: u64 = 4 * 1024 * 1024;
/// The most bytes of PAX records or of a GNU long name.
const MAX_EXTENSION: u64 = 1024 * 1024;
/// Entries in one layer; more would not fit the memory this is allowed to take.
const MAX_ENTRIES: u64 = 4_000_000;

/// An entry with its long name, long target and PAX records worked in.
#[derive(Debug)]
pub(super) struct Entry {
    /// The header; path, link, size and owner are the final ones.
    pub(super) header: Header,
    /// PAX records.
    pub(super) pax: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Entry {
    /// Returns whether the entry describes a file with holes.
    pub(super) fn is_sparse(&self) -> bool {
        self.header.kind == EntryKind::Sparse || self.pax.keys().any(|key| key.starts_with(b"GNU.sparse."))
    }

    /// Returns the bytes of content that follow.
    pub(super) fn size(&self) -> u64 {
        match self.header.kind {
            EntryKind::Regular => self.header.size,
            _ => 0,
        }
    }
}

/// Reads the archive of one layer.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    archive: Archive,
    digest: &'a str,
    count: u64,
    held: Vec<u8>,
}

impl<'a> Reader<'a> {
    /// Returns a reader of the archive of the layer with this digest.
    pub(super) fn new(archive: Archive, digest: &'a str) -> Self {
        Self {
            archive,
            digest,
            count: 0,
            held: Vec::new(),
        }
    }

    /// Returns the digest of the layer.
    pub(super) fn digest(&self) -> &'a str {
        self.digest
    }

    /// Returns the next entry; its content, where it has any, must be read or skipped before the one after it.
    ///
    /// At the end, everything behind the archive is passed over.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let (mut long_name, mut long_link, mut pax) = (None, None, BTreeMap::new());
        let mut block = [0; BLOCK];
        loop {
            match self.archive.fill(&mut block) {
                0 => return Ok(None),
                BLOCK => {}
                _ => return Err(self.broken("it ends within a header")),
            }
            let Some(header) = Header::parse(&block).map_err(|error| self.broken(format!("{error:#}")))?
            else {
                self.archive.drain();
                return Ok(None);
            };
            match header.kind {
                EntryKind::LongName => long_name = Some(self.text(&header)?),
                EntryKind::LongLink => long_link = Some(self.text(&header)?),
                EntryKind::PaxLocal => {
                    let body = self.extension_body(&header)?;
                    pax = header::pax_records(&body).map_err(|error| self.broken(format!("{error:#}")))?;
                }
                EntryKind::PaxGlobal => {
                    self.extension_body(&header)?;
                }
                _ => return self.entry(header, long_name, long_link, pax).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        mut header: Header,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        pax: BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<Entry> {
        self.count += 1;
        if self.count > MAX_ENTRIES {
            return Err(self.broken(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let record = |key: &str| pax.get(key.as_bytes());
        if let Some(path) = record("path").or(long_name.as_ref()) {
            header.path.clone_from(path);
        }
        // Before POSIX a directory was a file whose name ends in a slash; a long name that is cut off in the header may
        // end in one as well, so this is about the whole name.
        if header.kind == EntryKind::Regular && header.path.ends_with(b"/") {
            header.kind = EntryKind::Directory;
        }
        if let Some(link) = record("linkpath").or(long_link.as_ref()) {
            header.link.clone_from(link);
        }
        for (key, field) in [
            ("size", &mut header.size),
            ("uid", &mut header.uid),
            ("gid", &mut header.gid),
        ] {
            if let Some(value) = record(key) {
                *field = header::decimal(value).map_err(|error| self.broken(format!("{error:#}")))?;
            }
        }
        Ok(Entry { header, pax })
    }

    /// Stores the content of a regular file and returns its object.
    pub(super) fn file(&mut self, store: &ObjectStore, metadata: &Metadata, size: u64) -> Result<Checksum> {
        let object = if size <= HELD {
            let length = usize::try_from(size)?;
            // The borrow of the archive ends before the error does, so the object is made in two steps.
            let whole = match self.archive.slice(length) {
                Some(content) => Some(store.write_file(metadata, content)?),
                None => None,
            };
            match whole {
                Some(object) => object,
                None => {
                    self.held.resize(length, 0);
                    if self.archive.fill(&mut self.held) != length {
                        return Err(self.broken("it ends within a file"));
                    }
                    store.write_file(metadata, &self.held)?
                }
            }
        } else {
            let mut file = store.begin_file(metadata, size)?;
            let mut left = size;
            while left > 0 {
                let bytes = self.archive.next(left);
                if bytes.is_empty() {
                    return Err(self.broken("it ends within a file"));
                }
                left -= bytes.len() as u64;
                file.write(bytes)?;
            }
            file.finish()?
        };
        self.pad(size)?;
        Ok(object)
    }

    /// Returns content of at most `most` bytes.
    pub(super) fn content(&mut self, size: u64, most: u64) -> Result<Vec<u8>> {
        if size > most {
            return Err(self.broken(format!(
                "it has an object of {size} bytes where {most} are the most"
            )));
        }
        let mut content = vec![0; usize::try_from(size)?];
        if self.archive.fill(&mut content) != content.len() {
            return Err(self.broken("it ends within a file"));
        }
        self.pad(size)?;
        Ok(content)
    }

    fn text(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut body = self.extension_body(header)?;
        body.truncate(body.iter().position(|byte| *byte == 0).unwrap_or(body.len()));
        Ok(body)
    }

    fn extension_body(&mut self, header: &Header) -> Result<Vec<u8>> {
        if header.size > MAX_EXTENSION {
            return Err(self.broken("it has a header of more than a megabyte"));
        }
        let mut body = vec![0; usize::try_from(header.size)?];
        if self.archive.fill(&mut body) != body.len() {
            return Err(self.broken("it ends within a header"));
        }
        self.pad(header.size)?;
        Ok(body)
    }

    /// Passes over the content of an entry.
    pub(super) fn skip(&mut self, size: u64) -> Result<()> {
        if !self.archive.skip(size) {
            return Err(self.broken("it ends within a file"));
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let block = BLOCK as u64;
        if self.archive.skip((block - size % block) % block) {
            Ok(())
        } else {
            Err(self.broken("it ends within a file"))
        }
    }

    /// Returns the fault that says why this is no archive.
    pub(super) fn broken(&self, reason: impl std::fmt::Display) -> anyhow::Error {
        Fault::new(
            Kind::Invalid,
            format!("Layer {} is not a readable archive: {reason}", self.digest),
        )
        .into()
    }
}
