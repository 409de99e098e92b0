//! Layers: tar archives with whatever a test needs in them, good and bad.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use tar::{Builder, EntryType, Header};

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Plain tar.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Packing {
    /// Returns the media type of a layer packed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A layer in the making; entries keep the order in which they were added.
pub struct Layer {
    tar: Builder<Vec<u8>>,
    packing: Packing,
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// Returns an empty layer, packed with gzip.
    pub fn new() -> Self {
        let mut tar = Builder::new(Vec::new());
        tar.preserve_absolute(true);
        Self {
            tar,
            packing: Packing::Gzip,
        }
    }

    /// Chooses how the layer is packed.
    pub fn packed(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    /// Adds a directory.
    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(name.as_bytes(), EntryType::Directory, mode, b"", b"")
    }

    /// Adds a regular file.
    pub fn file(self, name: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.entry(name.as_bytes(), EntryType::Regular, mode, b"", content.as_ref())
    }

    /// Adds a file of `size` bytes that differ from file to file and do not compress well.
    pub fn noise(self, name: &str, size: usize) -> Self {
        let seed = name.bytes().fold(0x9e37_79b9_7f4a_7c15u64, |state, byte| {
            (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        self.file(name, 0o644, noise(seed, size))
    }

    /// Adds a symbolic link.
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name.as_bytes(), EntryType::Symlink, 0o777, target.as_bytes(), b"")
    }

    /// Adds a hard link.
    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(name.as_bytes(), EntryType::Link, 0o644, target.as_bytes(), b"")
    }

    /// Adds a character device with numbers 1:3.
    pub fn device(self, name: &str) -> Self {
        self.entry(name.as_bytes(), EntryType::Char, 0o666, b"", b"")
    }

    /// Adds a FIFO.
    pub fn fifo(self, name: &str) -> Self {
        self.entry(name.as_bytes(), EntryType::Fifo, 0o644, b"", b"")
    }

    /// Adds a whiteout of `name`.
    pub fn whiteout(self, name: &str) -> Self {
        let marked = match name.rsplit_once('/') {
            Some((parent, last)) => format!("{parent}/.wh.{last}"),
            None => format!(".wh.{name}"),
        };
        self.file(&marked, 0o644, b"")
    }

    /// Makes the directory `name` opaque.
    pub fn opaque(self, name: &str) -> Self {
        self.file(&format!("{name}/.wh..wh..opq"), 0o644, b"")
    }

    /// Adds a regular file with extended attributes, by a PAX header.
    pub fn file_with_xattrs(mut self, name: &str, content: &[u8], xattrs: &[(&str, &[u8])]) -> Self {
        let keys: Vec<String> = xattrs
            .iter()
            .map(|(key, _)| format!("SCHILY.xattr.{key}"))
            .collect();
        let extensions = keys
            .iter()
            .map(String::as_str)
            .zip(xattrs.iter().map(|(_, value)| *value));
        self.tar.append_pax_extensions(extensions).expect("PAX header");
        self.file(name, 0o755, content)
    }

    /// Adds an entry with exactly these bytes as its name; names beyond 100 bytes get a GNU long name.
    pub fn entry(mut self, name: &[u8], kind: EntryType, mode: u32, link: &[u8], content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        if kind == EntryType::Char {
            header.set_device_major(1).expect("major");
            header.set_device_minor(3).expect("minor");
        }
        self.long(b'L', name);
        self.long(b'K', link);
        // Written straight into the header, because the library refuses the very names that tests need.
        let short = |field: &mut [u8], value: &[u8]| {
            let length = value.len().min(field.len());
            field[..length].copy_from_slice(&value[..length]);
        };
        short(&mut header.as_old_mut().name, name);
        short(&mut header.as_old_mut().linkname, link);
        header.set_cksum();
        self.tar.append(&header, content).expect("entry");
        self
    }

    fn long(&mut self, kind: u8, value: &[u8]) {
        if value.len() <= 100 {
            return;
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        let mark = b"././@LongLink";
        header.as_old_mut().name[..mark.len()].copy_from_slice(mark);
        header.set_size(value.len() as u64 + 1);
        header.set_mode(0o644);
        header.set_cksum();
        let data = value.chain(&b"\0"[..]);
        self.tar.append(&header, data).expect("long name");
    }

    /// Returns the plain tar.
    pub fn tar(self) -> Vec<u8> {
        self.tar.into_inner().expect("tar")
    }

    /// Returns the plain tar and the packed bytes.
    pub fn finish(self) -> PackedLayer {
        let tar = self.tar.into_inner().expect("tar");
        PackedLayer::pack(tar, self.packing)
    }
}

/// A layer as it goes into an image.
pub struct PackedLayer {
    /// The digest of the plain tar.
    pub diff_id: String,
    /// The packed bytes.
    pub data: Vec<u8>,
    /// How they are packed.
    pub packing: Packing,
    /// Annotations for the manifest.
    pub annotations: BTreeMap<String, String>,
}

impl PackedLayer {
    /// Packs a tar archive.
    pub fn pack(tar: Vec<u8>, packing: Packing) -> Self {
        let diff_id = super::image::sha256(&tar);
        let data = match packing {
            Packing::None => tar,
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&tar).expect("gzip");
                encoder.finish().expect("gzip")
            }
            Packing::Zstd => zstd::encode_all(&tar[..], 1).expect("zstd"),
        };
        Self {
            diff_id,
            data,
            packing,
            annotations: BTreeMap::new(),
        }
    }

    /// Returns a layer of a few kilobytes that unpacks to one file of `size` zero bytes; its `diff_id` is made up.
    pub fn bomb(name: &str, size: u64) -> Self {
        let mut header = Header::new_gnu();
        header.set_path(name).expect("name");
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        let encoder = zstd::Encoder::new(Vec::new(), 1).expect("zstd");
        let mut tar = Builder::new(encoder);
        tar.append(&header, std::io::repeat(0).take(size)).expect("zeros");
        let data = tar.into_inner().expect("tar").finish().expect("zstd");
        Self {
            diff_id: super::image::sha256(b"nobody computes this"),
            data,
            packing: Packing::Zstd,
            annotations: BTreeMap::new(),
        }
    }
}

/// Returns bytes that do not compress; equal seeds, which are not zero, make equal bytes.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(size.div_ceil(8))
    .flatten()
    .take(size)
    .collect()
}
