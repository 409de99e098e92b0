//! The few GVariant shapes OSTree trees are made of.
//!
//! Every member here is a string, a byte array or a tuple or array of those, so nothing needs alignment; a
//! container of them is its members one after the other and then the offsets of their ends.

use super::Checksum;
use anyhow::{Context, Result, bail, ensure};

/// Returns the bytes of an array whose elements have no fixed size.
pub(super) fn array(elements: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut body = Vec::new();
    let mut ends = Vec::new();
    for element in elements {
        body.extend_from_slice(&element);
        ends.push(body.len());
    }
    frame(body, &ends)
}

/// Returns the bytes of a tuple whose members have no fixed size.
pub(super) fn tuple(members: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::with_capacity(members.iter().map(|member| member.len() + 2).sum());
    let mut ends = Vec::with_capacity(members.len());
    for member in members {
        body.extend_from_slice(member);
        ends.push(body.len());
    }
    // The last member ends where the offsets begin, and a tuple's offsets stand in reverse.
    ends.pop();
    ends.reverse();
    frame(body, &ends)
}

/// Appends the offsets in the smallest size that can name every byte of the result.
pub(super) fn frame(mut body: Vec<u8>, ends: &[usize]) -> Vec<u8> {
    if ends.is_empty() {
        return body;
    }
    let size = [1usize, 2, 4]
        .into_iter()
        .find(|size| (body.len() + size * ends.len()) as u64 <= u64::MAX >> (64 - 8 * size))
        .unwrap_or(8);
    for end in ends {
        body.extend_from_slice(&(*end as u64).to_le_bytes()[..size]);
    }
    body
}

fn offset_size(length: usize) -> usize {
    match length as u64 {
        0 => 0,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

fn offset(bytes: &[u8], at: usize, size: usize) -> Result<usize> {
    let slice = bytes
        .get(at..at + size)
        .context("An offset lies outside its container")?;
    let mut number = [0; 8];
    number[..size].copy_from_slice(slice);
    Ok(usize::try_from(u64::from_le_bytes(number))?)
}

/// Splits an array into its elements.
fn elements(bytes: &[u8]) -> Result<Vec<&[u8]>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let size = offset_size(bytes.len());
    let table = offset(bytes, bytes.len() - size, size)?;
    ensure!(
        table < bytes.len() && (bytes.len() - table) % size == 0,
        "The offsets of an array are broken"
    );
    let mut start = 0;
    let mut found = Vec::with_capacity((bytes.len() - table) / size);
    for at in (table..bytes.len()).step_by(size) {
        let end = offset(bytes, at, size)?;
        ensure!(start <= end && end <= table, "An array element is out of order");
        found.push(&bytes[start..end]);
        start = end;
    }
    Ok(found)
}

/// Splits a tuple into its `count` members.
fn members(bytes: &[u8], count: usize) -> Result<Vec<&[u8]>> {
    let size = offset_size(bytes.len());
    let Some(body) = bytes.len().checked_sub(size * (count - 1)) else {
        bail!("A tuple is shorter than its offsets");
    };
    let mut start = 0;
    let mut found = Vec::with_capacity(count);
    for index in 0..count {
        let end = if index + 1 == count {
            body
        } else {
            offset(bytes, bytes.len() - size * (index + 1), size)?
        };
        ensure!(start <= end && end <= body, "A tuple member is out of order");
        found.push(&bytes[start..end]);
        start = end;
    }
    Ok(found)
}

/// Reads an array of pairs of byte arrays, `a(ayay)`.
pub(super) fn read_pairs(bytes: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    elements(bytes)?
        .into_iter()
        .map(|element| {
            let member = members(element, 2)?;
            Ok((member[0], member[1]))
        })
        .collect()
}

fn string(bytes: &[u8]) -> Result<&str> {
    let (&last, text) = bytes.split_last().context("A string lacks its end")?;
    ensure!(last == 0, "A string lacks its end");
    Ok(std::str::from_utf8(text)?)
}

/// Files (name, object) and directories (name, tree, metadata) of a directory object.
pub(super) type Listing<'a> = (Vec<(&'a str, Checksum)>, Vec<(&'a str, Checksum, Checksum)>);

/// Reads a directory object, `(a(say)a(sayay))`.
pub(super) fn read_dirtree(bytes: &[u8]) -> Result<Listing<'_>> {
    let arrays = members(bytes, 2)?;
    let mut files = Vec::new();
    for element in elements(arrays[0])? {
        let member = members(element, 2)?;
        files.push((string(member[0])?, Checksum::from_slice(member[1])?));
    }
    let mut directories = Vec::new();
    for element in elements(arrays[1])? {
        let member = members(element, 3)?;
        directories.push((
            string(member[0])?,
            Checksum::from_slice(member[1])?,
            Checksum::from_slice(member[2])?,
        ));
    }
    Ok((files, directories))
}

