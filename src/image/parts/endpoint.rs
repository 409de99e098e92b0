//! One place at which a repository is found: a registry or a mirror of it.
//!
//! Answers are believed only when they say to be exactly the range that was asked for. A login goes to the host that it
//! is for and to the token service that this host names, and never along with a redirect.

use super::address::{is_https, resolve, same_origin};
use super::challenge::{self, Challenge};
use super::client::{self, Client, Response};
use super::login::Login;
use super::registries::Place;
use super::token;
use crate::fault::Kind;
use crate::image::retry::Failure;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use ureq::BodyReader;
use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE,
    WWW_AUTHENTICATE,
};
use ureq::http::{HeaderMap, HeaderValue, StatusCode, Uri};

/// Redirects that are followed for one request.
const MOST_REDIRECTS: usize = 5;

/// One place and what is known of it by now.
pub(super) struct Endpoint {
    place: Place,
    client: Client,
    login: Option<Login>,
    /// Whether it speaks plain http; unknown until it answered.
    plain: OnceLock<bool>,
    authorization: Mutex<Option<HeaderValue>>,
    without_ranges: AtomicBool,
    failing: AtomicBool,
}

/// One blob at an endpoint.
pub(super) struct Target {
    digest: String,
    size: u64,
    /// Where the registry sent us last.
    redirect: Mutex<Option<Uri>>,
}

impl Target {
    /// Returns the blob with this digest and size, not redirected yet.
    pub(super) fn new(digest: String, size: u64) -> Self {
        Self {
            digest,
            size,
            redirect: Mutex::new(None),
        }
    }
}

/// The bytes of one range on their way.
pub(super) struct Content {
    /// Reads them; it may bring more than were asked for.
    pub(super) reader: BodyReader<'static>,
    /// Whether the end of the bytes is known, so that reading on to it cannot hang.
    pub(super) delimited: bool,
}

impl Endpoint {
    /// Returns an endpoint that was not asked anything yet.
    pub(super) fn new(place: Place, client: Client, login: Option<Login>) -> Self {
        Self {
            place,
            client,
            login,
            plain: OnceLock::new(),
            authorization: Mutex::new(None),
            without_ranges: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        }
    }

    /// Returns the endpoint's host, with its port where the name has one.
    pub(super) fn host(&self) -> &str {
        &self.place.host
    }

    /// Returns whether the last request failed for a reason that may pass.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Asks for a range of a blob; a final failure means that this place does not have it.
    pub(super) fn open(&self, target: &Target, range: &Range<u64>) -> Result<Content, Failure> {
        let outcome = self.try_open(target, range);
        let failing = matches!(outcome, Err(Failure::Transient(_)));
        self.failing.store(failing, Ordering::Relaxed);
        outcome
    }

    fn try_open(&self, target: &Target, range: &Range<u64>) -> Result<Content, Failure> {
        if self.without_ranges.load(Ordering::Relaxed) {
            return Err(self.no_ranges());
        }
        let remembered = lock(&target.redirect).clone();
        if let Some(uri) = remembered {
            let answer = self.client.get(&uri, &headers(range, None));
            if let Ok(response) = answer {
                if response.status() == StatusCode::PARTIAL_CONTENT {
                    return self.content(response, &uri, target, range);
                }
            }
            // It expired or its host has trouble; the registry names another.
            *lock(&target.redirect) = None;
        }
        let mut renewed = false;
        loop {
            let sent = lock(&self.authorization).clone();
            let (response, uri) = self.ask(target, range, sent.as_ref())?;
            let (response, last) = self.follow(response, uri.clone(), range, sent.as_ref())?;
            let at_home = same_origin(&uri, &last);
            match response.status() {
                StatusCode::PARTIAL_CONTENT => {
                    let content = self.content(response, &last, target, range)?;
                    if !at_home {
                        *lock(&target.redirect) = Some(last);
                    }
                    return Ok(content);
                }
                StatusCode::UNAUTHORIZED if at_home && !renewed => {
                    self.renew(response, &last, sent)?;
                    renewed = true;
                }
                status => return Err(self.unfit(status, &last)),
            }
        }
    }

    /// Asks the registry itself, by https and, where that is allowed and https brings no answer, by http.
    fn ask(
        &self,
        target: &Target,
        range: &Range<u64>,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Response, Uri), Failure> {
        let get = |scheme: &str| {
            // Docker's own registry has another host than its images are named by.
            let host = match self.place.host.as_str() {
                "docker.io" => "registry-1.docker.io",
                host => host,
            };
            let text = format!("{scheme}://{host}/v2/{}/blobs/{}", self.place.path, target.digest);
            let uri: Uri = text.parse().map_err(Failure::last)?;
            let response = self.client.get(&uri, &headers(range, authorization))?;
            Ok((response, uri))
        };
        let tried = match self.plain.get() {
            Some(true) => return get("http"),
            Some(false) => return get("https"),
            None => get("https"),
        };
        let (answer, plain) = match tried {
            Err(failure) if self.place.insecure => match get("http") {
                Ok(answer) => (answer, true),
                Err(_) => return Err(failure),
            },
            answer => (answer?, false),
        };
        // Another thread may have found out the same.
        self.plain.get_or_init(|| plain);
        Ok(answer)
    }

