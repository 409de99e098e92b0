//! The repositories of a tree: `sources.list` and `sources.list.d`, rewritten for an apt that runs outside of it.
//!
//! Both formats become deb822 with one paragraph for each source. Paths in `Signed-By` become copies of the key
//! files, because apt reads them from the running system. Only binary packages are asked for. What makes apt accept
//! a repository without a valid signature is left out, and so are ways to fetch that start programs
//! (`ssh:`, `rsh:`), read a medium (`cdrom:`), or that this program does not know. `file:` and `copy:`
//! mean folders of the running system, as they do for apt.

use super::etc::{Content, Tree};
use anyhow::{Context, Result};
use deb822_fast::{Deb822, Paragraph};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Ways to fetch that a source may use.
const SCHEMES: &[&str] = &["http", "https", "mirror+http", "mirror+https", "file", "copy"];

/// Fields that switch off the check of signatures, in lower case.
const INSECURE: &[&str] = &[
    "allow-downgrade-to-insecure",
    "allow-insecure",
    "allow-weak",
    "trusted",
];

/// Files below `etc`, by path: content and mode.
pub(super) type Files = BTreeMap<String, Content>;

/// The rewritten repositories.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// `sources.list.d/...` and `keys/...`, to be written below apt's folder `etc`.
    pub(super) files: Files,
    /// Sentences about sources that are used in part or not at all.
    pub(super) warnings: Vec<String>,
    /// `(address, suite)` of each repository that is used.
    pub(super) repositories: Vec<(String, String)>,
}

impl Sources {
    /// Reads the sources of a tree; `etc` is the folder its keys will be in.
    ///
    /// Fails when a file cannot be read; what cannot be understood becomes a warning.
    pub(super) fn read(tree: &Tree<'_>, etc: &Path) -> Result<Self> {
        let mut sources = Self::default();
        let mut places = vec!["sources.list".to_owned()];
        for name in tree.etc.list("apt/sources.list.d")? {
            if name.ends_with(".list") || name.ends_with(".sources") {
                places.push(format!("sources.list.d/{name}"));
            }
        }
        for place in places {
            let Some(content) = tree.read(&format!("/etc/apt/{place}"))? else {
                continue;
            };
            let text = String::from_utf8_lossy(&content.bytes);
            let paragraphs = if place.ends_with(".sources") {
                sources.parse_deb822(&place, &text)
            } else {
                sources.parse_lines(&place, &text)
            };
            let mut written = String::new();
            for paragraph in paragraphs {
                if let Some(paragraph) = sources.rewrite(&place, paragraph, tree, etc)? {
                    written += &format!("{}\n", shown(&paragraph));
                }
            }
            let name = place.trim_start_matches("sources.list.d/");
            let name = name.trim_end_matches(".sources").replace('.', "_");
            sources.files.insert(
                format!("sources.list.d/{name}.sources"),
                Content {
                    bytes: written.into_bytes(),
                    mode: content.mode,
                },
            );
        }
        Ok(sources)
    }

    fn parse_deb822(&mut self, place: &str, text: &str) -> Vec<Paragraph> {
        match text.parse::<Deb822>() {
            Ok(parsed) => parsed.into_iter().collect(),
            Err(error) => {
                self.warnings
                    .push(format!("/etc/apt/{place} is not used: {error}."));
                Vec::new()
            }
        }
    }

