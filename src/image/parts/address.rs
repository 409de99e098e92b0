//! Addresses of http and https: where a redirect leads, and whether it leaves the host.

use ureq::http::Uri;

/// Returns whether an address is one of https.
pub(super) fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// Returns the host of an address, the only part of it that is told to anybody.
pub(super) fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default()
}

/// Returns the port of an address, told or not.
pub(super) fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if is_https(uri) { 443 } else { 80 })
}

/// Returns the address that a redirect leads to: a whole one, or a path at the same host.
pub(super) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let text = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", base.authority()?)
    } else {
        location.to_owned()
    };
    let uri: Uri = text.parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    // A name and password in an address are nobody's but its author's.
    let plain = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    (known && plain).then_some(uri)
}

/// Returns whether what may be told to the one may be told to the other: the same scheme, host and port.
pub(super) fn same_origin(one: &Uri, other: &Uri) -> bool {
    one.scheme() == other.scheme() && one.host() == other.host() && port(one) == port(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_addresses_and_paths() {
        let base: Uri = "https://r.test:5000/v2/x".parse().unwrap();
        for (location, expected) in [
            ("https://s.test/b?sig=1", Some("https://s.test/b?sig=1")),
            ("//s.test/b", Some("https://s.test/b")),
            ("/b?c", Some("https://r.test:5000/b?c")),
            ("b", None),
            ("ftp://s.test/b", None),
            ("https://u:p@s.test/b", None),
            ("", None),
        ] {
            let found = resolve(&base, location).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |one: &str, other: &str| same_origin(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(origin("https://r.test/a", "https://r.test:443/b"));
        assert!(!origin("https://r.test/a", "http://r.test/a"));
        assert!(!origin("https://r.test/a", "https://r.test:444/a"));
        assert!(!origin("https://r.test/a", "https://a.r.test/a"));
    }
}
