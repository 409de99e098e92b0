//! The table of contents: which content of the archive is where in the blob, read as it inflates.
//!
//! Every file is checked before it is handed on: known types, digests that are some, ranges in the order of the blob that
//! neither overlap nor leave it, pieces that add up to the file.

use super::annotations::{Annotated, Bounds, digest};
use super::guard::Guard;
use super::trouble::Trouble;
use crate::tree::Checksum;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::io::{BufReader, Read};
use std::ops::Range;

/// Entries in one table, pieces included; what is kept of more would take more memory than a pull may.
const MOST_ENTRIES: usize = 500_000;

/// The version of the format that is read here.
const VERSION: u64 = 1;

/// A run of bytes of a file that is compressed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Digest of the inflated bytes.
    pub(super) digest: Checksum,
    /// Bytes it inflates to.
    pub(super) size: u64,
    /// Where it is in the blob.
    pub(super) range: Range<u64>,
    /// Whether it consists of zeros and need not be fetched.
    pub(super) zeros: bool,
}

/// A regular file with content; checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// The path as the table has it.
    pub(super) name: String,
    /// Bytes of content, more than none.
    pub(super) size: u64,
    /// Digest of the content.
    pub(super) digest: Checksum,
    /// What the content consists of, in its order: at least one.
    pub(super) pieces: Vec<Piece>,
}

/// Reads a table and hands on each file with content; returns the digest of the compressed tar-split.
pub(super) fn read(
    compressed: &[u8],
    annotated: &Annotated,
    bounds: &Bounds,
    each: &mut dyn FnMut(&File) -> Result<(), Trouble>,
) -> Result<Option<Checksum>, Trouble> {
    let broken = |error: &dyn fmt::Display| Trouble::lie(format!("it cannot be read ({error})"));
    let inflated = zstd::stream::read::Decoder::with_buffer(compressed).map_err(|error| broken(&error))?;
    // One byte more than promised tells a table that is longer.
    let limited = inflated.take(annotated.toc.inflated.saturating_add(1));
    let mut reader = serde_json::Deserializer::from_reader(BufReader::new(Guard::new(limited)));
    let mut collector = Collector {
        bounds,
        each,
        file: None,
        expected: 0,
        last_end: 0,
        count: 0,
        trouble: None,
    };
    let outcome = Table(&mut collector)
        .deserialize(&mut reader)
        .and_then(|table| reader.end().map(|()| table));
    if let Some(trouble) = collector.trouble.take() {
        return Err(trouble);
    }
    let (version, tar_split) = outcome.map_err(|error| broken(&error))?;
    if version != Some(VERSION) {
        return Err(Trouble::whole(
            "its table of contents has a version that is not known here",
        ));
    }
    tar_split
        .filter(|text| !text.is_empty())
        .map(|text| digest(&text).ok_or_else(|| Trouble::lie("the digest of tar-split is none")))
        .transpose()
}

/// An entry as the table has it. Owner, mode, times and attributes are of no interest: they stand in tar-split.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    end_offset: u64,
    #[serde(default)]
    chunk_size: u64,
    #[serde(default)]
    chunk_offset: u64,
    #[serde(default)]
    chunk_digest: String,
    #[serde(default)]
    chunk_type: String,
}

/// Makes files of entries.
struct Collector<'a> {
    bounds: &'a Bounds,
    each: &'a mut dyn FnMut(&File) -> Result<(), Trouble>,
    file: Option<(File, Range<u64>)>,
    /// Bytes that the pieces so far add up to.
    expected: u64,
    /// Where the last content ended.
    last_end: u64,
    count: usize,
    trouble: Option<Trouble>,
}

