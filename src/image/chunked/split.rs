//! tar-split: the archive without the contents of its files, as lines of JSON, read as they inflate.

use super::trouble::Trouble;
use serde::Deserialize;
use serde::de::{Error, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::io::{BufRead, BufReader, Read};

/// The longest line: padding comes in runs of at most a mebibyte, which has a third more in base64.
const LONGEST: u64 = 4 * 1024 * 1024;

/// What comes next in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Bytes of the archive itself.
    Raw(&'a [u8]),
    /// The content of a file, more than none.
    Content {
        /// The path as the archive has it.
        name: &'a str,
        /// Bytes of content.
        size: u64,
    },
}

/// Reads tar-split.
pub(super) struct Split<'a> {
    lines: std::io::Take<BufReader<zstd::stream::read::Decoder<'a, &'a [u8]>>>,
    line: Vec<u8>,
    raw: Vec<u8>,
    name: String,
}

impl<'a> Split<'a> {
    /// Returns a reader of what is compressed, which inflates to `inflated` bytes at most.
    pub(super) fn new(compressed: &'a [u8], inflated: u64) -> Result<Self, Trouble> {
        let decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(broken)?;
        Ok(Self {
            lines: BufReader::with_capacity(256 * 1024, decoder).take(inflated),
            line: Vec::new(),
            raw: Vec::new(),
            name: String::new(),
        })
    }

    /// Returns the next part, nothing at the end.
    pub(super) fn next(&mut self) -> Result<Option<Part<'_>>, Trouble> {
        loop {
            self.line.clear();
            let read = (&mut self.lines).take(LONGEST).read_until(b'\n', &mut self.line);
            if read.map_err(broken)? == 0 {
                return Ok(None);
            }
            if self.line.last() != Some(&b'\n') {
                return Err(broken("a line without an end"));
            }
            let line: Line<'_> = serde_json::from_slice(&self.line).map_err(broken)?;
            match line.kind {
                KIND_FILE if line.size == 0 => {}
                KIND_FILE => {
                    self.name.clear();
                    self.name.push_str(&line.name.0);
                    return Ok(Some(Part::Content {
                        name: &self.name,
                        size: line.size,
                    }));
                }
                KIND_SEGMENT => {
                    self.raw = openssl::base64::decode_block(&line.payload.0).map_err(broken)?;
                    return Ok(Some(Part::Raw(&self.raw)));
                }
                _ => return Err(broken("an entry of no known type")),
            }
        }
    }
}

const KIND_FILE: u64 = 1;
const KIND_SEGMENT: u64 = 2;

fn broken(error: impl fmt::Display) -> Trouble {
    Trouble::lie(format!("its tar-split cannot be read ({error})"))
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: u64,
    /// Absent for a name that is not UTF-8, which no file here has.
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(default)]
    size: u64,
    /// Raw bytes in base64, or a checksum of the content.
    #[serde(borrow, default)]
    payload: Text<'a>,
}

/// A text that is borrowed where that can be, or none.
#[derive(Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }
}
