//! What Debian changelogs (deb-changelog(5)) that an image ships tell between two versions of a package.
//!
//! ```text
//! usr/share/doc/NAME/changelog.Debian.ARCHITECTURE.gz   why it was built again; newer than the rest
//! usr/share/doc/NAME/changelog.Debian.gz                the source package's
//! usr/share/doc/NAME/changelog.gz                       the same, of a package that Debian itself makes
//! ```
//! `usr/share/doc/NAME` may be a link to the folder of another package of the same source.

use crate::image::content::CommitTree;
use crate::layer::packages;
use crate::layer::plan::PackageId;
use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use std::cmp::Ordering;
use std::io::Read;

const FOLDER: &str = "usr/share/doc";

/// Bytes of a changelog that are read; the newest entries come first.
const MOST: u64 = 8 << 20;

/// One entry: its version, and its text with the head line and without the line end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry<'a> {
    version: &'a str,
    text: &'a str,
}

/// Returns the entries that the later one of two versions of a package has beyond the earlier one, newest first; none
/// where its tree ships no changelog.
///
/// Versions of the changelogs are compared with one another, because that of a package may be another one than its
/// source's.
pub fn between(
    (earlier, before): (&CommitTree, &PackageId),
    (later, after): (&CommitTree, &PackageId),
) -> Result<Option<Vec<String>>> {
    let Some(text) = read(later, after)? else {
        return Ok(None);
    };
    let known = read(earlier, before)?;
    let known = known.as_deref().map(entries).unwrap_or_default();
    let known = known
        .first()
        .map_or(before.version.as_str(), |entry| entry.version);
    let newer = |entry: &Entry<'_>| packages::compare(entry.version, known) == Ordering::Greater;
    let found = entries(&text).into_iter().filter(newer);
    Ok(Some(found.map(|entry| entry.text.to_owned()).collect()))
}

/// Returns the changelog of a package, with what it says of builds first.
fn read(tree: &CommitTree, id: &PackageId) -> Result<Option<String>> {
    let folder = match tree.read_link(&format!("{FOLDER}/{}", id.name))? {
        Some(other) if !other.contains('/') => format!("{FOLDER}/{other}"),
        _ => format!("{FOLDER}/{}", id.name),
    };
    let file = |name: &str| -> Result<Option<String>> {
        let path = format!("{folder}/{name}");
        let Some(bytes) = tree.read(&path)? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        MultiGzDecoder::new(bytes.as_slice())
            .take(MOST)
            .read_to_end(&mut text)
            .with_context(|| format!("Reading {path}"))?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    };
    let builds = file(&format!("changelog.Debian.{}.gz", id.architecture))?;
    let source = match file("changelog.Debian.gz")? {
        Some(text) => Some(text),
        // What upstream writes has another form, and no entry is found in it.
        None => file("changelog.gz")?.filter(|text| !entries(text).is_empty()),
    };
    Ok(match (builds, source) {
        (Some(builds), source) => Some(builds + &source.unwrap_or_default()),
        (None, source) => source,
    })
}

fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut heads: Vec<(usize, &str)> = Vec::new();
    let mut place = 0;
    for line in text.split_inclusive('\n') {
        if let Some(version) = version_of(line) {
            heads.push((place, version));
        }
        place += line.len();
    }
    let ends = heads.iter().skip(1).map(|(place, _)| *place).chain([text.len()]);
    heads
        .iter()
        .zip(ends)
        .map(|((start, version), end)| Entry {
            version,
            text: text[*start..end].trim_end(),
        })
        .collect()
}

/// Returns the version of a head line, `NAME (VERSION) DISTRIBUTIONS; KEY=VALUE`.
fn version_of(line: &str) -> Option<&str> {
    let (name, rest) = line.split_once(" (")?;
    let (version, rest) = rest.split_once(')')?;
    let is_head = !name.is_empty() && !name.contains(char::is_whitespace) && rest.contains(';');
    is_head.then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_at_head_lines() {
        let text = "tool (2-1) unstable; urgency=low\n\n  * Two (see (1)); done\n\n -- A <a@b>  Mon\n\n\
                    tool (1:1-1) unstable; urgency=low\n\n  * One\n\n -- A <a@b>  Mon\n";
        let found = entries(text);
        let versions: Vec<&str> = found.iter().map(|entry| entry.version).collect();
        assert_eq!(versions, ["2-1", "1:1-1"]);
        assert!(found[0].text.starts_with("tool (2-1)") && found[0].text.ends_with("Mon"));
        assert!(entries("Changes in 2 (the next one):\n* nothing\n").is_empty());
    }
}
