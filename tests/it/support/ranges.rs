//! Images of one layer, of which single ranges are read.

use super::home::Home;
use super::image::Image;
use super::layer::Layer;
use super::registry::Registry;
use apt_ostree::image::parts::Parts;
use apt_ostree::image::proxy::{ImageSource, SourceOptions};
use oci_spec::image::Digest;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

/// An image with one layer, opened at its registry, and the layer's bytes.
pub struct Opened {
    // Dropped in this order: the source needs its runtime.
    /// The opened image.
    pub source: ImageSource,
    /// What it runs on.
    pub runtime: tokio::runtime::Runtime,
    /// The digest of its layer.
    pub digest: Digest,
    /// The bytes of its layer as they are in the registry.
    pub blob: Arc<Vec<u8>>,
}

impl Opened {
    /// Opens the image and reads its layer.
    pub fn at(home: &Home, reference: &str) -> Self {
        Self::with(&home.options(), reference)
    }

    /// Does so with other surroundings.
    pub fn with(options: &SourceOptions, reference: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let reference = reference.parse().expect("reference");
        let source = runtime
            .block_on(ImageSource::open_with(&reference, options))
            .unwrap_or_else(|error| panic!("{error:#}"));
        let layer = source.layers()[0].clone();
        let (mut reader, driver) = runtime
            .block_on(source.blob(&layer.digest, layer.size))
            .expect("blob");
        let mut blob = Vec::new();
        reader.read_to_end(&mut blob).expect("blob");
        runtime.block_on(driver).expect("blob");
        Self {
            source,
            runtime,
            digest: layer.digest,
            blob: Arc::new(blob),
        }
    }

    /// Returns how ranges of the layer are read.
    pub fn parts(&self) -> anyhow::Result<Option<Box<dyn Parts>>> {
        self.source.parts(&self.digest, self.blob.len() as u64)
    }

    /// Returns the same of an image in a registry.
    pub fn expect_parts(&self) -> Box<dyn Parts> {
        let parts = self.parts().unwrap_or_else(|error| panic!("{error:#}"));
        parts.expect("parts")
    }

    /// Closes the image.
    pub fn close(self) {
        self.runtime.block_on(self.source.close());
    }
}

/// Pushes an image of one layer as `os:1`.
pub fn push(home: &Home, registry: &Registry) {
    let directory = tempfile::tempdir().expect("image");
    Image::new()
        .layer(Layer::new().noise("one", 600_000))
        .write(directory.path(), "x")
        .push(home, &registry.name("os:1"), &[]);
}

/// A registry with an image that anybody may read, and the opened image.
pub fn plain(home: &Home) -> (Registry, Opened) {
    let registry = Registry::start();
    push(home, &registry);
    home.insecure(&[&registry.location()]);
    let opened = Opened::at(home, &registry.reference("os:1"));
    (registry, opened)
}

/// Sends whatever is asked of the registry from now on to these places, mirrors first.
pub fn redirect(home: &Home, registry: &Registry, locations: &[&str]) {
    let (last, mirrors) = locations.split_last().expect("locations");
    let mut text = format!(
        "[[registry]]\nprefix = \"{}\"\nlocation = \"{last}\"\ninsecure = true\n",
        registry.location()
    );
    for mirror in mirrors {
        text += &format!("[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true\n");
    }
    home.registries(&text);
}

/// Reads one range to its end.
pub fn read(parts: &dyn Parts, range: Range<u64>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    parts.read(range)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
