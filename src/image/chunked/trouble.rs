//! Why a layer was not rebuilt from its parts.

use std::fmt;

/// Why a layer was not rebuilt; `settle` tells what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The whole layer is the better way, or the only one.
    Whole(String),
    /// The image contradicts itself.
    Lie(String),
}

impl Trouble {
    pub(super) fn whole(reason: impl Into<String>) -> Self {
        Self::Whole(reason.into())
    }

    pub(super) fn lie(reason: impl Into<String>) -> Self {
        Self::Lie(reason.into())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Whole(reason) | Self::Lie(reason)) = self;
        f.write_str(reason)
    }
}

impl std::error::Error for Trouble {}
