//! Which proxy a request goes through: the variables `http_proxy`, `https_proxy` and `no_proxy` as skopeo reads them.

use crate::host::surroundings::Surroundings;
use std::net::IpAddr;
use ureq::Proxy;

/// The proxies for both schemes and the hosts that are reached without one.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// What a request goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing.
    Direct,
    /// The proxy for http.
    HttpProxy,
    /// The proxy for https.
    HttpsProxy,
}

#[derive(Debug)]
enum Exception {
    Everything,
    Network(IpAddr, u8),
    Address(IpAddr, Option<u16>),
    /// A domain with its leading dot, whether it counts itself, and the port.
    Domain(String, bool, Option<u16>),
}

impl Proxies {
    /// Reads the variables.
    ///
    /// Fails, without repeating its value, which may hold a password, for a proxy of another kind than http and https.
    pub(super) fn of(surroundings: &Surroundings) -> Result<Self, &'static str> {
        let exceptions = either(surroundings, "NO_PROXY", "no_proxy").unwrap_or_default();
        Ok(Self {
            http: proxy(either(surroundings, "HTTP_PROXY", "http_proxy"))?,
            https: proxy(either(surroundings, "HTTPS_PROXY", "https_proxy"))?,
            exceptions: exceptions.split(',').filter_map(Exception::parse).collect(),
        })
    }

    /// Returns what a request to this host, without brackets, goes through.
    pub(super) fn way(&self, is_https: bool, host: &str, port: u16) -> Way {
        let proxied = match is_https {
            true => self.https.is_some(),
            false => self.http.is_some(),
        };
        if !proxied || self.is_exception(host, port) {
            return Way::Direct;
        }
        match is_https {
            true => Way::HttpsProxy,
            false => Way::HttpProxy,
        }
    }

    /// Returns the proxy of a way.
    pub(super) fn proxy(&self, way: Way) -> Option<Proxy> {
        match way {
            Way::Direct => None,
            Way::HttpProxy => self.http.clone(),
            Way::HttpsProxy => self.https.clone(),
        }
    }

    fn is_exception(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let port_fits = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        self.exceptions.iter().any(|exception| match exception {
            Exception::Everything => true,
            Exception::Network(network, bits) => {
                address.is_some_and(|address| within(address, *network, *bits))
            }
            Exception::Address(wanted, wanted_port) => address == Some(*wanted) && port_fits(wanted_port),
            Exception::Domain(domain, itself, wanted_port) => {
                let fits = host.ends_with(domain) || (*itself && Some(host.as_str()) == domain.get(1..));
                fits && port_fits(wanted_port)
            }
        })
    }
}

impl Exception {
    fn parse(word: &str) -> Option<Self> {
        let word = word.trim().to_ascii_lowercase();
        if word.is_empty() {
            return None;
        }
        if word == "*" {
            return Some(Self::Everything);
        }
        if let Some((network, bits)) = word.split_once('/') {
            return Some(Self::Network(network.parse().ok()?, bits.parse().ok()?));
        }
        if let Ok(address) = word.parse::<std::net::SocketAddr>() {
            return Some(Self::Address(address.ip(), Some(address.port())));
        }
        if let Ok(address) = word.trim_start_matches('[').trim_end_matches(']').parse() {
            return Some(Self::Address(address, None));
        }
        let (domain, port) = match word.split_once(':') {
            Some((domain, port)) => (domain, Some(port.parse().ok()?)),
            None => (word.as_str(), None),
        };
        let domain = domain.strip_prefix('*').unwrap_or(domain);
        Some(match domain.starts_with('.') {
            true => Self::Domain(domain.to_owned(), false, port),
            false => Self::Domain(format!(".{domain}"), true, port),
        })
    }
}

fn either(surroundings: &Surroundings, upper: &str, lower: &str) -> Option<String> {
    let value = surroundings.path(upper).or_else(|| surroundings.path(lower))?;
    Some(value.to_string_lossy().into_owned())
}

fn proxy(value: Option<String>) -> Result<Option<Proxy>, &'static str> {
    let Some(value) = value else { return Ok(None) };
    let address = match value.contains("://") {
        true => value,
        false => format!("http://{value}"),
    };
    if !address.starts_with("http://") && !address.starts_with("https://") {
        return Err("the proxy that is set is of another kind than http and https");
    }
    match Proxy::new(&address) {
        Ok(proxy) => Ok(Some(proxy)),
        Err(_) => Err("the proxy that is set is no valid address"),
    }
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(u32::from(address)), u128::from(u32::from(network)), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (u128::from(address), u128::from(network), 128),
        _ => return false,
    };
    let Some(rest) = u32::checked_sub(width, u32::from(bits)) else {
        return false;
    };
    address.checked_shr(rest).unwrap_or(0) == network.checked_shr(rest).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(no_proxy: &str) -> Proxies {
        let surroundings = Surroundings::below_home("/nowhere")
            .with("https_proxy", "proxy.test:3128")
            .with("NO_PROXY", no_proxy);
        Proxies::of(&surroundings).unwrap()
    }

    #[test]
    fn each_scheme_has_its_proxy_and_loopback_none() {
        let proxies = proxies("");
        assert_eq!(proxies.way(true, "r.example", 443), Way::HttpsProxy);
        assert_eq!(proxies.way(false, "r.example", 80), Way::Direct);
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "::1"] {
            assert_eq!(proxies.way(true, host, 443), Way::Direct, "{host}");
        }
    }

    #[test]
    fn exceptions_are_those_of_go() {
        for (list, host, port, excepted) in [
            ("*", "r.example", 443, true),
            ("r.example", "r.example", 443, true),
            ("r.example", "a.r.example", 443, true),
            ("r.example", "ar.example", 443, false),
            (".r.example", "r.example", 443, false),
            ("*.r.example", "a.R.example", 443, true),
            ("r.example:5000", "r.example", 443, false),
            ("a.test, r.example:5000", "r.example", 5000, true),
            ("10.0.0.0/8", "10.1.2.3", 443, true),
            ("10.0.0.0/8", "11.1.2.3", 443, false),
            ("0.0.0.0/0", "11.1.2.3", 443, true),
            ("::/0", "2001:db8::1", 443, true),
            ("fd00::/8", "fd12::1", 443, true),
            ("192.0.2.1", "192.0.2.1", 443, true),
            ("192.0.2.1:80", "192.0.2.1", 443, false),
            ("10.0.0.0/40", "10.0.0.1", 443, false),
        ] {
            let way = proxies(list).way(true, host, port);
            assert_eq!(way == Way::Direct, excepted, "{list} {host}:{port}");
        }
    }

    #[test]
    fn a_proxy_of_another_kind_is_refused_without_its_password() {
        let surroundings =
            Surroundings::below_home("/nowhere").with("HTTPS_PROXY", "socks5://u:s3cret@p.test");
        let reason = Proxies::of(&surroundings).unwrap_err();
        assert!(!reason.contains("s3cret"));
    }
}
