//! Folding a difference with whiteouts over a lower tree, by the rules of the OCI image specification.

use super::{Directory, Entries, Objects};
use anyhow::Result;

/// What a whiteout's name begins with; the rest names what the lower tree loses.
pub const WHITEOUT_PREFIX: &str = ".wh.";

/// The whiteout that empties the lower directory it stands in.
pub const OPAQUE: &str = ".wh..wh..opq";

/// Names that begin like this are notes of an old union file system to itself.
const UNION_NOTE_PREFIX: &str = ".wh..wh.";

impl Directory {
    /// Folds `upper` over this directory.
    ///
    /// What `upper` declares wins, metadata of directories included; a file takes the place of a directory and
    /// the other way round. `has_whiteouts` may be false only when it is known that no whiteout stands in
    /// `upper`: then directories that only `upper` has are taken over unread.
    pub fn apply(&mut self, upper: Self, has_whiteouts: bool, objects: &dyn Objects) -> Result<()> {
        if !upper.is_implicit() {
            self.set_metadata(upper.metadata());
        }
        if !has_whiteouts && upper.tree().is_some() && upper.tree() == self.tree() {
            return Ok(());
        }
        let Entries { files, directories } = upper.into_entries(objects)?;
        let lower = self.change(objects)?;
        if has_whiteouts {
            if files.contains_key(OPAQUE) || directories.contains_key(OPAQUE) {
                *lower = Entries::default();
            }
            // All whiteouts come first: they speak of the lower tree only, whatever their place in the upper one.
            for name in files.keys().chain(directories.keys()) {
                if let Some(lost) = removed_by(name) {
                    lower.files.remove(lost);
                    lower.directories.remove(lost);
                }
            }
        }
        for (name, object) in files {
            if has_whiteouts && is_whiteout(&name) {
                continue;
            }
            lower.directories.remove(&name);
            lower.files.insert(name, object);
        }
        for (name, mut directory) in directories {
            if has_whiteouts && is_whiteout(&name) {
                continue;
            }
            if let Some(below) = lower.directories.get_mut(&name) {
                below.apply(directory, has_whiteouts, objects)?;
                continue;
            }
            if has_whiteouts {
                directory.strip_whiteouts(objects)?;
            }
            lower.files.remove(&name);
            lower.directories.insert(name, directory);
        }
        Ok(())
    }

    /// Removes whiteouts from a directory that has nothing below it to remove.
    ///
    /// Directories without any stay as they are stored.
    pub fn strip_whiteouts(&mut self, objects: &dyn Objects) -> Result<()> {
        let entries = self.entries(objects)?;
        let any = entries
            .files
            .keys()
            .chain(entries.directories.keys())
            .any(|name| is_whiteout(name));
        for (name, directory) in &mut entries.directories {
            if !is_whiteout(name) {
                directory.strip_whiteouts(objects)?;
            }
        }
        if any {
            let entries = self.change(objects)?;
            entries.files.retain(|name, _| !is_whiteout(name));
            entries.directories.retain(|name, _| !is_whiteout(name));
        }
        Ok(())
    }
}

fn is_whiteout(name: &str) -> bool {
    name.starts_with(WHITEOUT_PREFIX)
}

