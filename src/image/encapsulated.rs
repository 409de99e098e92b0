//! The OSTree part of an encapsulated image: layers that carry a commit and its objects instead of a file tree.
//!
//! ostree-ext and rpm-ostree write such images. The layer that the label names by its diff id is the last of them;
//! layers above it are ordinary ones. The first holds the commit and its directories, the others files only, and
//! each file is an entry `sysroot/ostree/repo/objects/XX/REST.file` behind one that names its attributes. Every
//! object is stored under the name its content has, which must be the name the archive gives it.

use super::header::EntryKind;
use super::inflate::Archive;
use super::layer::Layer;
use super::object::ObjectStore;
use super::reader::{Entry, Reader};
use super::scratch::LayerTraits;
use crate::fault::{Fault, Kind};
use crate::tree::{Checksum, Directory, Metadata, MetadataKind, Objects, Xattrs};
use anyhow::{Context, Result};
use oci_spec::image::ImageConfiguration;
use std::collections::HashMap;

/// Names the diff id of the last layer of the OSTree part.
const LABEL_FINAL_DIFF_ID: &str = "ostree.final-diffid";
/// Where the objects lie in the archive.
const OBJECTS: &str = "sysroot/ostree/repo/objects/";
/// The largest object that is no file, as libostree limits it.
const MAX_METADATA: u64 = 128 * 1024 * 1024;

/// Returns how many of the first layers are the OSTree part; none for an image from a Containerfile.
///
/// Fails when the label names a layer the image does not have.
pub(super) fn layer_count(config: &ImageConfiguration) -> Result<usize> {
    let Some(last) = config
        .labels_of_config()
        .and_then(|labels| labels.get(LABEL_FINAL_DIFF_ID))
    else {
        return Ok(0);
    };
    match config
        .rootfs()
        .diff_ids()
        .iter()
        .position(|diff_id| diff_id == last)
    {
        Some(index) => Ok(index + 1),
        None => Err(Fault::new(
            Kind::Invalid,
            format!("The label {LABEL_FINAL_DIFF_ID} names {last}, which is no layer of the image"),
        )
        .into()),
    }
}

/// Reads a layer of the OSTree part; its tree is a flat list of the files it carries.
pub(super) fn unpack(archive: Archive, digest: &str, store: &ObjectStore) -> Result<Layer> {
    let metadata = Directory::write_metadata(store, &Metadata::root(0o755))?;
    let mut unpacker = Unpacker {
        reader: Reader::new(archive, digest),
        store,
        files: Directory::new(metadata),
        commit: None,
        attributes: HashMap::new(),
        next: None,
    };
    while let Some(entry) = unpacker.reader.next()? {
        unpacker.entry(&entry)?;
    }
    let Unpacker {
        mut files, commit, ..
    } = unpacker;
    files.store(store)?;
    Ok(Layer {
        root: files,
        traits: LayerTraits::default(),
        commit,
    })
}

struct Unpacker<'a> {
    reader: Reader<'a>,
    store: &'a ObjectStore,
    files: Directory,
    commit: Option<Vec<u8>>,
    /// Attributes by the checksum under which the archive keeps them.
    attributes: HashMap<String, Xattrs>,
    /// The file that comes next, and the attributes it has.
    next: Option<(String, Xattrs)>,
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        let path = std::str::from_utf8(&entry.header.path).unwrap_or_default();
        let path = path.trim_start_matches("./").trim_start_matches('/');
        let Some(object) = path
            .strip_prefix(OBJECTS)
            .filter(|_| entry.header.kind != EntryKind::Directory)
        else {
            // The same files under their paths, as hard links; for other tools to look at.
            return self.reader.skip(entry.size());
        };
        let Some((checksum, extension)) = parse_name(object) else {
            return Err(self.reader.broken(format!("`{path}` is no name of an object")));
        };
        match extension {
            "commit" => {
                let bytes = self.checked(entry, &checksum)?;
                self.commit = Some(bytes);
            }
            "dirtree" | "dirmeta" => {
                let bytes = self.checked(entry, &checksum)?;
                let kind = match extension {
                    "dirtree" => MetadataKind::DirTree,
                    _ => MetadataKind::DirMeta,
                };
                self.store.write(kind, &bytes)?;
            }
            "file" => self.file(entry, &checksum)?,
            "file-xattrs" => {
                let bytes = self.reader.content(entry.size(), MAX_METADATA)?;
                let attributes =
                    Xattrs::parse(&bytes).map_err(|error| self.reader.broken(format!("{error:#}")))?;
                self.attributes.insert(checksum, attributes);
            }
            "file-xattrs-link" => {
                let attributes = if entry.header.kind == EntryKind::Hardlink {
                    let target = String::from_utf8_lossy(&entry.header.link).into_owned();
                    let name = target.rsplit_once(OBJECTS).and_then(|(_, name)| parse_name(name));
                    name.and_then(|(name, _)| self.attributes.get(&name).cloned())
                        .ok_or_else(|| self.reader.broken(format!("`{path}` links to no attributes")))?
                } else {
                    let bytes = self.reader.content(entry.size(), MAX_METADATA)?;
                    Xattrs::parse(&bytes).map_err(|error| self.reader.broken(format!("{error:#}")))?
                };
                self.next = Some((checksum, attributes));
            }
            // Detached signatures and the like: the image's own signature was what counted.
            _ => self.reader.skip(entry.size())?,
        }
        Ok(())
    }

    fn checked(&mut self, entry: &Entry, checksum: &str) -> Result<Vec<u8>> {
        let bytes = self.reader.content(entry.size(), MAX_METADATA)?;
        if Checksum::of(&bytes).to_string() != checksum {
            return Err(self
                .reader
                .broken(format!("the object {checksum} has other content")));
        }
        Ok(bytes)
    }

    fn file(&mut self, entry: &Entry, checksum: &str) -> Result<()> {
        let header = &entry.header;
        let xattrs = match self.next.take() {
            Some((name, xattrs)) if name == checksum => xattrs,
            _ => Xattrs::default(),
        };
        let metadata = Metadata {
            uid: u32::try_from(header.uid)?,
            gid: u32::try_from(header.gid)?,
            mode: u32::try_from(header.mode & 0o7777)?,
            xattrs,
        };
        let object = match header.kind {
            EntryKind::Regular => self.reader.file(self.store, &metadata, entry.size())?,
            EntryKind::Symlink => {
                let target = std::str::from_utf8(&header.link).context("Reading the target of a link")?;
                self.store.write_symlink(&metadata, target)?
            }
            _ => {
                return Err(self
                    .reader
                    .broken(format!("the object {checksum} is neither a file nor a link")));
            }
        };
        if object.to_string() != checksum {
            return Err(self
                .reader
                .broken(format!("the object {checksum} has other content")));
        }
        let entries = self.files.change_loaded().context("A layer is built in memory")?;
        entries.files.insert(checksum.into(), object);
        Ok(())
    }
}

/// Splits `XX/REST.EXTENSION` into the checksum and the extension.
fn parse_name(name: &str) -> Option<(String, &str)> {
    let (folder, rest) = name.split_once('/')?;
    let (rest, extension) = rest.split_once('.')?;
    let checksum = format!("{folder}{rest}");
    let is_checksum = folder.len() == 2 && checksum.parse::<Checksum>().is_ok();
    is_checksum.then_some((checksum, extension))
}
