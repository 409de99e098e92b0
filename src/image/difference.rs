//! What differs between two manifests, in layers and bytes.

use oci_spec::image::{Descriptor, ImageManifest};
use std::collections::BTreeSet;

/// What an update from one manifest to another brings; sizes are compressed bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestDifference {
    /// Number of layers of the new image.
    pub total: usize,
    /// Their size together.
    pub total_size: u64,
    /// Layers that only the new image has: digest and size.
    pub added: Vec<(String, u64)>,
    /// Layers that only the old image has: digest and size.
    pub removed: Vec<(String, u64)>,
}

impl ManifestDifference {
    /// Returns what differs from `old` (nothing at all when there is no old image) to `new`.
    pub fn between(old: Option<&ImageManifest>, new: &ImageManifest) -> Self {
        let of = |manifest: Option<&ImageManifest>| -> BTreeSet<String> {
            manifest
                .into_iter()
                .flat_map(|manifest| manifest.layers())
                .map(|layer| layer.digest().to_string())
                .collect()
        };
        let (before, after) = (of(old), of(Some(new)));
        let only = |layers: &[Descriptor], other: &BTreeSet<String>| -> Vec<(String, u64)> {
            let mut seen = BTreeSet::new();
            layers
                .iter()
                .map(|layer| (layer.digest().to_string(), layer.size()))
                .filter(|(digest, _)| !other.contains(digest) && seen.insert(digest.clone()))
                .collect()
        };
        Self {
            total: new.layers().len(),
            total_size: new.layers().iter().map(Descriptor::size).sum(),
            added: only(new.layers(), &before),
            removed: old.map_or_else(Vec::new, |old| only(old.layers(), &after)),
        }
    }

    /// Returns the bytes of the added layers together.
    pub fn added_size(&self) -> u64 {
        self.added.iter().map(|(_, size)| size).sum()
    }

    /// Returns the bytes of the removed layers together.
    pub fn removed_size(&self) -> u64 {
        self.removed.iter().map(|(_, size)| size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::{DescriptorBuilder, Digest, ImageManifestBuilder, MediaType};
    use std::str::FromStr;

    fn manifest(layers: &[(char, u64)]) -> ImageManifest {
        let descriptor = |fill: char, size: u64| {
            DescriptorBuilder::default()
                .media_type(MediaType::ImageLayerGzip)
                .digest(Digest::from_str(&format!("sha256:{}", fill.to_string().repeat(64))).unwrap())
                .size(size)
                .build()
                .unwrap()
        };
        ImageManifestBuilder::default()
            .schema_version(2u32)
            .config(descriptor('c', 1))
            .layers(
                layers
                    .iter()
                    .map(|(fill, size)| descriptor(*fill, *size))
                    .collect::<Vec<_>>(),
            )
            .build()
            .unwrap()
    }

    #[test]
    fn layers_are_compared_by_digest() {
        let found = ManifestDifference::between(
            Some(&manifest(&[('a', 10), ('b', 20)])),
            &manifest(&[('a', 10), ('d', 5)]),
        );
        assert_eq!((found.total, found.total_size), (2, 15));
        assert_eq!((found.added.len(), found.added_size()), (1, 5));
        assert_eq!((found.removed.len(), found.removed_size()), (1, 20));
        assert_eq!(
            ManifestDifference::between(None, &manifest(&[('a', 10)])).added_size(),
            10
        );
    }
}
