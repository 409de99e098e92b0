//! Inflating gzip data as RFC 1952 describes it: one member after the other, each with its checksum verified.
//!
//! `flate2` picks its inflater by the features of all its users, and one of them asks for the system's zlib; here it is
//! zlib-rs in any case, which takes about half the time. Inflating is what an import of gzip layers does most.

use std::io::{BufRead, Error, ErrorKind, Read, Result};
use zlib_rs::{Inflate, InflateFlush, Status};

/// The largest window there is, 32 KiB, and the demand for a gzip header.
const GZIP_WINDOW: u8 = 16 + 15;

/// Inflates what a reader brings.
pub(super) struct Gzip<R> {
    compressed: R,
    inflate: Inflate,
    /// Whether a member has begun and not ended.
    is_open: bool,
}

impl<R: BufRead> Gzip<R> {
    /// Returns the inflated form of `compressed`, which begins with a gzip header.
    pub(super) fn new(compressed: R) -> Self {
        Self {
            compressed,
            inflate: Inflate::new(true, GZIP_WINDOW),
            is_open: true,
        }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    /// Fails for what is no gzip member, for a wrong checksum, and when a member does not end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let input = self.compressed.fill_buf()?;
            let is_last = input.is_empty();
            if !self.is_open {
                if is_last {
                    return Ok(0);
                }
                self.inflate = Inflate::new(true, GZIP_WINDOW);
                self.is_open = true;
            }
            let (taken, made) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, buffer, InflateFlush::NoFlush)
                .map_err(|error| Error::new(ErrorKind::InvalidData, error.as_str()))?;
            let taken = usize::try_from(self.inflate.total_in() - taken).map_err(Error::other)?;
            let made = usize::try_from(self.inflate.total_out() - made).map_err(Error::other)?;
            self.compressed.consume(taken);
            self.is_open = status != Status::StreamEnd;
            if made > 0 || buffer.is_empty() {
                return Ok(made);
            }
            if is_last && self.is_open {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::{BufReader, Write};

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).expect("a vector takes all");
        encoder.finish().expect("a vector takes all")
    }

    fn unpacked(bytes: &[u8], piece: usize) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        Gzip::new(BufReader::with_capacity(piece, bytes)).read_to_end(&mut content)?;
        Ok(content)
    }

    fn sample() -> Vec<u8> {
        (0..200_000u32)
            .flat_map(|number| number.wrapping_mul(number).to_le_bytes())
            .collect()
    }

    #[test]
    fn members() {
        let content = sample();
        let two = [packed(&content[..1000]), packed(&content[1000..])].concat();
        for piece in [1, 7, 4096, 1 << 20] {
            assert_eq!(unpacked(&packed(&content), piece).expect("one member"), content);
            assert_eq!(unpacked(&two, piece).expect("two members"), content);
        }
        assert_eq!(unpacked(&packed(b""), 16).expect("an empty member"), b"");
    }

    #[test]
    fn damage() {
        let whole = packed(&sample());
        for length in [1, 9, 10, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
            assert!(
                unpacked(&whole[..length], 512).is_err(),
                "cut off after {length} bytes"
            );
        }
        for place in [0, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
            let mut wrong = whole.clone();
            wrong[place] ^= 1;
            assert!(unpacked(&wrong, 512).is_err(), "damaged at byte {place}");
        }
        assert!(unpacked(&[&whole[..], b"garbage"].concat(), 512).is_err());
    }
}
