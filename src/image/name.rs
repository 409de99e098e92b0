//! The name of an image in a registry: `[host[:port]/]path[:tag][@digest]`.
//!
//! The grammar is that of the container tools, checked here so that a mistyped name is refused with its reason
//! before any program is started.

use crate::fault::{Fault, Kind};
use std::fmt;

/// A checked registry name, split into its parts as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryName {
    /// Host and path without tag and digest, as written.
    pub repository: String,
    /// The tag, without its colon.
    pub tag: Option<String>,
    /// The digest with its algorithm, for example `sha256:...`.
    pub digest: Option<String>,
}

impl RegistryName {
    /// Splits and checks `text`; the error says which part is wrong and why.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |reason: String| Fault::new(Kind::Usage, format!("The image name `{text}` {reason}"));
        if text.is_empty() {
            return Err(Fault::new(Kind::Usage, "The image name is empty"));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(wrong("contains a space".to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if let Some(digest) = digest {
            check_digest(digest).map_err(|reason| wrong(format!("ends with `@{digest}`, {reason}")))?;
        }
        // A colon before the last slash belongs to the host's port.
        let path_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match rest[path_start..].split_once(':') {
            Some((last, tag)) => (&rest[..path_start + last.len()], Some(tag)),
            None => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag).map_err(|reason| wrong(format!("has the tag `{tag}`, which {reason}")))?;
        }
        let (host, path) = split_host(repository);
        if let Some(host) = host {
            check_host(host)
                .map_err(|reason| wrong(format!("names the registry `{host}`, which {reason}")))?;
        }
        for component in path.split('/') {
            check_component(component).map_err(|reason| wrong(reason.to_owned()))?;
        }
        Ok(Self {
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// Returns the repository with the parts that the container tools add: `debian` is
    /// `docker.io/library/debian`.
    pub fn full_repository(&self) -> String {
        match split_host(&self.repository) {
            (Some("index.docker.io" | "docker.io"), path) if !path.contains('/') => {
                format!("docker.io/library/{path}")
            }
            (Some("index.docker.io"), path) => format!("docker.io/{path}"),
            (Some(_), _) => self.repository.clone(),
            (None, path) if path.contains('/') => format!("docker.io/{path}"),
            (None, path) => format!("docker.io/library/{path}"),
        }
    }

    /// Returns the registry's host and port as the container tools see it.
    pub fn host(&self) -> String {
        let full = self.full_repository();
        full.split('/').next().unwrap_or_default().to_owned()
    }
}

impl fmt::Display for RegistryName {
    /// Writes the canonical form: a digest makes the tag meaningless, so the tag is left out beside one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

/// Splits off the host by the rule of the container tools: the first component is one when it has a dot, a
/// colon or upper case, or is `localhost`.
fn split_host(repository: &str) -> (Option<&str>, &str) {
    match repository.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '[']) || first == "localhost" || first.to_lowercase() != first =>
        {
            (Some(first), rest)
        }
        _ => (None, repository),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (address, behind) = rest.split_once(']').ok_or("has no closing bracket")?;
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("is not an IPv6 address");
        }
        match behind.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if behind.is_empty() => (None, None),
            None => return Err("has something behind its closing bracket"),
        }
    } else {
        match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        }
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("has no valid port");
    }
    let label_is_fine = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    if name.is_some_and(|name| !name.split('.').all(label_is_fine)) {
        return Err("is not a host name");
    }
    Ok(())
}

