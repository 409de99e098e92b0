//! What makes one machine differ from another and is no secret, and what package tools leave behind.

use super::{Scope, rootfs};
use crate::fault::{Fault, Kind};
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use std::path::Path;

/// Locks and copies that tools leave behind.
const DEBRIS: &[&str] = &[
    "etc/.pwd.lock",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
    "etc/.java/.systemPrefs/.system.lock",
    "usr/share/info/dir.old",
];

/// Catalogs that XML tools keep a copy of.
const XML: &str = "etc/xml";

/// Name endings of what dpkg and ucf leave beside a configuration file.
pub(crate) const PACKAGE_DEBRIS: &[&str] = &[
    ".dpkg-new",
    ".dpkg-tmp",
    ".dpkg-old",
    ".dpkg-dist",
    ".dpkg-bak",
    ".dpkg-remove",
    ".ucf-new",
    ".ucf-old",
    ".ucf-dist",
    ".ucf-tmp",
];

/// Left behind by dpkg itself where it did not come to an end.
const UNFINISHED: &str = ".dpkg-new";

/// Removes machine identity and leftovers.
///
/// Fails when dpkg did not finish over an image: what it left would be taken for the configuration.
pub(super) fn strip(root: &Dir, scope: &Scope<'_>) -> Result<()> {
    // Literally this word, so that systemd takes the first boot for one; an empty file would not do.
    rootfs::write(root, "etc/machine-id", "uninitialized\n", 0o644)?;
    for path in DEBRIS.iter().chain(&["etc/hostname"]) {
        rootfs::remove(root, path)?;
    }
    let mut debris = Vec::new();
    rootfs::walk(root, Path::new("etc"), &mut |path, metadata| {
        let name = path.to_string_lossy();
        let copied = path.parent() == Some(Path::new(XML)) && name.ends_with(".old");
        if metadata.is_file() && (copied || PACKAGE_DEBRIS.iter().any(|ending| name.ends_with(ending))) {
            debris.push(path.to_owned());
        }
        Ok(())
    })?;
    for path in debris {
        if matches!(scope, Scope::Layer(_)) && path.to_string_lossy().ends_with(UNFINISHED) {
            return Err(Fault::new(
                Kind::Invalid,
                format!(
                    "dpkg left /{} behind: a package was not installed to its end",
                    path.display()
                ),
            )
            .hint("the output of the package's scripts above tells why")
            .into());
        }
        rootfs::remove(root, path)?;
    }
    Ok(())
}
