//! The layers of an image in podman's storage, for a skopeo that cannot tell what the storage has.
//!
//! The storage keeps layers unpacked. It hands them out as plain tar archives under their diff id, and needs to
//! be asked with their size, which neither the manifest nor the configuration has. From protocol 0.2.5 on skopeo
//! tells; Debian 12's does not, so there the sizes are read from the storage's own table,
//! `<graph root>/<driver>-layers/layers.json`.

use crate::image::proxy::{SourceLayer, SourceOptions};
use crate::image::reference::ImageReference;
use anyhow::{Context, Result};
use oci_spec::image::{Digest, ImageConfiguration, MediaType};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    store: Store,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Store {
    graph_root: PathBuf,
    graph_driver_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    #[serde(default)]
    diff_digest: Option<String>,
    #[serde(default)]
    diff_size: Option<u64>,
}

/// Returns what the storage hands out for each layer of the configuration; nothing when its table does not tell.
pub(crate) fn layers(
    reference: &ImageReference,
    config: &[u8],
    options: &SourceOptions,
) -> Result<Option<Vec<SourceLayer>>> {
    // A store named in the reference is another one than podman's own.
    if reference.name().starts_with('[') {
        return Ok(None);
    }
    let config: ImageConfiguration = serde_json::from_slice(config)
        .with_context(|| format!("Reading the configuration of {reference}"))?;
    let info = options
        .surroundings
        .cmd("podman")
        .args(["info", "--format", "json"])
        .run()?;
    let Info { store } = serde_json::from_slice(&info).context("Reading what podman info printed")?;
    let table = store
        .graph_root
        .join(format!("{}-layers/layers.json", store.graph_driver_name));
    let text = std::fs::read(&table).with_context(|| format!("Reading {}", table.display()))?;
    let entries: Vec<Entry> =
        serde_json::from_slice(&text).with_context(|| format!("Reading {}", table.display()))?;
    let sizes: HashMap<String, u64> = entries
        .into_iter()
        .filter_map(|entry| Some((entry.diff_digest?, entry.diff_size?)))
        .collect();
    let mut layers = Vec::new();
    for diff_id in config.rootfs().diff_ids() {
        let Some(size) = sizes.get(diff_id) else {
            return Ok(None);
        };
        layers.push(SourceLayer {
            digest: Digest::from_str(diff_id)?,
            size: *size,
            media_type: MediaType::ImageLayer,
        });
    }
    Ok(Some(layers))
}