    /// Parses the one-line format: `deb [option=value ...] address suite component...`.
    fn parse_lines(&mut self, place: &str, text: &str) -> Vec<Paragraph> {
        let mut paragraphs = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() || line.starts_with("deb-src") {
                continue;
            }
            match parse_line(line) {
                Some(paragraph) => paragraphs.push(paragraph),
                None => self.warnings.push(format!(
                    "Line {} of /etc/apt/{place} is not used: it is no source.",
                    number + 1
                )),
            }
        }
        paragraphs
    }

    /// Returns the paragraph as the apt outside may use it; nothing when it is switched off or has nothing to use.
    fn rewrite(
        &mut self,
        place: &str,
        paragraph: Paragraph,
        tree: &Tree<'_>,
        etc: &Path,
    ) -> Result<Option<Paragraph>> {
        let words = |name: &str| -> Vec<String> {
            let value = paragraph.get(name).unwrap_or_default();
            value.split_whitespace().map(str::to_owned).collect()
        };
        let off = paragraph.get("Enabled").is_some_and(is_no);
        if off || !words("Types").iter().any(|word| word == "deb") {
            return Ok(None);
        }
        let (uris, others): (Vec<_>, Vec<_>) = words("URIs").into_iter().partition(|uri| {
            let scheme = uri.split(':').next().unwrap_or_default();
            SCHEMES.contains(&scheme)
        });
        for uri in others {
            let uri = without_login(&uri);
            self.warnings.push(format!(
                "The source {uri} of /etc/apt/{place} is not used: there is: {}.",
                SCHEMES.join(", ")
            ));
        }
        if uris.is_empty() {
            return Ok(None);
        }
        for uri in &uris {
            for suite in words("Suites") {
                self.repositories.push((without_login(uri), suite));
            }
        }
        let mut written = Paragraph { fields: Vec::new() };
        written.insert("Types", "deb");
        written.insert("URIs", &uris.join(" "));
        for (key, text) in paragraph.iter() {
            let lower = key.to_ascii_lowercase();
            if ["types", "uris", "enabled"].contains(&lower.as_str()) {
                continue;
            }
            if INSECURE.contains(&lower.as_str()) {
                if !is_no(text) {
                    self.warnings.push(format!(
                        "`{key}` in /etc/apt/{place} does not count: only signed repositories are used."
                    ));
                }
                continue;
            }
            if lower == "signed-by" {
                let keys = self.copy_keys(place, text, tree, etc)?;
                written.insert(key, &keys);
                continue;
            }
            written.insert(key, text);
        }
        Ok(Some(written))
    }

    /// Copies the key files a `Signed-By` names; an inline key and fingerprints stay as they are.
    fn copy_keys(&mut self, place: &str, value: &str, tree: &Tree<'_>, etc: &Path) -> Result<String> {
        if value.contains("-----BEGIN") {
            return Ok(value.to_owned());
        }
        let mut words = Vec::new();
        for word in value
            .split([' ', ',', '\t', '\n'])
            .filter(|word| !word.is_empty())
        {
            if !word.starts_with('/') {
                words.push(word.to_owned());
                continue;
            }
            let content = tree
                .read(word)
                .with_context(|| format!("Reading a key of /etc/apt/{place}"))?;
            let Some(content) = content else {
                self.warnings.push(format!(
                    "/etc/apt/{place} names the key {word}, which does not exist."
                ));
                // A key that is missing must not turn into "any trusted key".
                words.push(etc.join("keys/missing.gpg").display().to_string());
                continue;
            };
            let name = key_name(&content.bytes);
            words.push(etc.join(&name).display().to_string());
            let mode = 0o644;
            self.files.insert(name, Content { mode, ..content });
        }
        Ok(words.join(" "))
    }
}

/// Returns the copy's place; apt tells the two forms of a key by the ending.
fn key_name(bytes: &[u8]) -> String {
    let ending = if bytes.starts_with(b"-----BEGIN") {
        "asc"
    } else {
        "gpg"
    };
    let digest = hex::encode(Sha256::digest(bytes));
    format!("keys/{}.{ending}", &digest[..16])
}

fn is_no(word: &str) -> bool {
    ["no", "false", "without", "off", "disable", "0"].contains(&word.trim().to_ascii_lowercase().as_str())
}

fn parse_line(line: &str) -> Option<Paragraph> {
    let rest = line.strip_prefix("deb")?;
    let rest = rest.starts_with([' ', '\t', '[']).then(|| rest.trim_start())?;
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    let components: Vec<&str> = words.collect();
    let mut paragraph = Paragraph { fields: Vec::new() };
    paragraph.insert("Types", "deb");
    paragraph.insert("URIs", uri);
    paragraph.insert("Suites", suite);
    if !components.is_empty() {
        paragraph.insert("Components", &components.join(" "));
    }
    for option in options.split_whitespace() {
        let (key, value) = option.split_once('=')?;
        let (key, change) = match (key.strip_suffix('+'), key.strip_suffix('-')) {
            (Some(key), _) => (key, "-Add"),
            (_, Some(key)) => (key, "-Remove"),
            _ => (key, ""),
        };
        let field = match key {
            "arch" => "Architectures",
            "lang" => "Languages",
            "target" => "Targets",
            key => key,
        };
        paragraph.insert(&format!("{field}{change}"), &value.replace(',', " "));
    }
    Some(paragraph)
}

