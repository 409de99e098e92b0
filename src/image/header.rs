//! Tar headers: ustar, GNU and PAX, read strictly and without ever trusting a length.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;

/// Bytes of a header, and what every member is padded to.
pub(super) const BLOCK: usize = 512;

/// What kind of entry a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// A file with content.
    Regular,
    /// Another name of an earlier file.
    Hardlink,
    /// A symbolic link.
    Symlink,
    /// A character or block device.
    Device,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A file with holes.
    Sparse,
    /// PAX records for the next entry.
    PaxLocal,
    /// PAX records for all later entries.
    PaxGlobal,
    /// GNU: the name of the next entry.
    LongName,
    /// GNU: the link target of the next entry.
    LongLink,
}

/// The fields of one header block.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// The kind of entry.
    pub(super) kind: EntryKind,
    /// Path as written, prefix included.
    pub(super) path: Vec<u8>,
    /// Target of a hard or symbolic link as written.
    pub(super) link: Vec<u8>,
    /// Mode as written; some writers put the file type in.
    pub(super) mode: u64,
    /// Owner.
    pub(super) uid: u64,
    /// Group.
    pub(super) gid: u64,
    /// Bytes that follow, before padding.
    pub(super) size: u64,
}

impl Header {
    /// Reads a header block; `None` for a block of zeros, which ends an archive.
    ///
    /// Fails when the block's checksum or a number is wrong, or the kind of entry is not known.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Option<Self>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        check_sum(block)?;
        let magic = &block[257..265];
        let mut path = text(&block[..100]).to_vec();
        if magic[..6] == *b"ustar\0" {
            let prefix = text(&block[345..500]);
            if !prefix.is_empty() {
                path = [prefix, b"/", path.as_slice()].concat();
            }
        }
        let kind = match block[156] {
            b'\0' | b'0' | b'7' => EntryKind::Regular,
            b'1' => EntryKind::Hardlink,
            b'2' => EntryKind::Symlink,
            b'3' | b'4' => EntryKind::Device,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            b'S' => EntryKind::Sparse,
            b'x' | b'X' => EntryKind::PaxLocal,
            b'g' => EntryKind::PaxGlobal,
            b'L' => EntryKind::LongName,
            b'K' => EntryKind::LongLink,
            other => bail!("the entry kind {:?} is not known", char::from(other)),
        };
        Ok(Some(Self {
            kind,
            path,
            link: text(&block[157..257]).to_vec(),
            mode: number(&block[100..108]).context("the mode is not a number")?,
            uid: number(&block[108..116]).context("the owner is not a number")?,
            gid: number(&block[116..124]).context("the group is not a number")?,
            size: number(&block[124..136]).context("the size is not a number")?,
        }))
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

fn check_sum(block: &[u8; BLOCK]) -> Result<()> {
    let wanted = number(&block[148..156]).context("a header has no checksum")?;
    let mut unsigned = 0u64;
    let mut signed = 0i64;
    for (index, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&index) { b' ' } else { *byte };
        unsigned += u64::from(byte);
        // Some old writers summed signed characters.
        signed += i64::from(i8::from_ne_bytes([byte]));
    }
    ensure!(
        wanted == unsigned || i64::try_from(wanted) == Ok(signed),
        "a header does not match its checksum, so this is no tar archive"
    );
    Ok(())
}

/// Reads a number: octal text, or base 256 when the first bit is set.
fn number(field: &[u8]) -> Result<u64> {
    if field[0] & 0x80 != 0 {
        ensure!(field[0] & 0x40 == 0, "it is negative");
        let mut value = u64::from(field[0] & 0x3f);
        for byte in &field[1..] {
            ensure!(value >> 56 == 0, "it is too large");
            value = value << 8 | u64::from(*byte);
        }
        return Ok(value);
    }
    let mut value = 0u64;
    let digits = text(field);
    for byte in digits.trim_ascii() {
        ensure!(
            (b'0'..=b'7').contains(byte),
            "it has the character {:?}",
            char::from(*byte)
        );
        ensure!(value >> 61 == 0, "it is too large");
        value = value << 3 | u64::from(byte - b'0');
    }
    Ok(value)
}

