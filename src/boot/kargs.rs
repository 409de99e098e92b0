//! Kernel arguments: an ordered list of words, and the changes `kargs` makes to it.
//!
//! Words are compared whole or by key as `rpm-ostree kargs` does. Every argument that enters is checked, because
//! GRUB reads boot entries as script: what it would interpret never reaches an entry.

use crate::boot::loader::grub_safe;
use crate::fault::{Fault, Kind};
use std::fmt;

/// An ordered list of kernel arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelArguments(Vec<String>);

/// One change to a list of kernel arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds the argument at the end.
    Append(String),
    /// Adds the argument at the end unless it is there, word for word.
    AppendIfMissing(String),
    /// Removes `KEY` (the only one of that key) or `KEY=VALUE`; fails when it is not there.
    Delete(String),
    /// Removes as [`Change::Delete`] does, and does nothing when it is not there.
    DeleteIfPresent(String),
    /// `KEY=VALUE` gives the only argument of that key a new value; `KEY=OLD=NEW` replaces that one value.
    Replace(String),
}

impl KernelArguments {
    /// Splits an options line at white space; double quotes keep white space inside a word, as the kernel reads it.
    pub fn parse(line: &str) -> Self {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '"' => {
                    quoted = !quoted;
                    word.push(c);
                }
                c if c.is_ascii_whitespace() && !quoted => {
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                }
                c => word.push(c),
            }
        }
        if !word.is_empty() {
            words.push(word);
        }
        Self(words)
    }

    /// Returns the list that a person left in an editor where these arguments stood; lines that begin with `#` do not
    /// count.
    ///
    /// Fails on a new argument that is malformed or unsafe, and when none is left.
    pub fn edited(&self, text: &str) -> Result<Self, Fault> {
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .collect();
        let edited = Self::parse(&lines.join(" "));
        if edited.0.is_empty() {
            return Err(Fault::new(Kind::Usage, "No kernel arguments are left"));
        }
        for word in edited.0.iter().filter(|word| !self.contains(word)) {
            checked(word)?;
        }
        Ok(edited)
    }

    /// Returns the words in their order.
    pub fn words(&self) -> &[String] {
        &self.0
    }

    /// Returns whether the word is in the list.
    pub fn contains(&self, word: &str) -> bool {
        self.0.iter().any(|known| known == word)
    }

    /// Adds a word that needs no check because it comes from an entry that already boots.
    pub fn push(&mut self, word: impl Into<String>) {
        self.0.push(word.into());
    }

    /// Removes each word equal to `word`.
    pub fn remove(&mut self, word: &str) {
        self.0.retain(|known| known != word);
    }

    /// Removes each argument of the key, whatever its value.
    pub fn remove_key(&mut self, key: &str) {
        self.0.retain(|known| key_of(known) != key);
    }

    /// Applies one change.
    ///
    /// Fails, with the list as it was, on a malformed or unsafe argument, on one that is not there, and on a key
    /// with several values where only one can be meant.
    pub fn apply(&mut self, change: &Change) -> Result<(), Fault> {
        match change {
            Change::Append(word) => self.0.push(checked(word)?),
            Change::AppendIfMissing(word) => {
                let word = checked(word)?;
                if !self.contains(&word) {
                    self.0.push(word);
                }
            }
            Change::Delete(word) => {
                let place = self.place(word)?.ok_or_else(|| missing(word))?;
                self.0.remove(place);
            }
            Change::DeleteIfPresent(word) => {
                if let Some(place) = self.place(word)? {
                    self.0.remove(place);
                }
            }
            Change::Replace(text) => self.replace(text)?,
        }
        Ok(())
    }

    fn replace(&mut self, text: &str) -> Result<(), Fault> {
        let mut parts = text.splitn(3, '=');
        let (key, value, new) = (parts.next().unwrap_or(""), parts.next(), parts.next());
        let Some(value) = value else {
            return Err(
                Fault::new(Kind::Usage, format!("`{text}` names no value to replace"))
                    .hint("write KEY=VALUE, or KEY=OLD=NEW where the key has several values"),
            );
        };
        // `KEY=OLD=NEW` only when KEY=OLD exists; otherwise the value itself holds an equals sign.
        let (place, word) = match new {
            Some(new) if self.contains(&format!("{key}={value}")) => {
                (self.place(&format!("{key}={value}"))?, format!("{key}={new}"))
            }
            _ => (self.place(key)?, text.to_owned()),
        };
        let place = place.ok_or_else(|| missing(key))?;
        self.0[place] = checked(&word)?;
        Ok(())
    }

    /// Returns where `KEY=VALUE` stands, or where the only argument of `KEY` stands.
    fn place(&self, word: &str) -> Result<Option<usize>, Fault> {
        if let Some(place) = self.0.iter().position(|known| known == word) {
            return Ok(Some(place));
        }
        if word.contains('=') {
            return Ok(None);
        }
        let places: Vec<usize> = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, known)| key_of(known) == word)
            .map(|(place, _)| place)
            .collect();
        match places.as_slice() {
            [] => Ok(None),
            [place] => Ok(Some(*place)),
            _ => {
                let values: Vec<&str> = places.iter().map(|place| self.0[*place].as_str()).collect();
                Err(Fault::new(
                    Kind::Usage,
                    format!(
                        "The kernel argument `{word}` has several values: {}",
                        values.join(", ")
                    ),
                )
                .hint("name the one you mean as KEY=VALUE"))
            }
        }
    }
}