    /// Follows redirects to whatever they end in.
    fn follow(
        &self,
        mut response: Response,
        mut uri: Uri,
        range: &Range<u64>,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Response, Uri), Failure> {
        let home = uri.clone();
        for _ in 0..MOST_REDIRECTS {
            let location = match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => response.headers().get(LOCATION),
                _ => return Ok((response, uri)),
            };
            let next = location
                .and_then(|location| location.to_str().ok())
                .and_then(|location| resolve(&uri, location))
                .filter(|next| is_https(next) || !is_https(&uri));
            let Some(next) = next else {
                return Err(Failure::last(client::fault(
                    Kind::Unsupported,
                    &uri,
                    "it redirects to where this program does not follow",
                )));
            };
            client::drain(response);
            let authorization = authorization.filter(|_| same_origin(&home, &next));
            response = self.client.get(&next, &headers(range, authorization))?;
            uri = next;
        }
        Err(Failure::last(client::fault(
            Kind::Unsupported,
            &home,
            "it redirects too often",
        )))
    }

    /// Logs in as the registry asks for, unless another thread did so since `sent` was taken.
    fn renew(&self, response: Response, uri: &Uri, sent: Option<HeaderValue>) -> Result<(), Failure> {
        let asked = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = challenge::first(asked.filter_map(|header| header.to_str().ok()));
        client::drain(response);
        let mut authorization = lock(&self.authorization);
        if *authorization != sent {
            return Ok(());
        }
        let refused = |reason: &str| Failure::last(client::fault(Kind::Denied, uri, reason));
        *authorization = Some(match (challenge, &self.login) {
            (Some(Challenge::Basic), Some(Login::Password(user, password))) => {
                if sent.is_some() {
                    return Err(refused("it refuses the login"));
                }
                token::basic(user, password)?
            }
            (Some(Challenge::Bearer(service)), login) => token::bearer(
                &self.client,
                &service,
                &self.place.path,
                login.as_ref(),
                is_https(uri),
            )?,
            (Some(Challenge::Basic), _) => return Err(refused("it asks for a login and none is known")),
            (None, _) => return Err(refused("it asks for a login of a kind that is not known here")),
        });
        Ok(())
    }

    /// Takes an answer for what was asked, if it says to be just that.
    fn content(
        &self,
        response: Response,
        uri: &Uri,
        target: &Target,
        range: &Range<u64>,
    ) -> Result<Content, Failure> {
        let text = |name| response.headers().get(name).map(HeaderValue::to_str);
        let encoded = !matches!(text(CONTENT_ENCODING), None | Some(Ok("identity")));
        let told = match text(CONTENT_RANGE) {
            Some(Ok(told)) => told,
            _ => "",
        };
        let length = match text(CONTENT_LENGTH) {
            Some(Ok(length)) => length.parse().ok(),
            _ => None,
        };
        let wanted = range.end - range.start;
        if encoded
            || !is_range(told, range, target.size)
            || length.is_some_and(|length: u64| length != wanted)
        {
            return Err(Failure::last(client::fault(
                Kind::Unsupported,
                uri,
                "it answers with another range than was asked for",
            )));
        }
        let body = response.into_body();
        let delimited = body.content_length() == Some(wanted);
        Ok(Content {
            reader: body.into_reader(),
            delimited,
        })
    }

    fn unfit(&self, status: StatusCode, uri: &Uri) -> Failure {
        let (kind, reason) = match status.as_u16() {
            200 | 416 => {
                self.without_ranges.store(true, Ordering::Relaxed);
                return self.no_ranges();
            }
            401 | 403 => (Kind::Denied, "it does not let this host read the blob"),
            404 | 410 => (Kind::NotFound, "it does not have the blob"),
            _ => (Kind::Unreachable, "it cannot answer"),
        };
        let fault = client::fault(kind, uri, format!("{reason} (status {})", status.as_u16()));
        match status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
            true => Failure::transient(fault),
            false => Failure::last(fault),
        }
    }

    fn no_ranges(&self) -> Failure {
        let message = format!("{}: it does not serve single ranges", self.place.host);
        Failure::last(crate::fault::Fault::new(Kind::Unsupported, message))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept here is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn headers(range: &Range<u64>, authorization: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let text = format!("bytes={}-{}", range.start, range.end - 1);
    if let Ok(range) = HeaderValue::from_str(&text) {
        headers.insert(RANGE, range);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    headers
}

/// Returns whether `told`, the value of a header such as `bytes 0-9/100`, is just this range of a blob of this size.
fn is_range(told: &str, range: &Range<u64>, size: u64) -> bool {
    let parse = || {
        let (unit, rest) = told.trim().split_once(' ')?;
        let (place, total) = rest.trim().split_once('/')?;
        let (first, last) = place.split_once('-')?;
        let fits = unit.eq_ignore_ascii_case("bytes")
            && first.parse() == Ok(range.start)
            && last.parse() == Ok(range.end - 1)
            && (total == "*" || total.parse() == Ok(size));
        Some(fits)
    };
    parse().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_range_is_taken() {
        for (told, fits) in [
            ("bytes 10-19/100", true),
            ("Bytes 10-19/*", true),
            ("bytes 10-19/101", false),
            ("bytes 10-20/100", false),
            ("bytes 10-18/100", false),
            ("bytes 0-19/100", false),
            ("items 10-19/100", false),
            ("bytes */100", false),
            ("", false),
        ] {
            assert_eq!(is_range(told, &(10..20), 100), fits, "{told}");
        }
    }
}