/// Writes a paragraph with continuation lines as they must be.
fn shown(paragraph: &Paragraph) -> String {
    let mut text = String::new();
    for (key, value) in paragraph.iter() {
        let mut lines = value.lines();
        text += &format!("{key}: {}\n", lines.next().unwrap_or_default());
        for line in lines {
            let line = if line.trim().is_empty() { "." } else { line };
            text += &format!(" {}\n", line.strip_prefix(' ').unwrap_or(line));
        }
    }
    text
}

/// Returns an address without the user and password it may hold.
pub(super) fn without_login(uri: &str) -> String {
    match uri.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or_default();
            let clean = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{clean}{}", &rest[host.len()..])
        }
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::etc::EtcView;

    fn read(files: &[(&str, &str)]) -> (Sources, String) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let etc = EtcView::pristine(root.path().join("usr/etc"));
        let tree = Tree {
            root: root.path(),
            etc: &etc,
        };
        let sources = Sources::read(&tree, Path::new("/work/etc")).unwrap();
        let mut text = String::new();
        for (name, content) in &sources.files {
            text += &format!("[{name}]\n{}", String::from_utf8_lossy(&content.bytes));
        }
        (sources, text)
    }

    #[test]
    fn one_line_sources_become_paragraphs() {
        let (sources, text) = read(&[(
            "usr/etc/apt/sources.list",
            "# none\ndeb-src http://a/ s main\n\
             deb [arch=amd64,i386 signed-by=0123ABCD] http://user:secret@a/debian stable main contrib # why\n\
             deb http://b/flat ./\ndeb broken\nfoo bar baz\n",
        )]);
        assert_eq!(
            text,
            "[sources.list.d/sources_list.sources]\nTypes: deb\nURIs: http://user:secret@a/debian\n\
             Suites: stable\nComponents: main contrib\nArchitectures: amd64 i386\nsigned-by: 0123ABCD\n\n\
             Types: deb\nURIs: http://b/flat\nSuites: ./\n\n"
        );
        assert_eq!(sources.warnings.len(), 2, "{:?}", sources.warnings);
        assert_eq!(
            sources.repositories,
            [
                ("http://a/debian".to_owned(), "stable".to_owned()),
                ("http://b/flat".to_owned(), "./".to_owned())
            ]
        );
    }

    #[test]
    fn keys_are_copied_and_inline_keys_stay() {
        let (sources, text) = read(&[
            ("usr/share/keyrings/k.gpg", "binary"),
            ("usr/etc/apt/keyrings/k.gpg", "-----BEGIN armor"),
            (
                "usr/etc/apt/sources.list.d/a.sources",
                "Types: deb deb-src\nURIs: https://a\nSuites: s t\nComponents: main\n\
                 Signed-By: /usr/share/keyrings/k.gpg /etc/apt/keyrings/k.gpg\n\n\
                 Types: deb\nURIs: https://b\nSuites: s\nComponents: main\nSigned-By:\n -----BEGIN X\n .\n abc\n\n\
                 Types: deb\nURIs: https://c\nSuites: s\nEnabled: no\n\n\
                 Types: deb\nURIs: https://d\nSuites: s\nSigned-By: /nowhere.gpg\n",
            ),
        ]);
        assert!(text.contains("[keys/9a3a45d01531a20e.gpg]\nbinary"), "{text}");
        assert!(text.contains(".asc]\n-----BEGIN armor"), "{text}");
        assert!(
            text.contains("Signed-By: /work/etc/keys/9a3a45d01531a20e.gpg /work/etc/keys/"),
            "{text}"
        );
        assert!(text.contains("Signed-By: \n -----BEGIN X\n .\n abc\n"), "{text}");
        assert!(
            !text.contains("https://c") && text.contains("/work/etc/keys/missing.gpg"),
            "{text}"
        );
        assert_eq!(sources.repositories.len(), 4);
        assert_eq!(sources.warnings.len(), 1, "{:?}", sources.warnings);
    }

    #[test]
    fn nothing_that_weakens_or_runs_comes_through() {
        let (sources, text) = read(&[(
            "usr/etc/apt/sources.list",
            "deb [trusted=yes allow-insecure=yes] http://a s main\ndeb ssh://h/x s main\ndeb cdrom:[x]/ s main\n\
             deb [trusted=no] copy:/srv/x s main\n",
        )]);
        assert!(
            !text.to_lowercase().contains("trusted") && !text.contains("insecure"),
            "{text}"
        );
        assert!(
            !text.contains("ssh") && !text.contains("cdrom") && text.contains("copy:/srv/x"),
            "{text}"
        );
        assert_eq!(sources.warnings.len(), 4, "{:?}", sources.warnings);
    }
}