impl fmt::Display for KernelArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// Checks one argument that is to enter a boot entry, and returns it.
///
/// Fails on an empty word, on white space outside of double quotes, on control characters, on `ostree=` (libostree
/// writes that one itself) and on what GRUB would read as script.
pub fn checked(word: &str) -> Result<String, Fault> {
    let refuse = |reason: String| {
        Err(Fault::new(
            Kind::Usage,
            format!("The kernel argument `{word}` is refused: {reason}"),
        ))
    };
    if word.is_empty() || key_of(word).is_empty() {
        return refuse("it has no name".to_owned());
    }
    if word.chars().any(|c| c.is_control()) {
        return refuse("it holds a control character".to_owned());
    }
    if key_of(word) == "ostree" {
        return refuse("`ostree=` names the deployment and is written by libostree".to_owned());
    }
    if let Err(c) = grub_safe(word) {
        return refuse(format!("GRUB would read the character `{c}` as script"));
    }
    if word.contains(char::is_whitespace) {
        return refuse("it holds white space, which would make it several arguments".to_owned());
    }
    Ok(word.to_owned())
}

fn key_of(word: &str) -> &str {
    word.split_once('=').map_or(word, |(key, _)| key)
}

fn missing(word: &str) -> Fault {
    Fault::new(Kind::NotFound, format!("The kernel argument `{word}` is not set"))
        .hint("see what is set with `apt-ostree kargs`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(line: &str, changes: &[Change]) -> Result<String, Fault> {
        let mut list = KernelArguments::parse(line);
        for change in changes {
            list.apply(change)?;
        }
        Ok(list.to_string())
    }

    #[test]
    fn changes() {
        use Change::*;
        let own = str::to_owned;
        for (line, change, expected) in [
            ("a b", Append(own("c=1")), Some("a b c=1")),
            ("a=1", Append(own("a=1")), Some("a=1 a=1")),
            ("a=1", AppendIfMissing(own("a=1")), Some("a=1")),
            ("a=1", AppendIfMissing(own("a=2")), Some("a=1 a=2")),
            ("a=1 b", Delete(own("a")), Some("b")),
            ("a=1 a=2", Delete(own("a=2")), Some("a=1")),
            ("a=1 a=2", Delete(own("a")), None),
            ("a", Delete(own("b")), None),
            ("a", DeleteIfPresent(own("b")), Some("a")),
            ("a=1 b", Replace(own("a=2")), Some("a=2 b")),
            ("a=1 a=2", Replace(own("a=2=3")), Some("a=1 a=3")),
            ("root=LABEL=x", Replace(own("root=UUID=y")), Some("root=UUID=y")),
            ("a=1", Replace(own("b=2")), None),
            ("a", Replace(own("a")), None),
        ] {
            assert_eq!(
                after(line, std::slice::from_ref(&change)).ok().as_deref(),
                expected,
                "{line} {change:?}"
            );
        }
    }

    #[test]
    fn what_an_editor_left() {
        let list = KernelArguments::parse("ro dyndbg=\"file a +p\" quiet");
        let edited = |text: &str| list.edited(text).map(|list| list.to_string());
        assert_eq!(
            edited("# one\n quiet splash\n  # two\ndyndbg=\"file a +p\"\n").unwrap(),
            "quiet splash dyndbg=\"file a +p\""
        );
        for text in ["", "# only words\n", "ro $(id)", "ro ostree=/x", "ro a=\"b c\""] {
            assert!(edited(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quotes_hold_a_word_together() {
        let list = KernelArguments::parse("quiet  dyndbg=\"file a +p\"\tro\n");
        assert_eq!(list.words(), ["quiet", "dyndbg=\"file a +p\"", "ro"]);
    }

    #[test]
    fn what_would_not_arrive_unchanged_is_refused() {
        for word in [
            "",
            "=x",
            "a b",
            "a\nb",
            "ostree=/x",
            "a=$(x)",
            "a;b",
            "a='b",
            "a=\"b\"",
            "a{b",
            "a\\b",
            "a|b",
        ] {
            assert!(checked(word).is_err(), "{word:?}");
        }
        for word in [
            "a",
            "root=UUID=1-2",
            "a=b,c:d",
            "systemd.mask=x@y.service",
            "console=ttyS0,115200n8",
        ] {
            assert!(checked(word).is_ok(), "{word:?}");
        }
    }
}
