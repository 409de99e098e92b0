//! What apt's transfer methods said, so that nothing has to be guessed from messages for people.
//!
//! With `Debug::pkgAcquire::Worker` apt writes every message of the protocol between itself and its methods
//! (`http`, `gpgv`, ...) to standard error, one a line, percent-encoded. The fields are those of apt's method
//! interface: `URI`, `FailReason`, `Transient-Failure`.

use crate::fault::{Fault, Kind};
use std::collections::BTreeMap;

/// The option that makes apt write the protocol.
pub(super) const OPTION: &str = "-oDebug::pkgAcquire::Worker=1";

/// A transfer that failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The address as it was asked for.
    pub(super) uri: String,
    /// What sort of trouble it is.
    pub(super) trouble: Trouble,
    /// The method's own words.
    pub(super) message: String,
}

/// Why a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// No answer, or it broke off.
    Network,
    /// The server has no such file.
    Missing,
    /// The server wants credentials, or other ones.
    Login,
    /// A signature is missing, bad, or by a key that is not trusted.
    Signature,
}

impl Trouble {
    /// Returns the kind of the fault that tells of it.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Network => Kind::Unreachable,
            Self::Missing => Kind::NotFound,
            Self::Login | Self::Signature => Kind::Denied,
        }
    }

    /// Adds the next step to a fault.
    pub(super) fn advise(self, fault: Fault) -> Fault {
        match self {
            Self::Network => fault.hint("try again later, or use what is stored with `--cache-only`"),
            Self::Missing => fault.hint("look at /etc/apt/sources.list.d and at the repository"),
            Self::Login => fault.hint("put the credentials into a file in /etc/apt/auth.conf.d"),
            Self::Signature => {
                fault.hint("name the right key in `Signed-By` of the source, or remove the source")
            }
        }
    }
}

/// Returns the transfers that failed, each as it ended: one that a later try repaired does not count.
pub(super) fn failures(log: &str) -> Vec<Failure> {
    let mut asked = BTreeMap::new();
    let mut failed: Vec<(String, Failure)> = Vec::new();
    for line in log.lines() {
        let line = line.trim_start();
        let Some((outward, rest)) = line
            .strip_prefix("-> ")
            .map(|rest| (true, rest))
            .or_else(|| line.strip_prefix("<- ").map(|rest| (false, rest)))
        else {
            continue;
        };
        let Some((method, message)) = rest.split_once(':') else {
            continue;
        };
        let message = decode(message);
        let field = |name: &str| {
            message
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .unwrap_or_default()
        };
        let verifies = matches!(method, "gpgv" | "sqv");
        match message.split(' ').next().unwrap_or_default() {
            "600" if outward && !verifies => {
                asked.insert(field("Filename").to_owned(), field("URI").to_owned());
            }
            "201" if !outward => failed.retain(|(id, _)| id != field("URI")),
            "400" if !outward => {
                let id = field("URI").to_owned();
                failed.retain(|(known, _)| *known != id);
                // The verifier is given the file that was fetched.
                let file = id.split_once(':').map_or("", |(_, path)| path);
                let uri = if verifies { asked.get(file).cloned() } else { None };
                let failure = Failure {
                    uri: uri.unwrap_or_else(|| id.clone()),
                    trouble: match field("FailReason") {
                        _ if verifies => Trouble::Signature,
                        "HttpError401" | "HttpError403" | "HttpError407" => Trouble::Login,
                        "HttpError404" | "HttpError410" => Trouble::Missing,
                        // Folders of this machine have no reason of their own.
                        _ if matches!(method, "file" | "copy") => Trouble::Missing,
                        _ => Trouble::Network,
                    },
                    message: field("Message").trim().to_owned(),
                };
                failed.push((id, failure));
            }
            _ => {}
        }
    }
    failed.into_iter().map(|(_, failure)| failure).collect()
}

/// Returns what a program of apt said besides the protocol: its errors, without the letter in front.
pub(super) fn errors(log: &str) -> String {
    let errors: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("E: ")).collect();
    errors.join("; ")
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_and_a_later_success_counts() {
        let log = " -> http:600%20URI%20Acquire%0aURI:%20http://a/InRelease%0aFilename:%20/lists/partial/a_InRelease%0a\n\
                   <- http:400%20URI%20Failure%0aTransient-Failure:%20true%0aFailReason:%20Timeout%0aURI:%20http://b/x\n\
                   <- http:201%20URI%20Done%0aURI:%20http://b/x\n\
                   <- http:400%20URI%20Failure%0aFailReason:%20HttpError404%0aMessage:%20404%20%20no%0aURI:%20http://c/y\n\
                   <- http:400%20URI%20Failure%0aFailReason:%20ConnectionRefused%0aURI:%20http://d/z%41\n\
                   <- gpgv:400%20URI%20Failure%0aMessage:%20bad%0aURI:%20gpgv:/lists/partial/a_InRelease\nE: Some\n";
        let found: Vec<(String, Trouble)> = failures(log)
            .into_iter()
            .map(|failure| (failure.uri, failure.trouble))
            .collect();
        assert_eq!(
            found,
            [
                ("http://c/y".to_owned(), Trouble::Missing),
                ("http://d/zA".to_owned(), Trouble::Network),
                ("http://a/InRelease".to_owned(), Trouble::Signature),
            ]
        );
        assert_eq!(errors(log), "Some");
    }
}
