//! Where an entry of a layer goes in an OSTree tree, and which entries are refused.

use crate::fault::{Fault, Kind};
use crate::tree::WHITEOUT_PREFIX;

/// Directories of the root that exist in the tree and stay empty: the running system fills them.
const EMPTY: &[&str] = &["run", "tmp", "proc", "sys", "dev"];

/// The longest path the kernel takes.
const PATH_MAX: usize = 4096;
/// The longest name the kernel takes.
const NAME_MAX: usize = 255;

/// The place of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The root directory itself.
    Root,
    /// A path in the tree, names separated by `/`.
    Path(String),
    /// Below a directory that stays empty.
    Dropped,
}

/// Why an entry was refused; [`Refusal::in_layer`] makes it a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    kind: Kind,
    path: String,
    reason: String,
}

impl Refusal {
    /// Returns a refusal because the entry breaks the rules of layers.
    pub(super) fn invalid(path: &[u8], reason: impl Into<String>) -> Self {
        Self {
            kind: Kind::Invalid,
            path: String::from_utf8_lossy(path).into_owned(),
            reason: reason.into(),
        }
    }

    /// Returns a refusal because an OSTree tree cannot hold the entry.
    pub(super) fn unsupported(path: &[u8], reason: impl Into<String>) -> Self {
        Self {
            kind: Kind::Unsupported,
            ..Self::invalid(path, reason)
        }
    }

    /// Returns the fault that names the layer, the path and the reason.
    pub(super) fn in_layer(self, digest: &str) -> Fault {
        Fault::new(
            self.kind,
            format!("Layer {digest} holds `{}`, {}", self.path, self.reason),
        )
        .hint("nothing was imported; the image has to be built without that entry")
    }
}

/// Returns where the path of an entry, or of a hard link's target, lies in the tree.
///
/// Fails when the path leaves the root, is not UTF-8, or no file system could hold it.
pub(super) fn place(path: &[u8]) -> Result<Place, Refusal> {
    let text = std::str::from_utf8(path).map_err(|_| Refusal::invalid(path, "whose name is not UTF-8"))?;
    if text.len() > PATH_MAX {
        return Err(Refusal::invalid(
            &path[..200],
            "whose path is longer than 4096 bytes",
        ));
    }
    if text.contains('\0') {
        return Err(Refusal::invalid(path, "whose name holds a zero byte"));
    }
    let mut names = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => return Err(Refusal::invalid(path, "which leads out of the image by `..`")),
            name if name.len() > NAME_MAX => {
                return Err(Refusal::invalid(path, "with a name longer than 255 bytes"));
            }
            name => names.push(name),
        }
    }
    let Some(first) = names.first() else {
        return Ok(Place::Root);
    };
    if names.len() > 1 && EMPTY.contains(first) {
        return Ok(Place::Dropped);
    }
    for name in &names {
        if matches!(name.strip_prefix(WHITEOUT_PREFIX), Some("" | "." | "..")) {
            return Err(Refusal::invalid(path, "a whiteout that names nothing"));
        }
    }
    let moved = match *first {
        "etc" => Some("usr/etc"),
        ".wh.etc" if names.len() == 1 => Some("usr/.wh.etc"),
        _ => None,
    };
    Ok(Place::Path(match moved {
        Some(moved) => std::iter::once(moved)
            .chain(names[1..].iter().copied())
            .collect::<Vec<_>>()
            .join("/"),
        None => names.join("/"),
    }))
}

/// Returns whether a path as written is `folder` or something in it; a whiteout removes and is nothing.
pub(super) fn is_below(path: &[u8], folder: &[&str]) -> bool {
    let mut names = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".");
    if !folder
        .iter()
        .all(|wanted| names.next() == Some(wanted.as_bytes()))
    {
        return false;
    }
    !names
        .next()
        .is_some_and(|name| name.starts_with(WHITEOUT_PREFIX.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Place {
        Place::Path(text.to_owned())
    }

    #[test]
    fn places() {
        for (written, expected) in [
            ("./", Place::Root),
            ("/", Place::Root),
            ("", Place::Root),
            ("./a//b/./c/", path("a/b/c")),
            ("/a", path("a")),
            ("etc", path("usr/etc")),
            ("./etc/passwd", path("usr/etc/passwd")),
            ("etc/.wh.shadow", path("usr/etc/.wh.shadow")),
            (".wh.etc", path("usr/.wh.etc")),
            ("etcetera", path("etcetera")),
            ("usr/etc/x", path("usr/etc/x")),
            ("var/etc/x", path("var/etc/x")),
            ("tmp", path("tmp")),
            ("tmp/x", Place::Dropped),
            ("/dev/null", Place::Dropped),
            ("run/../x", Place::Dropped),
            ("a..b/...", path("a..b/...")),
        ] {
            match place(written.as_bytes()) {
                Ok(found) => assert_eq!(found, expected, "{written}"),
                Err(refusal) => assert_eq!(written, "run/../x", "{refusal:?}"),
            }
        }
    }

    #[test]
    fn refused() {
        let long = "n".repeat(256);
        for wrong in [
            b"../x".as_slice(),
            b"a/../../x",
            b"/..",
            b"a/\xff\xfe",
            b"a\0b",
            b"a/.wh.",
            b".wh...",
            long.as_bytes(),
            "a/".repeat(3000).as_bytes(),
        ] {
            assert!(place(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn below() {
        assert!(is_below(b"./usr/etc/x", &["usr", "etc"]));
        assert!(is_below(b"usr/etc/", &["usr", "etc"]));
        assert!(!is_below(b"usr/etcx", &["usr", "etc"]));
        assert!(!is_below(b"usr", &["usr", "etc"]));
        assert!(!is_below(b"usr/etc/.wh.x", &["usr", "etc"]));
        assert!(is_below(b"etc/x", &["etc"]));
    }
}
