//! All places at which one image is found, shared by its blobs: connections, logins and what is known of failures.

use super::blob::RemoteBlob;
use super::certificates::Authorities;
use super::client::Client;
use super::endpoint::Endpoint;
use super::login::Logins;
use super::proxies::Proxies;
use super::registries::Registries;
use crate::fault::{Fault, Kind};
use crate::image::proxy::SourceOptions;
use crate::image::reference::ImageReference;
use crate::image::retry::Limits;
use anyhow::Result;
use oci_spec::image::Digest;
use std::fmt;
use std::sync::Arc;

/// The places of one image, in the order in which they are asked: mirrors, then the registry itself.
pub(crate) struct Registry {
    endpoints: Vec<Endpoint>,
    limits: Limits,
}

impl Registry {
    /// Reads the configuration; returns nothing for an image that is in no registry or in a blocked one.
    ///
    /// Fails when registries, credentials or certificates are not configured in a way that can be understood.
    pub(crate) fn of(reference: &ImageReference, options: &SourceOptions) -> Result<Option<Self>> {
        let Some(name) = reference.registry_name() else {
            return Ok(None);
        };
        let surroundings = &options.surroundings;
        let registries = Registries::load(surroundings)?;
        let places = registries.places(&name);
        if places.is_empty() {
            return Ok(None);
        }
        let logins = Logins::load(options, registries.credential_helpers())?;
        let authorities = Authorities::load(surroundings);
        let mut endpoints = Vec::new();
        for place in places {
            let tls = authorities.tls(&place.host, place.insecure)?;
            let proxies =
                Proxies::of(surroundings).map_err(|reason| Fault::new(Kind::Unsupported, reason))?;
            let login = logins.find(&place.host, &place.path)?;
            let client = Client::new(proxies, tls, options.limits);
            endpoints.push(Endpoint::new(place, client, login));
        }
        Ok(Some(Self {
            endpoints,
            limits: options.limits,
        }))
    }

    /// Returns one blob of the image's repository.
    pub(crate) fn blob(self: &Arc<Self>, digest: &Digest, size: u64) -> RemoteBlob {
        RemoteBlob::new(Arc::clone(self), digest, size)
    }

    /// Returns the places in the order in which they are asked.
    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Returns how patient reading is.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<&str> = self.endpoints.iter().map(Endpoint::host).collect();
        f.debug_struct("Registry").field("hosts", &hosts).finish()
    }
}