fn removed_by(name: &str) -> Option<&str> {
    if name.starts_with(UNION_NOTE_PREFIX) {
        return None;
    }
    name.strip_prefix(WHITEOUT_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::super::{Checksum, MetadataKind};
    use super::*;
    use anyhow::Context;
    use std::cell::RefCell;
    use std::collections::HashMap;

    /// Objects in memory, with a count of what was read.
    #[derive(Default)]
    struct Memory {
        objects: RefCell<HashMap<Checksum, Vec<u8>>>,
        reads: RefCell<usize>,
    }

    impl Objects for Memory {
        fn read(&self, _kind: MetadataKind, checksum: &Checksum) -> Result<Vec<u8>> {
            *self.reads.borrow_mut() += 1;
            self.objects
                .borrow()
                .get(checksum)
                .cloned()
                .context("no such object")
        }

        fn write(&self, _kind: MetadataKind, bytes: &[u8]) -> Result<Checksum> {
            let checksum = Checksum::of(bytes);
            self.objects.borrow_mut().insert(checksum, bytes.to_vec());
            Ok(checksum)
        }
    }

    fn meta(text: &str) -> Checksum {
        Checksum::of(text.as_bytes())
    }

    /// Builds a tree from lines: `path` is a file holding its own path, `path/` a directory, `path/=m` one with
    /// metadata `m`, `path=m` a file of content `m`.
    fn tree(lines: &[&str]) -> Directory {
        let mut root = Directory::new(meta("root"));
        for line in lines {
            let (path, what) = line.split_once('=').unwrap_or((line, line));
            let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
            let mut at = &mut root;
            for name in folder.split('/').filter(|name| !name.is_empty()) {
                at = at
                    .change_loaded()
                    .unwrap()
                    .directories
                    .entry(name.into())
                    .or_insert_with(|| Directory::new(meta("directory")));
            }
            if !file.is_empty() {
                let object = Checksum::of(what.as_bytes());
                at.change_loaded().unwrap().files.insert(file.into(), object);
            } else if line.contains('=') {
                at.set_metadata(meta(what));
            }
        }
        root
    }

    fn merged(layers: &[&[&str]]) -> Checksum {
        let objects = Memory::default();
        let mut result = Directory::new(meta("root"));
        for layer in layers {
            // Through its stored form half of the time, as a cached layer comes.
            let mut layer = tree(layer);
            let stored = layer.store(&objects).unwrap();
            result
                .apply(Directory::stored(stored, meta("root")), true, &objects)
                .unwrap();
        }
        result.store(&objects).unwrap()
    }

    #[test]
    fn folding() {
        type Lines = &'static [&'static str];
        let cases: &[(&str, &[Lines], Lines)] = &[
            ("nothing", &[], &[]),
            ("union", &[&["a", "d/b"], &["d/c"]], &["a", "d/b", "d/c"]),
            ("upper file wins", &[&["a=1"], &["a=2"]], &["a=2"]),
            ("whiteout of a file", &[&["a", "b"], &[".wh.a"]], &["b"]),
            ("whiteout of a directory", &[&["d/e/f", "b"], &[".wh.d"]], &["b"]),
            (
                "whiteout and new file",
                &[&["d/x", "d/y"], &["d/.wh.x", "d/x=new"]],
                &["d/x=new", "d/y"],
            ),
            ("whiteout of nothing", &[&["a"], &[".wh.zzz"]], &["a"]),
            (
                "opaque",
                &[&["d/x", "d/e/y"], &["d/.wh..wh..opq", "d/z"]],
                &["d/z"],
            ),
            (
                "opaque in a new directory",
                &[&["a"], &["d/.wh..wh..opq", "d/z"]],
                &["a", "d/z"],
            ),
            (
                "whiteout in a new directory",
                &[&["a"], &["d/e/.wh.q", "d/e/z"]],
                &["a", "d/e/z"],
            ),
            ("directory by file", &[&["d/x"], &["d"]], &["d"]),
            ("file by directory", &[&["d"], &["d/x"]], &["d/x"]),
            ("and back", &[&["d/x"], &["d=f"], &["d/y"]], &["d/y"]),
            (
                "upper metadata wins",
                &[&["d/=1", "d/x"], &["d/=2"]],
                &["d/=2", "d/x"],
            ),
            (
                "old union notes",
                &[&["a"], &[".wh..wh.plnk", ".wh..wh.aufs"]],
                &["a"],
            ),
            (
                "whiteout does not hit its own layer",
                &[&["a"], &[".wh.d", "d/x"]],
                &["a", "d/x"],
            ),
        ];
        for (name, layers, expected) in cases {
            let objects = Memory::default();
            assert_eq!(merged(layers), tree(expected).store(&objects).unwrap(), "{name}");
        }
    }

    #[test]
    fn undeclared_directory_keeps_the_lower_metadata() {
        let objects = Memory::default();
        let mut lower = tree(&["d/=lower"]);
        let mut upper = tree(&["d/x"]);
        upper
            .change_loaded()
            .unwrap()
            .directories
            .get_mut("d")
            .unwrap()
            .set_implicit();
        lower.apply(upper, false, &objects).unwrap();
        let mut expected = tree(&["d/=lower", "d/x"]);
        assert_eq!(lower.store(&objects).unwrap(), expected.store(&objects).unwrap());
    }

    #[test]
    fn small_change_reads_little() {
        let objects = Memory::default();
        let names: Vec<String> = (0..50).map(|index| format!("d{index}/e/f")).collect();
        let mut lower = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let stored = lower.store(&objects).unwrap();
        let mut lower = Directory::stored(stored, meta("root"));
        let upper = tree(&["d7/e/new"]);
        lower.apply(upper, false, &objects).unwrap();
        lower.store(&objects).unwrap();
        assert_eq!(*objects.reads.borrow(), 3);
    }
}
