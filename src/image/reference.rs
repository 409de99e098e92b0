//! Image references: what a host follows and how it is verified.
//!
//! The grammar is ostree-ext's `OstreeImageReference`; this module adds the short forms people type and the
//! names under which other tools expect to find the image in the repository.

use crate::fault::{Fault, Kind};
use ostree_ext::container::{OstreeImageReference, SignatureSource};
use std::fmt;
use std::str::FromStr;

/// The image a host follows: signature rule, transport and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageReference(OstreeImageReference);

impl ImageReference {
    /// Returns the reference as skopeo spells it, for example `docker://registry.example/os:13`.
    pub fn skopeo_name(&self) -> String {
        self.0.imgref.to_string()
    }

    /// Returns whether an import must refuse an image that the signature policy does not demand signatures of.
    pub fn requires_signature(&self) -> bool {
        self.0.sigverify == SignatureSource::ContainerPolicy
    }
}

impl FromStr for ImageReference {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        OstreeImageReference::try_from(text).map(Self).map_err(|error| {
            Fault::new(
                Kind::Usage,
                format!("The image reference `{text}` cannot be read: {error:#}"),
            )
        })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
