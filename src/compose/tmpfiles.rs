//! systemd's tmpfiles.d: reading what packages ship, writing lines that recreate `/var`.

use super::rootfs;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file that `container prepare` writes; its name sorts first, because the first line for a path wins.
pub(crate) const GENERATED: &str = "usr/lib/tmpfiles.d/00-apt-ostree-image.conf";

/// One line of tmpfiles.d, as far as it matters which path is made in what way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// First letter of the type: `d`, `L`, `C`, `f` and so on.
    pub(crate) letter: char,
    /// Modifiers behind the letter, for example `+` or `!`.
    pub(crate) modifiers: String,
    /// What the line is about, relative to the root.
    pub(crate) path: PathBuf,
    /// Last field, empty where the line has none.
    pub(crate) argument: String,
}

impl Line {
    /// Tells whether the line makes its path on a host where the path is missing.
    pub(crate) fn creates(&self) -> bool {
        "fFdDvqQpLcbC".contains(self.letter)
    }

    /// Tells whether the line makes a directory.
    pub(crate) fn makes_directory(&self) -> bool {
        "dDvqQ".contains(self.letter)
    }
}

/// Returns the line that `text` holds, or nothing for a comment and for paths that only systemd can expand.
pub(crate) fn parse(text: &str) -> Option<Line> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let mut rest = text;
    let mut fields = Vec::new();
    for _ in 0..6 {
        let (word, after) = next_word(rest)?;
        fields.push(word);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let mut letters = fields.first()?.chars();
    let letter = letters.next()?;
    let path = fields.get(1)?.replace("%%", "\u{0}");
    if path.contains('%') || !path.starts_with('/') {
        return None;
    }
    let path = path.replace('\u{0}', "%");
    Some(Line {
        letter,
        modifiers: letters.collect(),
        path: PathBuf::from(path.trim_matches('/')),
        argument: if rest == "-" {
            String::new()
        } else {
            rest.replace("%%", "%")
        },
    })
}

/// Splits off one word, with quotes and C escapes undone; the rest starts at the next word.
fn next_word(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let mut word = Vec::new();
    let mut quote = None;
    let mut bytes = text.bytes().enumerate();
    let mut end = text.len();
    while let Some((at, byte)) = bytes.next() {
        match (byte, quote) {
            (b'\\', _) => match bytes.next()?.1 {
                b'x' => {
                    let digits = [bytes.next()?.1, bytes.next()?.1];
                    word.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                }
                b't' => word.push(b'\t'),
                b'n' => word.push(b'\n'),
                other => word.push(other),
            },
            (b'"' | b'\'', None) => quote = Some(byte),
            (_, Some(open)) if open == byte => quote = None,
            (b' ' | b'\t', None) => {
                end = at;
                break;
            }
            _ => word.push(byte),
        }
    }
    (!word.is_empty()).then(|| {
        (
            String::from_utf8_lossy(&word).into_owned(),
            text[end..].trim_start(),
        )
    })
}

/// Returns `path` (relative to the root) as a field: quoted where systemd would split or unquote it.
///
/// No `\xNN`: systemd 252 of Debian 12 drops the backslash and keeps the rest.
pub(crate) fn escape(path: &str) -> String {
    let path = path.replace('%', "%%");
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:=@~%".contains(c);
    if path.chars().all(plain) {
        return format!("/{path}");
    }
    format!("\"/{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Returns the line of every path that the root's tmpfiles.d makes; the first file in byte order wins.
///
/// With `generated` false the file that `container prepare` wrote does not count.
pub(crate) fn load(root: &Dir, generated: bool) -> Result<BTreeMap<PathBuf, Line>> {
    let mut files = BTreeMap::new();
    for folder in ["usr/lib/tmpfiles.d", "etc/tmpfiles.d"] {
        for name in rootfs::names(root, folder)? {
            let path = Path::new(folder).join(&name);
            // A file in /etc replaces the one of the same name.
            if path.extension().is_some_and(|extension| extension == "conf") {
                files.insert(name, path);
            }
        }
    }
    let mut lines = BTreeMap::new();
    for path in files.into_values() {
        if !generated && path == Path::new(GENERATED) {
            continue;
        }
        let text = rootfs::read_text(root, &path)?.unwrap_or_default();
        for line in text.lines().filter_map(parse).filter(Line::creates) {
            lines.entry(line.path.clone()).or_insert(line);
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_systemd_reads_them() {
        let table = [
            ("d /var/lib/x 0755 root root -", Some(('d', "var/lib/x", ""))),
            (
                "L+ /etc/mtab - - - - ../proc/self/mounts",
                Some(('L', "etc/mtab", "../proc/self/mounts")),
            ),
            ("L /var/run - - - - ../run", Some(('L', "var/run", "../run"))),
            ("d \"/var/a b\" - - -", Some(('d', "var/a b", ""))),
            ("d /var/a\\x20b", Some(('d', "var/a b", ""))),
            ("C /var/50%%", Some(('C', "var/50%", ""))),
            ("d /run/user/%U", None),
            ("# d /var/x", None),
            ("", None),
        ];
        for (text, expected) in table {
            let found = parse(text);
            let found = found
                .as_ref()
                .map(|line| (line.letter, line.path.to_str().unwrap(), line.argument.as_str()));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn escaped_paths_come_back() {
        for path in [
            "var/lib/a b",
            "var/50%",
            "var/q\"uote'",
            "var/back\\slash",
            "var/tab\there",
            "var/ü",
        ] {
            let line = parse(&format!("d {} 0755 root root -", escape(path))).unwrap();
            assert_eq!(line.path, Path::new(path));
        }
    }
}
