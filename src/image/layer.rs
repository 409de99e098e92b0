//! One layer: a single pass over its archive that stores the files and builds the tree.

use super::encapsulated;
use super::entry::{self, Place, Refusal};
use super::header::{EntryKind, Header};
use super::inflate::{self, Archive, Expected, Inflated, Transfer};
use super::object::ObjectStore;
use super::reader::{Entry, Reader};
use super::scratch::LayerTraits;
use crate::tree::{Checksum, Directory, Entries, Metadata, WHITEOUT_PREFIX};
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, SyncSender};

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// A layer in the store.
#[derive(Debug)]
pub(super) struct Layer {
    /// Its root directory, whiteouts included.
    pub(super) root: Directory,
    /// What the tree does not show.
    pub(super) traits: LayerTraits,
    /// The commit object that the first layer of an encapsulated image carries.
    pub(super) commit: Option<Vec<u8>>,
}

/// Imports a layer from its blob into the store.
///
/// Fails with a fault that names the layer when it is corrupt or holds what is refused.
pub(super) fn import(
    blob: &mut dyn Transfer,
    expected: &Expected,
    store: &ObjectStore,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Layer> {
    import_from(expected, store, |blocks, spare| {
        inflate::inflate(blob, expected, blocks, spare, progress)
    })
}

/// Imports a layer from whatever sends the blocks of its archive, in a thread of its own.
///
/// Fails as [`import`] does, and with the sender's error before any other.
pub(super) fn import_from(
    expected: &Expected,
    store: &ObjectStore,
    send: impl FnOnce(SyncSender<Vec<u8>>, Receiver<Vec<u8>>) -> Result<Inflated> + Send,
) -> Result<Layer> {
    let (block_sender, blocks) = mpsc::sync_channel(inflate::BLOCKS_WAITING);
    let (spare_sender, spare) = mpsc::channel();
    let (inflated, unpacked) = std::thread::scope(|scope| {
        let inflater = scope.spawn(move || send(block_sender, spare));
        let archive = Archive::new(blocks, spare_sender);
        let unpacked = match expected.is_ostree {
            true => encapsulated::unpack(archive, &expected.digest, store),
            false => unpack(archive, expected, store),
        };
        (inflater.join(), unpacked)
    });
    let inflated = inflated.map_err(|_| anyhow::anyhow!("The inflating thread panicked"))?;
    // A broken transfer also looks like a broken archive, and the transfer is the cause.
    match (inflated?, unpacked) {
        (Inflated::Complete, unpacked) => unpacked,
        (Inflated::Abandoned, Err(error)) => Err(error),
        (Inflated::Abandoned, Ok(_)) => anyhow::bail!("The archive was not read to its end"),
    }
}

fn unpack(archive: Archive, expected: &Expected, store: &ObjectStore) -> Result<Layer> {
    let default = Directory::write_metadata(store, &Metadata::root(0o755))?;
    let mut unpacker = Unpacker {
        reader: Reader::new(archive, &expected.digest),
        store,
        root: Directory::new_implicit(default),
        traits: LayerTraits::default(),
        links: Vec::new(),
        dirmetas: HashMap::new(),
    };
    unpacker.run()?;
    let Unpacker {
        mut root, mut traits, ..
    } = unpacker;
    list_implicit(&root, "", &mut traits.implicit);
    root.store(store)?;
    Ok(Layer {
        root,
        traits,
        commit: None,
    })
}

fn list_implicit(directory: &Directory, path: &str, found: &mut Vec<String>) {
    if directory.is_implicit() {
        found.push(path.to_owned());
    }
    for (name, below) in directory
        .loaded()
        .into_iter()
        .flat_map(|entries| &entries.directories)
    {
        let path = if path.is_empty() {
            name.to_string()
        } else {
            format!("{path}/{name}")
        };
        list_implicit(below, &path, found);
    }
}

struct Unpacker<'a> {
    reader: Reader<'a>,
    store: &'a ObjectStore,
    root: Directory,
    traits: LayerTraits,
    /// Hard links to files that did not stand in the archive before them.
    links: Vec<(String, String, Vec<u8>)>,
    dirmetas: HashMap<Metadata, Checksum>,
}

