//! OCI images written to a directory without any container tool.

use super::home::Home;
use super::layer::{Layer, PackedLayer};
use super::write;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// How a layer is damaged in the image directory; a registry would refuse most of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The blob's bytes are not those its digest names.
    WrongDigest,
    /// The manifest announces this many bytes more (or fewer) than the blob has.
    WrongSize(i64),
    /// The blob ends in the middle; manifest and digest are of the whole.
    Truncated,
    /// The blob is packed data that ends in the middle; manifest and digest agree with it.
    TruncatedInside,
    /// The blob is missing.
    Missing,
}

/// An image in the making.
pub struct Image {
    labels: Map<String, Value>,
    architecture: String,
    created: String,
    layers: Vec<(PackedLayer, Option<Damage>)>,
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

impl Image {
    /// Returns an image without layers and labels, for this machine's architecture.
    pub fn new() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            labels: Map::new(),
            architecture: architecture.to_owned(),
            created: "2026-01-02T03:04:05Z".to_owned(),
            layers: Vec::new(),
        }
    }

    /// Returns an image with the labels of a bootable one and one layer that looks like a root with a kernel.
    pub fn bootable(version: &str) -> Self {
        Self::new()
            .label("containers.bootc", "1")
            .label("ostree.bootable", "1")
            .label("org.opencontainers.image.version", version)
            .layer(root_layer(version))
    }

    /// Adds a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), Value::from(value));
        self
    }

    /// Returns the architecture as images name it.
    pub fn architecture_name(&self) -> &str {
        &self.architecture
    }

    /// Sets another architecture.
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.to_owned();
        self
    }

    /// Sets the time of creation, as RFC 3339.
    pub fn created(mut self, created: &str) -> Self {
        self.created = created.to_owned();
        self
    }

    /// Adds a layer.
    pub fn layer(self, layer: Layer) -> Self {
        self.packed_layer(layer.finish(), None)
    }

    /// Adds a damaged layer.
    pub fn damaged_layer(self, layer: Layer, damage: Damage) -> Self {
        self.packed_layer(layer.finish(), Some(damage))
    }

    /// Adds a layer that is packed already.
    pub fn packed_layer(mut self, layer: PackedLayer, damage: Option<Damage>) -> Self {
        self.layers.push((layer, damage));
        self
    }

    /// Writes the image into the OCI directory `path` under `tag`.
    pub fn write(&self, path: &Path, tag: &str) -> OciImage {
        let blob = |data: &[u8]| {
            let digest = sha256(data);
            write(blob_path(path, &digest), data);
            digest
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|(layer, damage)| {
                let mut data = layer.data.clone();
                if *damage == Some(Damage::TruncatedInside) {
                    data.truncate(data.len() / 2);
                }
                let digest = blob(&data);
                let file = blob_path(path, &digest);
                let mut size = data.len() as i64;
                match damage {
                    Some(Damage::WrongDigest) => {
                        let middle = data.len() / 2;
                        data[middle] ^= 0xff;
                        write(&file, &data);
                    }
                    Some(Damage::WrongSize(difference)) => size += difference,
                    Some(Damage::Truncated) => write(&file, &data[..data.len() / 2]),
                    Some(Damage::Missing) => std::fs::remove_file(&file).expect("blob"),
                    Some(Damage::TruncatedInside) | None => {}
                }
                let mut listed =
                    json!({ "mediaType": layer.packing.media_type(), "digest": digest, "size": size });
                if !layer.annotations.is_empty() {
                    listed["annotations"] = json!(layer.annotations);
                }
                listed
            })
            .collect();
        let diff_ids: Vec<&str> = self
            .layers
            .iter()
            .map(|(layer, _)| layer.diff_id.as_str())
            .collect();
        let config = serde_json::to_vec(&json!({
            "created": self.created,
            "architecture": self.architecture,
            "os": "linux",
            "config": { "Labels": self.labels },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().map(|_| json!({ "created_by": "test" })).collect::<Vec<_>>(),
        }))
        .expect("config");
        let config_digest = blob(&config);
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": config.len(),
            },
            "layers": layers,
        }))
        .expect("manifest");
        let manifest_digest = blob(&manifest);
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": manifest_digest,
                "size": manifest.len(),
                "annotations": { "org.opencontainers.image.ref.name": tag },
            }],
        });
        write(path.join("index.json"), index.to_string());
        write(path.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#);
        OciImage {
            path: path.to_owned(),
            tag: tag.to_owned(),
            manifest_digest,
        }
    }
}

/// An image in an OCI directory.
pub struct OciImage {
    /// The directory.
    pub path: PathBuf,
    /// The name in its index.
    pub tag: String,
    /// The digest of the manifest.
    pub manifest_digest: String,
}

impl OciImage {
    /// Returns skopeo's name of the image.
    pub fn skopeo_name(&self) -> String {
        format!("oci:{}:{}", self.path.display(), self.tag)
    }

    /// Returns the reference by which a host would follow it.
    pub fn reference(&self) -> String {
        format!("ostree-unverified-image:{}", self.skopeo_name())
    }

    /// Copies the image to `destination`, for example `docker://127.0.0.1:5000/os:1`, by plain http if need be.
    ///
    /// Credentials come from the home; `extra` goes before the names, for example `--sign-by`.
    pub fn push(&self, home: &Home, destination: &str, extra: &[&str]) {
        home.surroundings()
            .cmd("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .args(extra)
            .arg(self.skopeo_name())
            .arg(destination)
            .run()
            .unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Returns where a blob lies in an OCI directory.
pub fn blob_path(directory: &Path, digest: &str) -> PathBuf {
    let (algorithm, hex) = digest.split_once(':').expect("digest");
    directory.join("blobs").join(algorithm).join(hex)
}

/// Returns the digest of bytes, `sha256:...`.
pub fn sha256(data: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(data)))
}

/// Returns a layer that has what a deployable root must have: a kernel, an initramfs, os-release, empty toplevels.
pub fn root_layer(version: &str) -> Layer {
    let kernel = "usr/lib/modules/6.1.0-test";
    Layer::new()
        .dir("usr", 0o755)
        .dir("usr/bin", 0o755)
        .file("usr/bin/true", 0o755, b"#!/bin/sh\n")
        .dir("usr/lib", 0o755)
        .file(
            "usr/lib/os-release",
            0o644,
            format!("ID=debian\nNAME=Test\nPRETTY_NAME=\"Test {version}\"\nVERSION_ID={version}\n"),
        )
        .dir("usr/lib/modules", 0o755)
        .dir(kernel, 0o755)
        .file(&format!("{kernel}/vmlinuz"), 0o644, b"a kernel")
        .file(&format!("{kernel}/initramfs.img"), 0o644, b"an initramfs")
        .dir("etc", 0o755)
        .file("etc/motd", 0o644, format!("version {version}\n"))
        .dir("var", 0o755)
        .dir("boot", 0o755)
        .dir("sysroot", 0o755)
        .dir("proc", 0o755)
        .dir("sys", 0o755)
        .dir("dev", 0o755)
        .dir("run", 0o755)
        .dir("tmp", 0o1777)
        .symlink("ostree", "sysroot/ostree")
        .symlink("bin", "usr/bin")
        .symlink("lib", "usr/lib")
}
