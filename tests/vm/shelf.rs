//! The registry on the test host that guests pull from.

use crate::disk::image;
use crate::machine::Machine;
use crate::support::registry::Registry;
use crate::support::run;

/// The host's loopback device as a guest sees it.
const HOST: &str = "10.0.2.2";

/// A registry with one repository, whose tags the test moves.
pub(crate) struct Shelf {
    registry: Registry,
}

impl Shelf {
    /// Starts an empty registry.
    pub(crate) fn new() -> Self {
        Self {
            registry: Registry::start(),
        }
    }

    /// Makes the tag name this test image.
    pub(crate) fn put(&self, tag: &str, name: &str) {
        let source = format!("oci:{}", image(name).display());
        let target = self.registry.name(&format!("os/debian:{tag}"));
        run(
            "skopeo",
            ["copy", "--quiet", "--dest-tls-verify=false", &source, &target],
        );
    }

    /// Returns the reference by which a guest follows the tag.
    pub(crate) fn reference(&self, tag: &str) -> String {
        format!(
            "ostree-unverified-registry:{HOST}:{}/os/debian:{tag}",
            self.registry.port()
        )
    }

    /// Lets the guest reach the registry, which speaks plain HTTP.
    pub(crate) fn announce(&self, machine: &mut Machine) {
        let port = self.registry.port();
        machine.run(&format!(
            "mkdir -p /etc/containers/registries.conf.d\n\
             printf '[[registry]]\\nlocation = \"{HOST}:{port}\"\\ninsecure = true\\n' >/etc/containers/registries.conf.d/test.conf\n\
             for i in $(seq 60); do (: </dev/tcp/{HOST}/{port}) 2>/dev/null && break || sleep 0.5; done\n\
             (: </dev/tcp/{HOST}/{port})"
        ));
    }
}