fn check_component(component: &str) -> Result<(), &'static str> {
    let bytes = component.as_bytes();
    if bytes.is_empty() {
        return Err("has an empty part between slashes");
    }
    if component.chars().any(char::is_uppercase) {
        return Err("contains upper case letters; image names are lower case");
    }
    if !bytes
        .iter()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
    {
        return Err("contains a character other than a-z, 0-9, `.`, `_` and `-`");
    }
    let separator = |b: &u8| b"._-".contains(b);
    if bytes.first().is_some_and(separator) || bytes.last().is_some_and(separator) {
        return Err("has a part that begins or ends with `.`, `_` or `-`");
    }
    // Between letters: one dot, one or two underscores, or any number of dashes.
    for run in component
        .split(|c: char| c.is_ascii_alphanumeric())
        .filter(|run| !run.is_empty())
    {
        if !(run == "." || run == "_" || run == "__" || run.bytes().all(|b| b == b'-')) {
            return Err("has doubled separators");
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    if tag.is_empty() {
        return Err("is empty");
    }
    if tag.len() > 128 {
        return Err("is longer than 128 characters");
    }
    if tag.starts_with(['.', '-']) {
        return Err("begins with `.` or `-`");
    }
    if !tag
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    {
        return Err("contains a character other than letters, digits, `.`, `_` and `-`");
    }
    Ok(())
}

/// Checks a digest such as `sha256:...`; the error is the reason, to be put behind the digest and a comma.
pub(crate) fn check_digest(digest: &str) -> Result<(), &'static str> {
    let length = match digest.split_once(':') {
        Some(("sha256", _)) => 64,
        Some(("sha384", _)) => 96,
        Some(("sha512", _)) => 128,
        _ => return Err("which is not a digest of the form sha256:..."),
    };
    let hex = &digest[7..];
    if hex.len() != length
        || !hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return Err("which has not the length or the digits of such a digest");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn parts_are_found() {
        let digested = format!("registry.example:5000/os/debian:13@{DIGEST}");
        for (text, repository, tag, digest, full) in [
            ("debian", "debian", None, None, "docker.io/library/debian"),
            (
                "debian:13",
                "debian",
                Some("13"),
                None,
                "docker.io/library/debian",
            ),
            (
                "os/debian:13",
                "os/debian",
                Some("13"),
                None,
                "docker.io/os/debian",
            ),
            (
                "docker.io/debian",
                "docker.io/debian",
                None,
                None,
                "docker.io/library/debian",
            ),
            ("localhost/os", "localhost/os", None, None, "localhost/os"),
            ("LOCAL/os", "LOCAL/os", None, None, "LOCAL/os"),
            (
                "127.0.0.1:5000/os:a_b",
                "127.0.0.1:5000/os",
                Some("a_b"),
                None,
                "127.0.0.1:5000/os",
            ),
            (
                "[::1]:5000/os:1",
                "[::1]:5000/os",
                Some("1"),
                None,
                "[::1]:5000/os",
            ),
            (
                digested.as_str(),
                "registry.example:5000/os/debian",
                Some("13"),
                Some(DIGEST),
                "registry.example:5000/os/debian",
            ),
        ] {
            let name = RegistryName::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!(name.repository, repository, "{text}");
            assert_eq!(name.tag.as_deref(), tag, "{text}");
            assert_eq!(name.digest.as_deref(), digest, "{text}");
            assert_eq!(name.full_repository(), full, "{text}");
        }
    }

    #[test]
    fn a_digest_drops_the_tag() {
        let name = RegistryName::parse(&format!("r.example/os:13@{DIGEST}")).unwrap();
        assert_eq!(name.to_string(), format!("r.example/os@{DIGEST}"));
    }

    #[test]
    fn wrong_names_say_why() {
        for (text, reason) in [
            ("", "empty"),
            ("r.example/my os", "space"),
            ("r.example/Debian", "upper case"),
            ("r.example/os:", "tag"),
            ("r.example/os:-a", "begins"),
            ("r.example/os:a/b", "character"),
            ("r.example//os", "empty part"),
            ("r.example/os/", "empty part"),
            ("r.example/os@sha256:12", "length"),
            ("r.example/os@md5:12", "not a digest"),
            ("r.example:port/os", "port"),
            ("r.example:99999/os", "port"),
            ("-r.example/os", "host name"),
            ("r.example/a..b", "doubled"),
            ("r.example/_a", "begins"),
            ("r.example/é", "character"),
        ] {
            let fault = RegistryName::parse(text).expect_err(text);
            assert_eq!(fault.kind, Kind::Usage);
            assert!(fault.message.contains(reason), "{text}: {fault}");
        }
    }
}
