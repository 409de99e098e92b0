//! The directory objects of a repository, for reading trees without a checkout.

use crate::tree::{Checksum, MetadataKind, Objects};
use anyhow::{Context, Result, bail};
use ostree_ext::ostree;

/// Reads a repository and never writes to it.
#[derive(Debug)]
pub struct StoredObjects<'a>(pub &'a ostree::Repo);

impl Objects for StoredObjects<'_> {
    fn read(&self, kind: MetadataKind, checksum: &Checksum) -> Result<Vec<u8>> {
        let kind = match kind {
            MetadataKind::DirTree => ostree::ObjectType::DirTree,
            MetadataKind::DirMeta => ostree::ObjectType::DirMeta,
        };
        let object = self
            .0
            .load_variant(kind, &checksum.to_string())
            .with_context(|| format!("Reading the object {checksum}"))?;
        Ok(object.data().to_vec())
    }

    fn write(&self, _kind: MetadataKind, _bytes: &[u8]) -> Result<Checksum> {
        bail!("A tree that is only read was changed")
    }
}