/// Returns a directory object; names come in byte order.
pub(super) fn write_dirtree<'a>(
    files: impl Iterator<Item = (&'a str, Checksum)>,
    directories: impl Iterator<Item = (&'a str, Checksum, Checksum)>,
) -> Vec<u8> {
    fn text(name: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(name.len() + 1);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes
    }
    let files = array(files.map(|(name, object)| tuple(&[&text(name), object.as_bytes()])));
    let directories =
        array(directories.map(|(name, tree, meta)| tuple(&[&text(name), tree.as_bytes(), meta.as_bytes()])));
    tuple(&[&files, &directories])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ostree_ext::glib::prelude::{StaticVariantType, ToVariant};

    fn names(count: usize, length: usize) -> Vec<String> {
        (0..count)
            .map(|index| format!("{index:04}{}", "n".repeat(length)))
            .collect()
    }

    #[test]
    fn dirtree_is_glibs() {
        for (files, directories, length) in [
            (0, 0, 0),
            (1, 0, 0),
            (0, 1, 200),
            (3, 2, 10),
            (5, 5, 250),
            (900, 3, 5),
            (1500, 900, 40),
        ] {
            let files = names(files, length);
            let directories = names(directories, length);
            let sum = Checksum::of(b"x");
            let ours = write_dirtree(
                files.iter().map(|name| (name.as_str(), sum)),
                directories.iter().map(|name| (name.as_str(), sum, sum)),
            );
            let bytes = sum.as_bytes().to_vec();
            let theirs = (
                files
                    .iter()
                    .map(|name| (name.clone(), bytes.clone()))
                    .collect::<Vec<_>>(),
                directories
                    .iter()
                    .map(|name| (name.clone(), bytes.clone(), bytes.clone()))
                    .collect::<Vec<_>>(),
            )
                .to_variant();
            assert_eq!(
                theirs.type_(),
                &*<(Vec<(String, Vec<u8>)>, Vec<(String, Vec<u8>, Vec<u8>)>)>::static_variant_type()
            );
            assert_eq!(ours, theirs.data());
            let (read_files, read_directories) = read_dirtree(&ours).unwrap();
            assert_eq!(read_files.len(), files.len());
            assert!(
                read_files
                    .iter()
                    .zip(&files)
                    .all(|((name, object), other)| name == other && *object == sum)
            );
            assert_eq!(read_directories.len(), directories.len());
        }
    }

    #[test]
    fn broken_bytes_are_refused() {
        let sum = Checksum::of(b"x");
        let good = write_dirtree([("a", sum), ("b", sum)].into_iter(), std::iter::empty());
        for cut in 1..good.len() {
            // Some cuts happen to read as another listing; none may panic.
            if let Ok((files, _)) = read_dirtree(&good[..cut]) {
                assert!(files.len() < 2);
            }
        }
        assert!(read_dirtree(&[0xff; 40]).is_err());
    }
}
