//! Owner, permissions and extended attributes, and the bytes under which OSTree hashes and stores them.

use super::Checksum;
use super::variant;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
/// Linux shows every symbolic link with these permissions, so an object hashed with others would fail its check.
const SYMLINK: u32 = 0o120_777;

/// Extended attributes in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Xattrs(Vec<(Vec<u8>, Vec<u8>)>);

impl Xattrs {
    /// Sets one attribute; an earlier value of that name goes.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.0.binary_search_by(|(known, _)| known.as_slice().cmp(name)) {
            Ok(index) => self.0[index].1 = value.to_vec(),
            Err(index) => self.0.insert(index, (name.to_vec(), value.to_vec())),
        }
    }

    /// Sets one attribute unless it is of no use in a repository.
    ///
    /// Labels are for a policy the image does not ship, and an overlay's notes to itself would be obeyed by the next
    /// overlay that has the tree as its lower directory. libostree passes over empty attributes when it reads a file
    /// back, so an object with one would count as damaged.
    pub fn keep(&mut self, name: &[u8], value: &[u8]) {
        let useless = name.is_empty()
            || value.is_empty()
            || name == b"security.selinux"
            || name.starts_with(b"trusted.overlay.")
            || name.starts_with(b"user.overlay.")
            || name.contains(&0);
        if !useless {
            self.set(name, value);
        }
    }

    /// Returns the names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// Reads attributes from the form `a(ayay)`, in which libostree keeps them.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut xattrs = Self::default();
        for (name, value) in variant::read_pairs(bytes)? {
            let name = name
                .strip_suffix(b"\0")
                .context("The name of an attribute lacks its end")?;
            xattrs.set(name, value);
        }
        Ok(xattrs)
    }

    fn variant(&self) -> Vec<u8> {
        variant::array(self.0.iter().map(|(name, value)| {
            let mut name = name.clone();
            name.push(0);
            variant::tuple(&[&name, value])
        }))
    }
}

/// Owner, permission bits and extended attributes of a file, link or directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Permission bits with set-id and sticky, no file type.
    pub mode: u32,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Metadata {
    /// Returns root's metadata with the given permission bits.
    pub fn root(mode: u32) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }

    /// Returns a directory's metadata object.
    pub fn dirmeta(&self) -> Vec<u8> {
        self.fields(DIRECTORY | self.mode & 0o7777, &[])
    }

    /// Returns a hasher that has taken in the header of a regular file; its content follows.
    pub fn file_hasher(&self) -> Sha256 {
        self.hasher(REGULAR | self.mode & 0o7777, "")
    }

    /// Returns the object name of a symbolic link.
    pub fn symlink_checksum(&self, target: &str) -> Checksum {
        Checksum::finish(self.hasher(SYMLINK, target))
    }

    /// Returns what a `bare-user` repository keeps in the attribute `user.ostreemeta` of a regular file.
    pub fn bare_user_file(&self) -> Vec<u8> {
        self.fields(REGULAR | self.mode & 0o7777, &[])
    }

    /// Returns what a `bare-user` repository keeps in the attribute `user.ostreemeta` of a symbolic link.
    pub fn bare_user_symlink(&self) -> Vec<u8> {
        self.fields(SYMLINK, &[])
    }

    fn fields(&self, mode: u32, more: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        for number in [self.uid, self.gid, mode] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(more);
        bytes.extend_from_slice(&self.xattrs.variant());
        bytes
    }

    /// Hashes the header `(uuuusa(ayay))` behind its length, as libostree frames it.
    fn hasher(&self, mode: u32, target: &str) -> Sha256 {
        let mut middle = vec![0; 4];
        middle.extend_from_slice(target.as_bytes());
        middle.push(0);
        let target_end = 12 + middle.len();
        let header = variant::frame(self.fields(mode, &middle), &[target_end]);
        let mut hasher = Sha256::new();
        let length = u32::try_from(header.len()).expect("attributes were limited where they were read");
        hasher.update(length.to_be_bytes());
        hasher.update([0; 4]);
        hasher.update(&header);
        hasher
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ostree_ext::{gio, glib, ostree};

    fn info(kind: gio::FileType, metadata: &Metadata, mode: u32, target: Option<&str>) -> gio::FileInfo {
        let info = gio::FileInfo::new();
        info.set_file_type(kind);
        info.set_attribute_uint32("unix::uid", metadata.uid);
        info.set_attribute_uint32("unix::gid", metadata.gid);
        info.set_attribute_uint32("unix::mode", mode);
        if let Some(target) = target {
            info.set_symlink_target(target);
        }
        info
    }

    fn xattrs(metadata: &Metadata) -> glib::Variant {
        use glib::prelude::ToVariant;
        metadata
            .xattrs
            .iter()
            .map(|(name, value)| {
                let mut name = name.to_vec();
                name.push(0);
                (name, value.to_vec())
            })
            .collect::<Vec<_>>()
            .to_variant()
    }

    fn example(attributes: usize) -> Metadata {
        let mut metadata = Metadata {
            uid: 1000,
            gid: 70_000,
            mode: 0o6755,
            xattrs: Xattrs::default(),
        };
        for index in 0..attributes {
            metadata
                .xattrs
                .set(format!("user.name{index:03}").as_bytes(), &vec![7; index * 9]);
        }
        metadata
    }

    #[test]
    fn dirmeta_is_libostrees() {
        for attributes in [0, 1, 2, 40, 90] {
            let metadata = example(attributes);
            let theirs = ostree::create_directory_metadata(
                &info(
                    gio::FileType::Directory,
                    &metadata,
                    DIRECTORY | metadata.mode,
                    None,
                ),
                Some(&xattrs(&metadata)),
            );
            assert_eq!(metadata.dirmeta(), theirs.data());
        }
    }

    #[test]
    fn object_names_are_libostrees() {
        let dir = tempfile::tempdir().unwrap();
        let repo = ostree::Repo::new_for_path(dir.path());
        repo.create(ostree::RepoMode::Archive, gio::Cancellable::NONE)
            .unwrap();
        for attributes in [0, 1, 2, 40, 90] {
            let metadata = example(attributes);
            let theirs = repo
                .write_regfile_inline(
                    None,
                    metadata.uid,
                    metadata.gid,
                    REGULAR | metadata.mode,
                    Some(&xattrs(&metadata)),
                    b"content",
                    gio::Cancellable::NONE,
                )
                .unwrap();
            let mut hasher = metadata.file_hasher();
            hasher.update(b"content");
            assert_eq!(Checksum::finish(hasher).to_string(), theirs.as_str());
            let target = "../".repeat(attributes + 1);
            let theirs = repo
                .write_symlink(
                    None,
                    metadata.uid,
                    metadata.gid,
                    Some(&xattrs(&metadata)),
                    &target,
                    gio::Cancellable::NONE,
                )
                .unwrap();
            assert_eq!(metadata.symlink_checksum(&target).to_string(), theirs.as_str());
        }
    }
}
