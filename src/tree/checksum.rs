//! The name of an object: the SHA-256 of what it holds.

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// A SHA-256 sum, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// Returns the sum of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the sum that `hasher` arrived at.
    pub fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// Reads a sum from its 32 bytes.
    ///
    /// Fails when there are more or fewer.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        ensure!(
            bytes.len() == 32,
            "A checksum has 32 bytes, and this one has {}",
            bytes.len()
        );
        let mut sum = [0; 32];
        sum.copy_from_slice(bytes);
        Ok(Self(sum))
    }

    /// Returns the 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Checksum {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut sum = [0; 32];
        hex::decode_to_slice(text, &mut sum)
            .map_err(|error| anyhow::anyhow!("`{text}` is not a checksum: {error}"))?;
        Ok(Self(sum))
    }
}
