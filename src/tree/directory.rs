//! A directory in memory, read from its objects when it is first touched.

use super::variant;
use super::{Checksum, Metadata};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Which of the two directory objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataKind {
    /// The names in a directory.
    DirTree,
    /// Owner, permissions and attributes of a directory.
    DirMeta,
}

impl MetadataKind {
    /// Returns the file name extension of such objects.
    pub fn extension(self) -> &'static str {
        match self {
            Self::DirTree => "dirtree",
            Self::DirMeta => "dirmeta",
        }
    }
}

/// Where directory objects are read from and written to.
pub trait Objects {
    /// Returns the bytes of an object.
    fn read(&self, kind: MetadataKind, checksum: &Checksum) -> Result<Vec<u8>>;

    /// Stores an object and returns its name; nothing happens when it exists.
    fn write(&self, kind: MetadataKind, bytes: &[u8]) -> Result<Checksum>;
}

/// What a directory holds.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Regular files and symbolic links by name.
    pub files: BTreeMap<Box<str>, Checksum>,
    /// Directories by name.
    pub directories: BTreeMap<Box<str>, Directory>,
}

/// What stands at a path.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A regular file or symbolic link.
    File(&'a Checksum),
    /// A directory.
    Directory(&'a Directory),
}

/// A directory of a tree: its metadata and, once they were needed, its entries.
#[derive(Clone, Debug)]
pub struct Directory {
    metadata: Checksum,
    implicit: bool,
    /// Name of the stored object that lists the entries; none while they differ from every stored one.
    stored: Option<Checksum>,
    entries: Option<Entries>,
}

impl Directory {
    /// Returns an empty directory.
    pub fn new(metadata: Checksum) -> Self {
        Self {
            metadata,
            implicit: false,
            stored: None,
            entries: Some(Entries::default()),
        }
    }

    /// Returns an empty directory that nothing declared: a path went through it.
    pub fn new_implicit(metadata: Checksum) -> Self {
        Self {
            implicit: true,
            ..Self::new(metadata)
        }
    }

    /// Returns the directory that the two objects describe, without reading them.
    pub fn stored(tree: Checksum, metadata: Checksum) -> Self {
        Self {
            metadata,
            implicit: false,
            stored: Some(tree),
            entries: None,
        }
    }

    /// Returns the name of the metadata object.
    pub fn metadata(&self) -> Checksum {
        self.metadata
    }

    /// Sets the metadata; the directory counts as declared from now on.
    pub fn set_metadata(&mut self, metadata: Checksum) {
        self.metadata = metadata;
        self.implicit = false;
    }

    /// Returns whether nothing declared this directory, so that its metadata says nothing.
    pub fn is_implicit(&self) -> bool {
        self.implicit
    }

    /// Marks the directory as one that nothing declared.
    pub fn set_implicit(&mut self) {
        self.implicit = true;
    }

    /// Returns the stored object that lists the entries, while that is known.
    pub fn tree(&self) -> Option<Checksum> {
        self.stored
    }

    /// Returns the entries for reading.
    pub fn entries(&mut self, objects: &dyn Objects) -> Result<&mut Entries> {
        self.load(objects)?;
        Ok(self.entries.as_mut().expect("loaded just now"))
    }

    /// Returns the entries for changing them: the directory no longer equals a stored one.
    pub fn change(&mut self, objects: &dyn Objects) -> Result<&mut Entries> {
        self.load(objects)?;
        self.stored = None;
        Ok(self.entries.as_mut().expect("loaded just now"))
    }

    /// Returns the entries of a directory that was built in memory, for changing them.
    pub fn change_loaded(&mut self) -> Option<&mut Entries> {
        self.stored = None;
        self.entries.as_mut()
    }

    /// Returns the entries where they are in memory.
    pub fn loaded(&self) -> Option<&Entries> {
        self.entries.as_ref()
    }

    /// Gives up the directory for its entries.
    pub fn into_entries(mut self, objects: &dyn Objects) -> Result<Entries> {
        self.load(objects)?;
        Ok(self.entries.expect("loaded just now"))
    }

    fn load(&mut self, objects: &dyn Objects) -> Result<()> {
        if self.entries.is_some() {
            return Ok(());
        }
        let tree = self
            .stored
            .expect("a directory without entries names a stored object");
        let bytes = objects.read(MetadataKind::DirTree, &tree)?;
        let (files, directories) =
            variant::read_dirtree(&bytes).with_context(|| format!("Reading the directory object {tree}"))?;
        self.entries = Some(Entries {
            files: files
                .into_iter()
                .map(|(name, object)| (name.into(), object))
                .collect(),
            directories: directories
                .into_iter()
                .map(|(name, tree, metadata)| (name.into(), Self::stored(tree, metadata)))
                .collect(),
        });
        Ok(())
    }

    /// Finds what stands at a path of names separated by `/`; links are not followed.
    pub fn find(&mut self, objects: &dyn Objects, path: &str) -> Result<Option<Found<'_>>> {
        let mut directory = self;
        let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            let entries = directory.entries(objects)?;
            if names.peek().is_none() {
                if let Some(object) = entries.files.get(name) {
                    return Ok(Some(Found::File(object)));
                }
            }
            match entries.directories.get_mut(name) {
                Some(next) => directory = next,
                None => return Ok(None),
            }
        }
        Ok(Some(Found::Directory(directory)))
    }

    /// Finds the directory at a path; links are not followed.
    pub fn find_directory(&mut self, objects: &dyn Objects, path: &str) -> Result<Option<&mut Self>> {
        let mut directory = self;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match directory.entries(objects)?.directories.get_mut(name) {
                Some(next) => directory = next,
                None => return Ok(None),
            }
        }
        Ok(Some(directory))
    }

    /// Writes every directory that changed since it was read and returns the name of this one's object.
    pub fn store(&mut self, objects: &dyn Objects) -> Result<Checksum> {
        // A change below does not clear `stored` above it, so the walk goes through everything in memory.
        let Some(entries) = &mut self.entries else {
            return Ok(self
                .stored
                .expect("a directory without entries names a stored object"));
        };
        let mut changed = self.stored.is_none();
        let mut listed = Vec::with_capacity(entries.directories.len());
        for (name, directory) in &mut entries.directories {
            let before = directory.stored;
            let tree = directory.store(objects)?;
            changed |= before != Some(tree);
            listed.push((&**name, tree, directory.metadata));
        }
        if let (false, Some(tree)) = (changed, self.stored) {
            return Ok(tree);
        }
        let bytes = variant::write_dirtree(
            entries.files.iter().map(|(name, object)| (&**name, *object)),
            listed.into_iter(),
        );
        let tree = objects.write(MetadataKind::DirTree, &bytes)?;
        self.stored = Some(tree);
        Ok(tree)
    }

    /// Writes the metadata object and returns its name.
    pub fn write_metadata(objects: &dyn Objects, metadata: &Metadata) -> Result<Checksum> {
        objects.write(MetadataKind::DirMeta, &metadata.dirmeta())
    }
}
