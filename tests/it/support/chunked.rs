//! zstd:chunked layers as skopeo of Debian 13 writes them, and ones that lie.

use super::image::sha256;
use super::layer::{PackedLayer, Packing};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ANNOTATION: &str = "io.github.containers.zstd-chunked";
/// Bytes from which a run of zeros becomes a piece of its own.
const HOLE: usize = 4096;

/// A layer in the making: contents, table of contents and tar-split, to be changed before they are sealed.
pub struct Chunked {
    body: Vec<u8>,
    /// The table of contents.
    pub toc: Value,
    /// The lines of tar-split.
    pub split: Vec<Value>,
    diff_id: String,
}

impl Chunked {
    /// Packs a tar archive.
    pub fn new(tar: &[u8]) -> Self {
        let mut chunked = Self {
            body: Vec::new(),
            toc: json!({ "version": 1, "entries": [] }),
            split: Vec::new(),
            diff_id: sha256(tar),
        };
        let mut archive = tar::Archive::new(tar);
        let mut done = 0;
        for entry in archive.entries().expect("tar") {
            let entry = entry.expect("entry");
            let start = usize::try_from(entry.raw_file_position()).expect("position");
            let size = usize::try_from(entry.size()).expect("size");
            chunked.segment(&tar[done..start]);
            chunked.entry(&entry, &tar[start..start + size]);
            done = start + size;
        }
        chunked.segment(&tar[done..]);
        chunked
    }

    fn segment(&mut self, bytes: &[u8]) {
        self.frame(bytes);
        self.split
            .push(json!({ "type": 2, "payload": openssl::base64::encode_block(bytes), "position": self.split.len() }));
    }

    fn frame(&mut self, bytes: &[u8]) -> usize {
        self.body.extend(zstd::encode_all(bytes, 1).expect("zstd"));
        self.body.len()
    }

    fn entry(&mut self, entry: &tar::Entry<'_, &[u8]>, content: &[u8]) {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = match entry.header().entry_type() {
            tar::EntryType::Regular => "reg",
            tar::EntryType::Directory => "dir",
            tar::EntryType::Symlink => "symlink",
            tar::EntryType::Link => "hardlink",
            other => panic!("{other:?}"),
        };
        let mut listed =
            json!({ "type": kind, "name": name, "mode": 420, "modtime": "2026-01-02T03:04:05Z" });
        let mut line = json!({ "type": 1, "name": name, "payload": null, "position": self.split.len() });
        let mut more = Vec::new();
        if !content.is_empty() {
            line["size"] = json!(content.len());
            line["payload"] = json!(openssl::base64::encode_block(&[0; 8]));
            listed["size"] = json!(content.len());
            listed["digest"] = json!(sha256(content));
            listed["offset"] = json!(self.body.len());
            let pieces = pieces(content);
            let mut offset = 0;
            for (number, piece) in pieces.iter().enumerate() {
                let mut chunk = json!({ "type": "chunk", "name": name, "offset": self.body.len() });
                self.frame(piece);
                let into = if number == 0 { &mut listed } else { &mut chunk };
                if pieces.len() > 1 {
                    into["chunkSize"] = json!(piece.len());
                    into["chunkDigest"] = json!(sha256(piece));
                    if offset > 0 {
                        into["chunkOffset"] = json!(offset);
                    }
                    if piece.iter().all(|byte| *byte == 0) {
                        into["chunkType"] = json!("zeros");
                    }
                }
                offset += piece.len();
                if number > 0 {
                    more.push(chunk);
                }
            }
            listed["endOffset"] = json!(self.body.len());
        }
        let entries = self.toc["entries"].as_array_mut().expect("entries");
        entries.push(listed);
        entries.extend(more);
        self.split.push(line);
    }

    /// Returns the entry of the table with this name; the first one, without the chunks that follow.
    pub fn listed(&mut self, name: &str) -> &mut Value {
        let entries = self.toc["entries"].as_array_mut().expect("entries");
        let found = entries.iter_mut().find(|entry| entry["name"] == name);
        found.unwrap_or_else(|| panic!("no entry {name}"))
    }

    /// Seals the layer: compresses the tables and writes the annotations that vouch for them.
    pub fn finish(mut self) -> PackedLayer {
        let split: String = self.split.iter().map(|line| format!("{line}\n")).collect();
        let packed_split = zstd::encode_all(split.as_bytes(), 1).expect("zstd");
        if self.toc.get("tarSplitDigest").is_none() {
            self.toc["tarSplitDigest"] = json!(sha256(&packed_split));
        }
        let toc = self.toc.to_string();
        let packed_toc = zstd::encode_all(toc.as_bytes(), 1).expect("zstd");
        let skippable = |data: &mut Vec<u8>, bytes: &[u8]| {
            data.extend([0x50, 0x2a, 0x4d, 0x18]);
            data.extend(u32::try_from(bytes.len()).expect("length").to_le_bytes());
            let start = data.len();
            data.extend(bytes);
            start
        };
        let mut data = self.body;
        let toc_at = skippable(&mut data, &packed_toc);
        let split_at = skippable(&mut data, &packed_split);
        skippable(&mut data, &[0; 64]);
        let annotation = |name: &str, value: String| (format!("{ANNOTATION}.{name}"), value);
        PackedLayer {
            diff_id: self.diff_id,
            data,
            packing: Packing::Zstd,
            annotations: BTreeMap::from([
                annotation("manifest-checksum", sha256(&packed_toc)),
                annotation(
                    "manifest-position",
                    format!("{toc_at}:{}:{}:1", packed_toc.len(), toc.len()),
                ),
                annotation(
                    "tarsplit-position",
                    format!("{split_at}:{}:{}", packed_split.len(), split.len()),
                ),
            ]),
        }
    }
}

/// Cuts content where its bytes say so, so that equal runs make equal pieces wherever they stand.
fn pieces(content: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let (mut start, mut sum, mut at) = (0, 0u32, 0);
    while at < content.len() {
        let zeros = content[at..].iter().take_while(|byte| **byte == 0).count();
        if zeros >= HOLE {
            if at > start {
                pieces.push(&content[start..at]);
            }
            pieces.push(&content[at..at + zeros]);
            at += zeros;
            start = at;
            continue;
        }
        sum = (sum << 1).wrapping_add(u32::from(content[at]).wrapping_mul(0x9e37_79b1));
        at += 1;
        if sum >> 17 == 0 {
            pieces.push(&content[start..at]);
            start = at;
        }
    }
    if start < content.len() {
        pieces.push(&content[start..]);
    }
    pieces
}
