//! `info`: what is known of packages. Needs neither root, nor the lock, nor the network.

use crate::deployment::archive::View;
use crate::deployment::sysroot::Host;
use crate::layer::intent::PackageRequest;
use crate::layer::record;
use crate::layer::search::Information;
use anyhow::Result;

/// A package, and how it came into the deployment that boots next.
#[derive(Clone, Debug)]
pub struct Package {
    /// What the package lists know.
    pub information: Information,
    /// Whether it lies on top of the image.
    pub layered: bool,
}

/// Returns what is known of packages, in the order of the names.
pub fn run(host: &Host, stateroot: Option<&str>, names: &[PackageRequest]) -> Result<Vec<Package>> {
    let view = View::of(host, stateroot)?;
    let record = record::read(&host.repo(), &view.deployment.csum())?.unwrap_or_default();
    let found = view.open_to_read()?.information(names)?;
    let with_place = |information: Information| {
        let layered = information.installed.as_ref().is_some_and(|(_, architecture)| {
            record.packages.iter().any(|package| {
                package.id.name == information.name && package.id.architecture == *architecture
            })
        });
        Package { information, layered }
    };
    Ok(found.into_iter().map(with_place).collect())
}
