//! Tokens: what a registry's token service gives for a login, or for none.

use super::challenge::TokenService;
use super::client::{self, Client, Response};
use super::login::Login;
use crate::fault::{Fault, Kind};
use crate::image::retry::Failure;
use openssl::base64;
use serde::Deserialize;
use std::fmt::Write;
use ureq::http::header::AUTHORIZATION;
use ureq::http::{HeaderMap, HeaderValue, Uri};

/// Bytes of a token service's answer at most.
const LARGEST_ANSWER: u64 = 1024 * 1024;

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// Returns the header that authenticates by user and password.
pub(super) fn basic(user: &str, password: &str) -> Result<HeaderValue, Failure> {
    let encoded = base64::encode_block(format!("{user}:{password}").as_bytes());
    header(&format!("Basic {encoded}"))
}

/// Asks the service for the right to pull `path` and returns the header that shows it.
///
/// `only_https` refuses a service without encryption: the login would cross the network in the clear.
pub(super) fn bearer(
    client: &Client,
    service: &TokenService,
    path: &str,
    login: Option<&Login>,
    only_https: bool,
) -> Result<HeaderValue, Failure> {
    let scope = format!("repository:{path}:pull");
    let mut fields: Vec<(&str, &str)> = Vec::new();
    if let Some(service) = &service.service {
        fields.push(("service", service));
    }
    fields.push(("scope", &scope));
    let mut headers = HeaderMap::new();
    let response = match login {
        Some(Login::IdentityToken(token)) => {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("refresh_token", token),
                ("client_id", "apt-ostree"),
            ]);
            let uri = address(&service.realm, &[], only_https)?;
            (client.post(&uri, &fields)?, uri)
        }
        login => {
            if let Some(Login::Password(user, password)) = login {
                fields.push(("account", user));
                headers.insert(AUTHORIZATION, basic(user, password)?);
            }
            let uri = address(&service.realm, &fields, only_https)?;
            (client.get(&uri, &headers)?, uri)
        }
    };
    let (response, uri) = response;
    let answer = read(response, &uri)?;
    let token = match answer.token.is_empty() {
        true => answer.access_token,
        false => answer.token,
    };
    if token.is_empty() {
        return Err(refused(&uri, "the token service gave no token"));
    }
    header(&format!("Bearer {token}"))
}

fn read(response: Response, uri: &Uri) -> Result<Answer, Failure> {
    let status = response.status();
    if status.is_server_error() {
        let reason = format!("the token service answered {}", status.as_u16());
        return Err(Failure::transient(client::fault(Kind::Unreachable, uri, reason)));
    }
    if !status.is_success() {
        return Err(refused(
            uri,
            &format!("the token service answered {}", status.as_u16()),
        ));
    }
    let body = response.into_body().into_with_config().limit(LARGEST_ANSWER);
    let text = body.read_to_vec().map_err(|_| {
        let reason = "the token service's answer broke off or is too large";
        Failure::transient(client::fault(Kind::Unreachable, uri, reason))
    })?;
    // The parser's own error might repeat a token.
    serde_json::from_slice(&text).map_err(|_| refused(uri, "the token service's answer is not valid"))
}

fn refused(uri: &Uri, reason: &str) -> Failure {
    Failure::last(client::fault(Kind::Denied, uri, reason))
}

/// Returns a header's value, which is never printed.
fn header(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Failure::last(Fault::new(
            Kind::Invalid,
            "A login contains characters that no header may contain",
        ))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn address(realm: &str, fields: &[(&str, &str)], only_https: bool) -> Result<Uri, Failure> {
    let mut text = realm.to_owned();
    for (name, value) in fields {
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(name);
        text.push('=');
        escape(&mut text, value);
    }
    let usable = |uri: &Uri| {
        let scheme = uri.scheme_str();
        let plain = uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'));
        plain && (scheme == Some("https") || (scheme == Some("http") && !only_https))
    };
    text.parse().ok().filter(usable).ok_or_else(|| {
        Failure::last(Fault::new(
            Kind::Unsupported,
            "The registry names a token service that is not safe to ask",
        ))
    })
}

fn escape(text: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(text, "%{byte:02X}").ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_escaped_and_join_a_query() {
        let fields = [("service", "a b"), ("scope", "repository:os/x:pull")];
        for (realm, expected) in [
            (
                "https://a.test/t",
                "https://a.test/t?service=a%20b&scope=repository%3Aos%2Fx%3Apull",
            ),
            (
                "https://a.test/t?x=1",
                "https://a.test/t?x=1&service=a%20b&scope=repository%3Aos%2Fx%3Apull",
            ),
        ] {
            let uri = address(realm, &fields, true).unwrap_or_else(|_| panic!("{realm}"));
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn a_service_without_encryption_is_asked_only_where_that_is_allowed() {
        assert!(address("http://a.test/t", &[], true).is_err());
        assert!(address("http://a.test/t", &[], false).is_ok());
        for realm in [
            "file:///etc/passwd",
            "/token",
            "",
            "https://",
            "https://u:p@a.test/t",
        ] {
            assert!(address(realm, &[], false).is_err(), "{realm}");
        }
    }
}
