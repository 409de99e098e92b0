//! Reading an initramfs: an optional early archive, then the main one, plain or compressed.
//!
//! Both are cpio in the `newc` format, one behind the other, with zero bytes between.

use crate::host::runner::Cmd;
use anyhow::{Context, Result, bail};
use fn_error_context::context;
use std::io::Read;

/// Length of a `newc` header: the magic and thirteen numbers of eight hexadecimal digits.
const HEADER: usize = 110;
/// Longest path that the kernel would accept.
const LONGEST_PATH: usize = 4096;

/// Where dracut lists the modules that it took.
pub const MODULE_LIST: &str = "lib/dracut/modules.txt";

/// One file of an initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path without a leading slash.
    pub path: String,
    /// File type and permission bits.
    pub mode: u32,
    /// Content of the small files that tell what the initramfs is made of, empty for all others.
    pub note: String,
}

impl Entry {
    /// Tells whether the entry is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }
}

/// Returns the entries of all archives in `image`.
///
/// Fails when the bytes are no initramfs or end too early. Of the compressions that the kernel knows, gzip, xz
/// and zstd are read; dracut on Debian uses one of these.
#[context("Reading the initramfs")]
pub fn entries(image: &[u8]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut rest = image;
    loop {
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        rest = &rest[zeros..];
        match rest {
            [] if entries.is_empty() => bail!("It is empty"),
            [] => return Ok(entries),
            [b'0', b'7', b'0', b'7', b'0', ..] => read_archive(&mut rest, &mut entries)?,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let mut main = zstd::Decoder::new(rest)?;
                read_archive(&mut main, &mut entries)?;
                return Ok(entries);
            }
            [0x1f, 0x8b, ..] => {
                read_archive(&mut flate2::read::MultiGzDecoder::new(rest), &mut entries)?;
                return Ok(entries);
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                let main = Cmd::new("xz").arg("-dc").input(rest).run()?;
                read_archive(&mut main.as_slice(), &mut entries)?;
                return Ok(entries);
            }
            _ => bail!("It is neither a cpio archive nor compressed with gzip, xz or zstd"),
        }
    }
}

/// Reads one archive up to and including its trailer.
fn read_archive(stream: &mut dyn Read, entries: &mut Vec<Entry>) -> Result<()> {
    let mut header = [0; HEADER];
    loop {
        stream
            .read_exact(&mut header)
            .context("The archive ends without its trailer")?;
        if !matches!(&header[..6], b"070701" | b"070702") {
            bail!("An archive header has the wrong magic");
        }
        let mode = number(&header, 1)?;
        let size = u64::from(number(&header, 6)?);
        let length = usize::try_from(number(&header, 11)?)?;
        if length == 0 || length > LONGEST_PATH {
            bail!("An archive header holds a path of {length} bytes");
        }
        let mut name = vec![0; length];
        stream.read_exact(&mut name)?;
        skip(stream, padding(HEADER as u64 + length as u64))?;
        let name = String::from_utf8_lossy(&name[..length - 1]).into_owned();
        let mut note = String::new();
        if name.ends_with(MODULE_LIST) {
            stream.take(size).read_to_string(&mut note)?;
            skip(stream, padding(size))?;
        } else {
            skip(stream, size + padding(size))?;
        }
        if name == "TRAILER!!!" {
            return Ok(());
        }
        let path = name.trim_start_matches("./").trim_start_matches('/').to_owned();
        entries.push(Entry { path, mode, note });
    }
}

/// Returns the number in the field `index` behind the magic.
fn number(header: &[u8; HEADER], index: usize) -> Result<u32> {
    let start = 6 + index * 8;
    let digits = std::str::from_utf8(&header[start..start + 8])?;
    u32::from_str_radix(digits, 16).context("An archive header holds something else than a number")
}

/// Bytes up to the next multiple of four.
fn padding(length: u64) -> u64 {
    length.next_multiple_of(4) - length
}

fn skip(stream: &mut dyn Read, bytes: u64) -> Result<()> {
    let skipped = std::io::copy(&mut stream.take(bytes), &mut std::io::sink())?;
    if skipped != bytes {
        bail!("The archive ends inside a file");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content) in files.iter().chain(&[("TRAILER!!!", "")]) {
            let fields = [
                0,
                0o100_644,
                0,
                0,
                1,
                0,
                content.len(),
                0,
                0,
                0,
                0,
                name.len() + 1,
                0,
            ];
            bytes.extend_from_slice(b"070701");
            for field in fields {
                bytes.extend_from_slice(format!("{field:08X}").as_bytes());
            }
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend_from_slice(content.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn paths(image: &[u8]) -> Vec<String> {
        entries(image)
            .unwrap()
            .into_iter()
            .map(|entry| entry.path)
            .collect()
    }

    #[test]
    fn early_and_main_archive_are_read_in_every_compression() {
        let mut early = archive(&[("kernel/x86/microcode/GenuineIntel.bin", "code")]);
        early.resize(early.len().next_multiple_of(512), 0);
        let main = archive(&[
            ("./usr/bin/sh", "x"),
            ("usr/lib/ostree/ostree-prepare-root", "yes"),
        ]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&main).unwrap();
        let packed = [
            main.clone(),
            gzip.finish().unwrap(),
            zstd::encode_all(main.as_slice(), 1).unwrap(),
            Cmd::new("xz")
                .args(["-c", "--check=crc32"])
                .input(main.as_slice())
                .run()
                .unwrap(),
        ];
        for main in packed {
            let image = [early.clone(), main].concat();
            assert_eq!(
                paths(&image),
                [
                    "kernel/x86/microcode/GenuineIntel.bin",
                    "usr/bin/sh",
                    "usr/lib/ostree/ostree-prepare-root"
                ]
            );
        }
    }

    #[test]
    fn damaged_images_are_errors_and_notes_are_read() {
        let good = archive(&[("a", "content")]);
        let mut wrong_number = good.clone();
        wrong_number[20] = b'z';
        let listed = archive(&[
            ("usr/lib/dracut/modules.txt", "bash\nostree\n"),
            ("etc/x", "content"),
        ]);
        let notes: Vec<_> = entries(&listed)
            .unwrap()
            .into_iter()
            .map(|entry| entry.note)
            .collect();
        assert_eq!(notes, ["bash\nostree\n", ""]);
        for bad in [&b""[..], b"hello", &good[..40], &good[..120], &wrong_number] {
            assert!(entries(bad).is_err());
        }
    }
}
