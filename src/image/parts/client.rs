//! One HTTP exchange: through the right proxy, under the time limits, and with an error that tells no secret.
//!
//! Connections are kept and used again. Redirects are not followed here: whoever asks decides what the next host is told.

use super::address::{host, is_https, port};
use super::proxies::{Proxies, Way};
use crate::fault::{Fault, Kind};
use crate::image::retry::{Failure, Limits};
use std::fmt::Display;
use std::io::Read;
use std::sync::OnceLock;
use std::time::Duration;
use ureq::http::{HeaderMap, Uri};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, Error};

/// An answer: its status and headers are here, its body still to be read.
pub(super) type Response = ureq::http::Response<Body>;

/// Bytes of an answer's status and headers at most.
const LARGEST_HEADER: usize = 32 * 1024;
/// Bytes of a body that is read only to keep its connection in use.
const LARGEST_DRAINED: u64 = 16 * 1024;
/// Connections to one host that wait for their next use: as many as layers are fetched at once.
const MOST_IDLE: usize = 4;
/// How long one waits; registries close theirs after a minute or later.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

/// What all exchanges with one registry share.
pub(super) struct Client {
    proxies: Proxies,
    tls: TlsConfig,
    limits: Limits,
    direct: OnceLock<Agent>,
    by_http_proxy: OnceLock<Agent>,
    by_https_proxy: OnceLock<Agent>,
}

impl Client {
    /// Returns a client without a connection.
    pub(super) fn new(proxies: Proxies, tls: TlsConfig, limits: Limits) -> Self {
        Self {
            proxies,
            tls,
            limits,
            direct: OnceLock::new(),
            by_http_proxy: OnceLock::new(),
            by_https_proxy: OnceLock::new(),
        }
    }

    /// Sends a GET request and returns the answer's head, whatever its status is.
    pub(super) fn get(&self, uri: &Uri, headers: &HeaderMap) -> Result<Response, Failure> {
        let mut request = self.agent(uri).get(uri);
        if let Some(own) = request.headers_mut() {
            own.extend(headers.clone());
        }
        request.call().map_err(|error| failure(uri, error))
    }

    /// Sends a form and returns the answer's head, whatever its status is.
    pub(super) fn post(&self, uri: &Uri, form: &[(&str, &str)]) -> Result<Response, Failure> {
        let request = self.agent(uri).post(uri);
        let sent = request.send_form(form.iter().copied());
        sent.map_err(|error| failure(uri, error))
    }

    fn agent(&self, uri: &Uri) -> &Agent {
        let bare = host(uri).trim_start_matches('[').trim_end_matches(']');
        let way = self.proxies.way(is_https(uri), bare, port(uri));
        let place = match way {
            Way::Direct => &self.direct,
            Way::HttpProxy => &self.by_http_proxy,
            Way::HttpsProxy => &self.by_https_proxy,
        };
        place.get_or_init(|| {
            Agent::config_builder()
                .tls_config(self.tls.clone())
                .proxy(self.proxies.proxy(way))
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(concat!("apt-ostree/", env!("CARGO_PKG_VERSION")))
                .max_response_header_size(LARGEST_HEADER)
                .max_idle_connections_per_host(MOST_IDLE)
                .max_idle_age(LONGEST_IDLE)
                .timeout_resolve(Some(self.limits.answer))
                .timeout_connect(Some(self.limits.stall))
                .timeout_recv_response(Some(self.limits.answer))
                .timeout_per_read(Some(self.limits.stall))
                .timeout_per_write(Some(self.limits.stall))
                .build()
                .new_agent()
        })
    }
}

/// Reads what is left of a small body, so that its connection can be used again.
pub(super) fn drain(response: Response) {
    let body = response.into_body();
    if body
        .content_length()
        .is_none_or(|length| length > LARGEST_DRAINED)
    {
        return;
    }
    // A body that breaks off takes its connection with it, and nothing else.
    std::io::copy(
        &mut body.into_reader().take(LARGEST_DRAINED),
        &mut std::io::sink(),
    )
    .ok();
}

/// Returns the fault for a request that `uri`'s host did not answer as it should.
pub(super) fn fault(kind: Kind, uri: &Uri, reason: impl Display) -> Fault {
    Fault::new(kind, format!("{}: {reason}", host(uri)))
}

fn failure(uri: &Uri, error: Error) -> Failure {
    let unreachable = |reason: String| fault(Kind::Unreachable, uri, reason);
    match error {
        Error::Io(error) => Failure::transient(unreachable(error.to_string())),
        Error::Timeout(limit) => Failure::transient(unreachable(format!("no answer in time ({limit})"))),
        Error::HostNotFound => Failure::transient(unreachable("the host is not known".to_owned())),
        Error::ConnectionFailed => Failure::transient(unreachable("it cannot be connected to".to_owned())),
        Error::ConnectProxyFailed(_) => {
            Failure::transient(unreachable("the proxy does not connect to it".to_owned()))
        }
        Error::NativeTls(error) => Failure::last(unreachable(error.to_string())),
        Error::Tls(reason) => Failure::last(unreachable(reason.to_owned())),
        Error::LargeResponseHeader(..) => {
            Failure::last(unreachable("the header of its answer is too large".to_owned()))
        }
        // What else there is may repeat the address or what was sent.
        _ => Failure::last(unreachable("its answer is no valid HTTP".to_owned())),
    }
}