impl Collector<'_> {
    fn entry(&mut self, raw: Raw) -> Result<(), Trouble> {
        self.count += 1;
        if self.count > MOST_ENTRIES {
            return Err(Trouble::whole(format!("it has more than {MOST_ENTRIES} entries")));
        }
        match raw.kind.as_str() {
            "chunk" => self.piece(&raw),
            "reg" => {
                self.finish()?;
                self.begin(raw)
            }
            "dir" | "symlink" | "hardlink" | "char" | "block" | "fifo" => self.finish(),
            other => Err(Trouble::lie(format!(
                "`{}` is of no known type: `{other}`",
                raw.name
            ))),
        }
    }

    fn begin(&mut self, raw: Raw) -> Result<(), Trouble> {
        if raw.size == 0 {
            return Ok(());
        }
        let range = raw.offset..raw.end_offset;
        if range.is_empty() || range.end > self.bounds.content_end {
            return Err(Trouble::lie(format!(
                "`{}` lies outside of the contents",
                raw.name
            )));
        }
        if range.start < self.last_end {
            return Err(Trouble::lie(format!(
                "`{}` overlaps with what is before it",
                raw.name
            )));
        }
        self.last_end = range.end;
        let whole = digest(&raw.digest)
            .ok_or_else(|| Trouble::lie(format!("`{}` has no digest that is one", raw.name)))?;
        let file = File {
            name: raw.name.clone(),
            size: raw.size,
            digest: whole,
            pieces: Vec::new(),
        };
        self.file = Some((file, range));
        self.expected = 0;
        if raw.chunk_digest.is_empty() && raw.chunk_type.is_empty() && raw.chunk_size == 0 {
            // The file is in one piece, unless chunks follow, which then do not begin where they should.
            return self.piece(&Raw {
                chunk_digest: raw.digest.clone(),
                chunk_size: raw.size,
                ..raw
            });
        }
        self.piece(&raw)
    }

    fn piece(&mut self, raw: &Raw) -> Result<(), Trouble> {
        let lie = |what: &str| Err(Trouble::lie(format!("a piece of `{}` {what}", raw.name)));
        let Some((file, range)) = &mut self.file else {
            return lie("follows no file");
        };
        if raw.name != file.name {
            return lie("follows another file");
        }
        if raw.chunk_offset != self.expected {
            return lie("does not begin where the one before ends");
        }
        let left = file.size - self.expected;
        let size = if raw.chunk_size == 0 { left } else { raw.chunk_size };
        if size == 0 || size > left {
            return lie("is larger than what is left of the file");
        }
        match file.pieces.last_mut() {
            None if raw.offset != range.start => return lie("does not begin where the file does"),
            None => {}
            Some(before) if raw.offset > before.range.start && raw.offset < range.end => {
                before.range.end = raw.offset;
            }
            Some(_) => return lie("overlaps with another one"),
        }
        let zeros = match raw.chunk_type.as_str() {
            "" => false,
            "zeros" => true,
            _ => return lie("is of no known type"),
        };
        let Some(digest) = digest(&raw.chunk_digest) else {
            return lie("has no digest that is one");
        };
        self.expected += size;
        file.pieces.push(Piece {
            digest,
            size,
            range: raw.offset..range.end,
            zeros,
        });
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Trouble> {
        let Some((file, _)) = self.file.take() else {
            return Ok(());
        };
        if self.expected != file.size {
            return Err(Trouble::lie(format!(
                "the pieces of `{}` do not add up to its size",
                file.name
            )));
        }
        (self.each)(&file)
    }

    /// Keeps the trouble and returns an error that stops the reader.
    fn stop<E: Error>(&mut self, trouble: Trouble) -> E {
        let error = E::custom(&trouble);
        self.trouble = Some(trouble);
        error
    }
}

/// The object at the top: its version and the digest of tar-split.
struct Table<'c, 'a>(&'c mut Collector<'a>);

impl<'de> DeserializeSeed<'de> for Table<'_, '_> {
    type Value = (Option<u64>, Option<String>);

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Table<'_, '_> {
    type Value = (Option<u64>, Option<String>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut version, mut tar_split, mut listed) = (None, None, false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "version" => version = Some(map.next_value()?),
                "tarSplitDigest" => tar_split = map.next_value()?,
                "entries" if !listed => {
                    map.next_value_seed(Entries(self.0))?;
                    listed = true;
                }
                "entries" => return Err(A::Error::custom("it lists entries twice")),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok((version, tar_split))
    }
}

struct Entries<'c, 'a>(&'c mut Collector<'a>);

impl<'de> DeserializeSeed<'de> for Entries<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(raw) = entries.next_element::<Raw>()? {
            if let Err(trouble) = self.0.entry(raw) {
                return Err(self.0.stop(trouble));
            }
        }
        self.0.finish().map_err(|trouble| self.0.stop(trouble))
    }
}
