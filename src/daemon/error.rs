//! Faults as D-Bus errors, and back.
//!
//! The name of the error is the kind, its text the sentence; a hint follows on a line of its own that begins with
//! `hint: `.

use crate::fault::{Fault, Kind};
use zbus::DBusError;

/// Between the sentence and the hint.
const HINT: &str = "\nhint: ";

/// What a method fails with.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.aptostree.dev.Error")]
pub(super) enum BusError {
    /// Trouble with the bus itself.
    #[zbus(error)]
    Bus(zbus::Error),
    /// See [`Kind::Usage`].
    Usage(String),
    /// See [`Kind::Denied`].
    Denied(String),
    /// See [`Kind::Busy`].
    Busy(String),
    /// See [`Kind::NotFound`].
    NotFound(String),
    /// See [`Kind::Unreachable`].
    Unreachable(String),
    /// See [`Kind::Unsupported`].
    Unsupported(String),
    /// See [`Kind::Invalid`].
    Invalid(String),
    /// See [`Kind::NoSpace`].
    NoSpace(String),
    /// See [`Kind::Cancelled`].
    Cancelled(String),
    /// An error that is no fault.
    Failed(String),
}

impl From<Fault> for BusError {
    fn from(fault: Fault) -> Self {
        let text = match fault.hint {
            Some(hint) => format!("{}{HINT}{hint}", fault.message),
            None => fault.message,
        };
        match fault.kind {
            Kind::Usage => Self::Usage(text),
            Kind::Denied => Self::Denied(text),
            Kind::Busy => Self::Busy(text),
            Kind::NotFound => Self::NotFound(text),
            Kind::Unreachable => Self::Unreachable(text),
            Kind::Unsupported => Self::Unsupported(text),
            Kind::Invalid => Self::Invalid(text),
            Kind::NoSpace => Self::NoSpace(text),
            Kind::Cancelled => Self::Cancelled(text),
        }
    }
}

impl From<anyhow::Error> for BusError {
    fn from(error: anyhow::Error) -> Self {
        match Fault::find(&error) {
            Some(fault) => {
                let mut fault = fault.clone();
                fault.message = format!("{error:#}");
                fault.into()
            }
            None => Self::Failed(format!("{error:#}")),
        }
    }
}

impl From<zbus::fdo::Error> for BusError {
    fn from(error: zbus::fdo::Error) -> Self {
        Self::Bus(error.into())
    }
}

impl BusError {
    /// Returns the fault that the service failed with, or what is wrong with the bus.
    pub(super) fn into_error(self) -> anyhow::Error {
        let (kind, text) = match self {
            Self::Bus(error) => return error.into(),
            Self::Failed(text) => return anyhow::Error::msg(text),
            Self::Usage(text) => (Kind::Usage, text),
            Self::Denied(text) => (Kind::Denied, text),
            Self::Busy(text) => (Kind::Busy, text),
            Self::NotFound(text) => (Kind::NotFound, text),
            Self::Unreachable(text) => (Kind::Unreachable, text),
            Self::Unsupported(text) => (Kind::Unsupported, text),
            Self::Invalid(text) => (Kind::Invalid, text),
            Self::NoSpace(text) => (Kind::NoSpace, text),
            Self::Cancelled(text) => (Kind::Cancelled, text),
        };
        match text.split_once(HINT) {
            Some((message, hint)) => Fault::new(kind, message).hint(hint).into(),
            None => Fault::new(kind, text).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_the_bus() {
        let fault = Fault::new(Kind::Busy, "`upgrade` runs").hint("wait");
        let error = BusError::from(fault.clone());
        assert_eq!(error.name().as_str(), "org.aptostree.dev.Error.Busy");
        let back = error.into_error();
        assert_eq!(Fault::find(&back), Some(&fault));
        let chain = anyhow::Error::from(fault).context("Upgrading");
        let back = BusError::from(chain).into_error();
        let found = Fault::find(&back).unwrap();
        assert_eq!(
            (found.message.as_str(), found.kind),
            ("Upgrading: `upgrade` runs", Kind::Busy)
        );
        assert!(matches!(BusError::from(anyhow::anyhow!("no")), BusError::Failed(text) if text == "no"));
    }
}
