//! apt's configuration files, read as data.
//!
//! apt runs commands that its configuration names (hooks, proxy detection, even the path of dpkg), so the files of
//! an image are never given to a program. They are parsed here, and only the keys of [`ALLOWED`] go on.

use std::iter::Peekable;
use std::str::Chars;

/// Keys that are taken over, in lower case; none names a program or weakens a check.
const ALLOWED: &[&str] = &[
    "acquire::forceipv4",
    "acquire::forceipv6",
    "acquire::http::dl-limit",
    "acquire::http::proxy",
    "acquire::http::timeout",
    "acquire::https::dl-limit",
    "acquire::https::proxy",
    "acquire::https::timeout",
    "acquire::retries",
    "apt::architectures",
    "apt::default-release",
    "apt::install-recommends",
    "apt::install-suggests",
];

/// Keys that have one more part for a host, `Acquire::http::Proxy::mirror.example`.
const BY_HOST: &[&str] = &["acquire::http::proxy::", "acquire::https::proxy::"];

/// One setting: the full key as written, and its value. A key that ends in `::` adds to a list.
pub(super) type Setting = (String, String);

/// Returns the settings of a file that are harmless, in their order.
///
/// What is not understood is passed over: a wrong line in a file of the image must not block the host.
pub(super) fn harmless(text: &str) -> Vec<Setting> {
    let mut settings = parse(text);
    settings.retain(|(key, value)| {
        let key = key.to_ascii_lowercase();
        let key = key.trim_end_matches("::");
        let known = ALLOWED.contains(&key) || BY_HOST.iter().any(|prefix| key.starts_with(prefix));
        let is_plain = |text: &str| !text.contains(['"', '\n', '\\']);
        known && is_plain(key) && is_plain(value)
    });
    settings
}

/// Returns every setting of a file: `key "value";`, `key { key "value"; "value of a list"; };`, with comments.
fn parse(text: &str) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut scopes: Vec<String> = Vec::new();
    let mut words: Vec<Word> = Vec::new();
    for word in Words(text.chars().peekable()) {
        let prefix = scopes.last().map_or(String::new(), |scope| format!("{scope}::"));
        match word {
            Word::Open => {
                let key = match words.drain(..).next() {
                    Some(Word::Bare(key) | Word::Quoted(key)) => key,
                    _ => String::new(),
                };
                scopes.push(format!("{prefix}{key}"));
            }
            Word::Close => {
                words.clear();
                scopes.pop();
            }
            Word::End => {
                match words.as_slice() {
                    [Word::Quoted(value)] => settings.push((prefix, value.clone())),
                    [Word::Bare(key), Word::Quoted(value) | Word::Bare(value)] => {
                        settings.push((format!("{prefix}{key}"), value.clone()));
                    }
                    _ => {}
                }
                words.clear();
            }
            word => words.push(word),
        }
    }
    settings
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Bare(String),
    Quoted(String),
    Open,
    Close,
    End,
}

struct Words<'a>(Peekable<Chars<'a>>);

impl Iterator for Words<'_> {
    type Item = Word;

    fn next(&mut self) -> Option<Word> {
        loop {
            match self.0.next()? {
                '{' => return Some(Word::Open),
                '}' => return Some(Word::Close),
                ';' => return Some(Word::End),
                '"' => return Some(Word::Quoted(self.0.by_ref().take_while(|c| *c != '"').collect())),
                // `#clear` and `#include` are lines of their own and not for us.
                '#' => self.skip_line(),
                '/' if self.0.peek() == Some(&'/') => self.skip_line(),
                '/' if self.0.peek() == Some(&'*') => {
                    let mut last = ' ';
                    for c in self.0.by_ref().skip(1) {
                        if (last, c) == ('*', '/') {
                            break;
                        }
                        last = c;
                    }
                }
                c if c.is_whitespace() => {}
                c => {
                    let mut word = String::from(c);
                    while let Some(c) = self.0.next_if(|c| !c.is_whitespace() && !"{};\"".contains(*c)) {
                        word.push(c);
                    }
                    return Some(Word::Bare(word));
                }
            }
        }
    }
}

impl Words<'_> {
    fn skip_line(&mut self) {
        self.0.by_ref().find(|c| *c == '\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_and_flat_settings_are_found_between_comments() {
        let text = r#"
            // a comment; with "quotes";
            # another
            #include "/etc/shadow";
            APT::Install-Recommends "true"; /* Acquire::Retries "9"; */
            Acquire { Retries "2"; http { Proxy "http://proxy:3128"; Proxy::host.example "DIRECT"; }; };
            APT { Architectures { "amd64"; "i386"; }; };
            APT::Architectures:: "arm64";
            apt::default-release trixie;
        "#;
        let found = harmless(text);
        let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            found,
            [
                ("APT::Install-Recommends", "true"),
                ("Acquire::Retries", "2"),
                ("Acquire::http::Proxy", "http://proxy:3128"),
                ("Acquire::http::Proxy::host.example", "DIRECT"),
                ("APT::Architectures::", "amd64"),
                ("APT::Architectures::", "i386"),
                ("APT::Architectures::", "arm64"),
                ("apt::default-release", "trixie"),
            ]
        );
    }

    #[test]
    fn nothing_that_runs_or_weakens_comes_through() {
        for text in [
            "APT::Update::Post-Invoke { \"id\"; };",
            "DPkg::Pre-Invoke:: \"id\";",
            "Dir::Bin::dpkg \"/tmp/evil\";",
            "Acquire::http::Proxy-Auto-Detect \"/tmp/evil\";",
            "APT::Get::AllowUnauthenticated \"true\";",
            "Acquire::AllowInsecureRepositories \"true\";",
            "Acquire::Check-Valid-Until \"false\";",
            "Acquire::https::Verify-Peer \"false\";",
            "APT::Default-Release \"a\\\"b\";",
            "{{{;;}}}} \"",
        ] {
            assert!(harmless(text).is_empty(), "{text}");
        }
    }
}