/// Splits the body of a PAX header into its records; the last one of a key counts.
///
/// Fails when a record's length or form is wrong.
pub(super) fn pax_records(mut body: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut records = BTreeMap::new();
    while !body.is_empty() {
        let space = body
            .iter()
            .position(|byte| *byte == b' ')
            .context("a PAX record has no length")?;
        let length = decimal(&body[..space])?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length > space + 1 && *length <= body.len());
        let length = length.context("a PAX record's length is wrong")?;
        let (record, rest) = body.split_at(length);
        let record = record[space + 1..]
            .strip_suffix(b"\n")
            .context("a PAX record does not end with a new line")?;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .context("a PAX record has no value")?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        body = rest;
    }
    Ok(records)
}

/// Reads a decimal number of a PAX record.
pub(super) fn decimal(text: &[u8]) -> Result<u64> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .with_context(|| {
            format!(
                "`{}` in a PAX record is not a number",
                String::from_utf8_lossy(text)
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(change: impl FnOnce(&mut [u8; BLOCK])) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..5].copy_from_slice(b"a/b/c");
        block[100..107].copy_from_slice(b"0000644");
        block[108..115].copy_from_slice(b"0001750");
        block[116..123].copy_from_slice(b"0001750");
        block[124..135].copy_from_slice(b"00000000012");
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut block);
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    #[test]
    fn plain_header() {
        let header = Header::parse(&block(|_| {})).unwrap().unwrap();
        assert_eq!(header.path, b"a/b/c");
        assert_eq!(
            (header.mode, header.uid, header.gid, header.size),
            (0o644, 1000, 1000, 10)
        );
        assert_eq!(header.kind, EntryKind::Regular);
    }

    #[test]
    fn prefix_counts_in_ustar_only() {
        let posix = block(|block| block[345..349].copy_from_slice(b"long"));
        assert_eq!(Header::parse(&posix).unwrap().unwrap().path, b"long/a/b/c");
        let gnu = block(|block| {
            block[257..265].copy_from_slice(b"ustar  \0");
            block[345..349].copy_from_slice(b"1234");
        });
        assert_eq!(Header::parse(&gnu).unwrap().unwrap().path, b"a/b/c");
    }

    #[test]
    fn base_256_numbers() {
        let big = block(|block| {
            block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]);
        });
        assert_eq!(Header::parse(&big).unwrap().unwrap().size, 0x2_0000_0001);
        assert!(Header::parse(&block(|block| block[124..136].fill(0xff))).is_err());
    }

    #[test]
    fn damage_is_seen() {
        let mut damaged = block(|_| {});
        damaged[0] = b'b';
        assert!(Header::parse(&damaged).is_err());
        assert!(Header::parse(&block(|block| block[100] = b'9')).is_err());
        assert!(Header::parse(&block(|block| block[156] = b'?')).is_err());
        assert!(Header::parse(&[0; BLOCK]).unwrap().is_none());
    }

    #[test]
    fn pax() {
        let records = pax_records(b"11 path=ab\n21 SCHILY.xattr.u=\n\0\n").unwrap();
        assert_eq!(records[b"path".as_slice()], b"ab");
        assert_eq!(records[b"SCHILY.xattr.u".as_slice()], b"\n\0".as_slice());
        for wrong in [
            b"12 path=ab\n".as_slice(),
            b"99999999999999999999 path=ab\n",
            b"0 path=ab\n",
            b"3 \n",
            b"path=ab\n",
            b"10 pathab\n",
            b"-11 path=ab\n",
            b"11 path=abc",
        ] {
            assert!(pax_records(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
