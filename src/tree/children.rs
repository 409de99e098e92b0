//! What a directory object names, without the names: for whoever counts objects and needs no tree in memory.

use super::{Checksum, variant};
use anyhow::Result;

/// The objects that a directory object names, each as often as it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// Regular files and symbolic links.
    pub files: Vec<Checksum>,
    /// The two objects of each directory: its entries, its metadata.
    pub directories: Vec<(Checksum, Checksum)>,
}

impl Children {
    /// Reads the bytes of a directory object.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let (files, directories) = variant::read_dirtree(bytes)?;
        Ok(Self {
            files: files.into_iter().map(|(_, object)| object).collect(),
            directories: directories
                .into_iter()
                .map(|(_, tree, metadata)| (tree, metadata))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_counts_as_often_as_it_is_named() {
        let [file, tree, metadata] = [&b"f"[..], b"t", b"m"].map(Checksum::of);
        let bytes = variant::write_dirtree(
            [("a", file), ("b", file)].into_iter(),
            [("c", tree, metadata), ("d", tree, metadata)].into_iter(),
        );
        let children = Children::read(&bytes).unwrap();
        assert_eq!(children.files, [file, file]);
        assert_eq!(children.directories, [(tree, metadata), (tree, metadata)]);
        assert!(Children::read(&bytes[1..]).is_err());
    }
}