impl Unpacker<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(entry) = self.reader.next()? {
            self.entry(&entry)?;
        }
        self.resolve_links()
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        let header = &entry.header;
        let place = entry::place(&header.path).map_err(|refusal| self.refuse(refusal))?;
        if entry.is_sparse() {
            return Err(self.refuse(Refusal::unsupported(&header.path, "a sparse file")));
        }
        let size = entry.size();
        if place == Place::Dropped {
            return self.reader.skip(size);
        }
        if entry::is_below(&header.path, &["etc"]) {
            self.traits.etc = true;
        } else if entry::is_below(&header.path, &["usr", "etc"]) {
            self.traits.usr_etc = true;
        }
        let metadata = self.metadata(entry)?;
        let path = match place {
            Place::Path(path) => path,
            _ if header.kind == EntryKind::Directory => {
                let dirmeta = self.dirmeta(metadata)?;
                self.root.set_metadata(dirmeta);
                return Ok(());
            }
            _ => return Err(self.refuse(Refusal::invalid(&header.path, "whose path is the root itself"))),
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        self.traits.whiteouts |= name.starts_with(WHITEOUT_PREFIX);
        match header.kind {
            EntryKind::Directory => {
                let dirmeta = self.dirmeta(metadata.clone())?;
                let (parent, name) = self.parent(&path, &header.path, &metadata)?;
                parent.files.remove(name);
                match parent.directories.get_mut(name) {
                    Some(directory) => directory.set_metadata(dirmeta),
                    None => {
                        parent.directories.insert(name.into(), Directory::new(dirmeta));
                    }
                }
            }
            EntryKind::Regular => {
                let object = self.reader.file(self.store, &metadata, size)?;
                self.place_file(&path, &header.path, &metadata, object)?;
            }
            EntryKind::Symlink => {
                let target = std::str::from_utf8(&header.link).map_err(|_| {
                    self.refuse(Refusal::invalid(&header.path, "a link whose target is not UTF-8"))
                })?;
                if target.is_empty() || target.len() >= 4096 || target.contains('\0') {
                    let refusal = Refusal::invalid(&header.path, "a link to a target that cannot be");
                    return Err(self.refuse(refusal));
                }
                let object = self.store.write_symlink(&metadata, target)?;
                self.place_file(&path, &header.path, &metadata, object)?;
            }
            EntryKind::Hardlink => self.hardlink(path, header, &metadata)?,
            EntryKind::Device => {
                return Err(self.refuse(Refusal::unsupported(&header.path, "a device node")));
            }
            EntryKind::Fifo => {
                return Err(self.refuse(Refusal::unsupported(&header.path, "a named pipe")));
            }
            EntryKind::Sparse
            | EntryKind::PaxLocal
            | EntryKind::PaxGlobal
            | EntryKind::LongName
            | EntryKind::LongLink => unreachable!("handled above"),
        }
        Ok(())
    }

    fn hardlink(&mut self, path: String, header: &Header, metadata: &Metadata) -> Result<()> {
        let target = match entry::place(&header.link) {
            Ok(Place::Path(target)) => target,
            Ok(_) => return Err(self.bad_link(&header.path, &header.link, "which is not part of the tree")),
            Err(_) => return Err(self.bad_link(&header.path, &header.link, "which lies outside the image")),
        };
        match find_file(&self.root, &target) {
            Some(object) => self.place_file(&path, &header.path, metadata, object),
            None => {
                let (parent, name) = self.parent(&path, &header.path, metadata)?;
                parent.files.remove(name);
                parent.directories.remove(name);
                self.links.push((path, target, header.path.clone()));
                Ok(())
            }
        }
    }

    fn resolve_links(&mut self) -> Result<()> {
        // A link may name a link that comes later, so this goes on while it finds any.
        let mut links = std::mem::take(&mut self.links);
        while !links.is_empty() {
            let before = links.len();
            let mut left = Vec::new();
            for (path, target, written) in links {
                if find_file(&self.root, &path).is_some() || find_directory(&self.root, &path) {
                    // A later entry took the name.
                    continue;
                }
                match find_file(&self.root, &target) {
                    Some(object) => self.place_file(&path, &written, &Metadata::root(0o755), object)?,
                    None => left.push((path, target, written)),
                }
            }
            if left.len() == before {
                let (_, target, written) = &left[0];
                return Err(self.bad_link(written, target.as_bytes(), "which is no file of the same layer"));
            }
            links = left;
        }
        Ok(())
    }

    fn bad_link(&self, path: &[u8], target: &[u8], reason: &str) -> anyhow::Error {
        let target = String::from_utf8_lossy(target);
        self.refuse(Refusal::invalid(
            path,
            format!("a hard link to `{target}`, {reason}"),
        ))
    }

    fn place_file(
        &mut self,
        path: &str,
        written: &[u8],
        metadata: &Metadata,
        object: Checksum,
    ) -> Result<()> {
        let (parent, name) = self.parent(path, written, metadata)?;
        parent.directories.remove(name);
        parent.files.insert(name.into(), object);
        Ok(())
    }

    /// Returns the entries of the directory that holds `path`, and the last name.
    ///
    /// Directories that the archive did not declare are made with the entry's owner, as libostree does.
    fn parent<'p>(
        &mut self,
        path: &'p str,
        written: &[u8],
        metadata: &Metadata,
    ) -> Result<(&mut Entries, &'p str)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let implicit = if folder.is_empty() || find_directory(&self.root, folder) {
            None
        } else {
            Some(self.dirmeta(Metadata {
                uid: metadata.uid,
                gid: metadata.gid,
                ..Metadata::root(0o755)
            })?)
        };
        let refusal = || {
            Refusal::invalid(written, "which lies below something that is no directory")
                .in_layer(self.reader.digest())
        };
        let mut entries = self.root.change_loaded().context("A layer is built in memory")?;
        for name in folder.split('/').filter(|name| !name.is_empty()) {
            if entries.files.contains_key(name) {
                return Err(refusal().into());
            }
            if !entries.directories.contains_key(name) {
                let metadata = implicit.context("A directory vanished")?;
                entries
                    .directories
                    .insert(name.into(), Directory::new_implicit(metadata));
            }
            let below = entries
                .directories
                .get_mut(name)
                .context("A directory vanished")?;
            entries = below.change_loaded().context("A layer is built in memory")?;
        }
        Ok((entries, name))
    }

    fn metadata(&self, entry: &Entry) -> Result<Metadata> {
        let header = &entry.header;
        let id = |value: u64| {
            u32::try_from(value).map_err(|_| {
                self.refuse(Refusal::invalid(
                    &header.path,
                    format!("with the owner or group {value}"),
                ))
            })
        };
        let mut metadata = Metadata {
            uid: id(header.uid)?,
            gid: id(header.gid)?,
            // Some writers put the file type in as well.
            mode: u32::try_from(header.mode & 0o7777).expect("twelve bits fit"),
            xattrs: Default::default(),
        };
        for (key, value) in &entry.pax {
            if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                metadata.xattrs.keep(name, value);
            }
        }
        Ok(metadata)
    }

    fn dirmeta(&mut self, metadata: Metadata) -> Result<Checksum> {
        if let Some(known) = self.dirmetas.get(&metadata) {
            return Ok(*known);
        }
        let checksum = Directory::write_metadata(self.store, &metadata)?;
        self.dirmetas.insert(metadata, checksum);
        Ok(checksum)
    }

    fn refuse(&self, refusal: Refusal) -> anyhow::Error {
        refusal.in_layer(self.reader.digest()).into()
    }
}

/// Finds a file in a tree that is in memory.
pub(super) fn find_file(root: &Directory, path: &str) -> Option<Checksum> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut entries = root.loaded()?;
    for name in folder.split('/').filter(|name| !name.is_empty()) {
        entries = entries.directories.get(name)?.loaded()?;
    }
    entries.files.get(name).copied()
}

fn find_directory(root: &Directory, path: &str) -> bool {
    let mut at = Some(root);
    for name in path.split('/') {
        at = at
            .and_then(Directory::loaded)
            .and_then(|entries| entries.directories.get(name));
    }
    at.is_some()
}
