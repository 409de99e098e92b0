//! Extended attributes of files, directories and links, without following a link.

use anyhow::{Context, Result};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Bytes that most lists and values fit into.
const USUAL: usize = 256;

/// Returns names and values of all attributes of `name` in the directory `parent`; none where the file system has none.
pub fn read(parent: impl AsFd, name: &OsStr) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = path(parent, name);
    collect(
        |buffer| rustix::fs::llistxattr(&path, buffer),
        |attribute, buffer| rustix::fs::lgetxattr(&path, attribute, buffer),
    )
    .with_context(|| format!("Reading the attributes of {name:?}"))
}

/// Returns names and values of all attributes of an open file or directory.
pub fn of(file: impl AsFd) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    collect(
        |buffer| rustix::fs::flistxattr(&file, buffer),
        |attribute, buffer| rustix::fs::fgetxattr(&file, attribute, buffer),
    )
    .context("Reading the attributes of a file")
}

fn collect(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match grow(list) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match grow(|buffer| get(name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Sets one attribute of `name` in the directory `parent`.
pub fn write(parent: impl AsFd, name: &OsStr, attribute: &[u8], value: &[u8]) -> Result<()> {
    rustix::fs::lsetxattr(path(parent, name), attribute, value, XattrFlags::empty()).with_context(|| {
        let attribute = String::from_utf8_lossy(attribute);
        format!("Setting the attribute {attribute} of {name:?}")
    })
}

/// There are no calls with a handle and a name; the kernel's own link to the handle serves as one.
fn path(parent: impl AsFd, name: &OsStr) -> OsString {
    let mut path = format!("/proc/self/fd/{}/", parent.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    OsString::from_vec(path)
}

/// Calls `read` with a buffer that grows until the answer fits.
fn grow(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; USUAL];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 8, 0),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_any_size_come_back() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x y"), "").unwrap();
        let handle = std::fs::File::open(folder.path()).unwrap();
        let name = OsStr::new("x y");
        assert!(read(&handle, name).unwrap().is_empty());
        write(&handle, name, b"user.small", b"1").unwrap();
        write(&handle, name, b"user.large", &[7; 2000]).unwrap();
        let mut found = read(&handle, name).unwrap();
        found.sort();
        assert_eq!(
            found,
            [
                (b"user.large".to_vec(), vec![7; 2000]),
                (b"user.small".to_vec(), b"1".to_vec())
            ]
        );
        assert!(read(&handle, OsStr::new("missing")).is_err());
    }
}
