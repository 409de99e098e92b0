//! Reading JSON that somebody else wrote: no text in it may be so long that it fills the memory.

use std::io::Read;

/// The longest text; an extended attribute of 64 KiB has 88 KiB in base64.
const LONGEST: usize = 256 * 1024;

/// Passes JSON on and fails at a text that is too long.
#[derive(Debug)]
pub(super) struct Guard<R> {
    source: R,
    in_text: bool,
    escaped: bool,
    length: usize,
}

impl<R> Guard<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            in_text: false,
            escaped: false,
            length: 0,
        }
    }

    fn look(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            // Numbers and white space count as well: they are held, too.
            self.length += 1;
            match (self.in_text, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (true, b'"') => (self.in_text, self.length) = (false, 0),
                (false, b'"') => (self.in_text, self.length) = (true, 0),
                (false, b',' | b':') => self.length = 0,
                _ => {}
            }
            if self.length > LONGEST {
                return false;
            }
        }
        true
    }
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        if self.look(&buffer[..count]) {
            Ok(count)
        } else {
            Err(std::io::Error::other("a text in it is too long"))
        }
    }
}
