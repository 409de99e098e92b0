//! Package state that must roll back together with `/usr`.
//!
//! Everything goes below `/usr/lib/sysimage`, and the old place keeps a relative link: `dpkg --root` follows an
//! absolute one into the host.

use super::rootfs;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Old place, new place, text of the link.
const MOVED: &[(&str, &str, &str)] = &[
    (
        "var/lib/dpkg",
        "usr/lib/sysimage/dpkg",
        "../../usr/lib/sysimage/dpkg",
    ),
    (
        "var/lib/apt/extended_states",
        "usr/lib/sysimage/dpkg/extended_states",
        "../../../usr/lib/sysimage/dpkg/extended_states",
    ),
    // Checksums of the configuration files that packages manage with ucf.
    (
        "var/lib/ucf",
        "usr/lib/sysimage/ucf",
        "../../usr/lib/sysimage/ucf",
    ),
    // Which units packages enabled; without it, a derived build takes every package for a new installation.
    (
        "var/lib/systemd/deb-systemd-helper-enabled",
        "usr/lib/sysimage/deb-systemd-helper-enabled",
        "../../../usr/lib/sysimage/deb-systemd-helper-enabled",
    ),
    (
        "var/lib/systemd/deb-systemd-helper-masked",
        "usr/lib/sysimage/deb-systemd-helper-masked",
        "../../../usr/lib/sysimage/deb-systemd-helper-masked",
    ),
    (
        "var/lib/systemd/deb-systemd-user-helper-enabled",
        "usr/lib/sysimage/deb-systemd-user-helper-enabled",
        "../../../usr/lib/sysimage/deb-systemd-user-helper-enabled",
    ),
    (
        "var/lib/systemd/deb-systemd-user-helper-masked",
        "usr/lib/sysimage/deb-systemd-user-helper-masked",
        "../../../usr/lib/sysimage/deb-systemd-user-helper-masked",
    ),
];

/// What a package run leaves in the moved places and nobody needs again.
const DEBRIS: &[&str] = &[
    "usr/lib/sysimage/dpkg/lock",
    "usr/lib/sysimage/dpkg/lock-frontend",
    "usr/lib/sysimage/dpkg/triggers/Lock",
    "usr/lib/sysimage/dpkg/status-old",
    "usr/lib/sysimage/dpkg/available-old",
    "usr/lib/sysimage/dpkg/diversions-old",
    "usr/lib/sysimage/dpkg/statoverride-old",
    "usr/lib/sysimage/ucf/hashfile.0",
    "usr/lib/sysimage/ucf/registry.0",
];

/// Tells whether the path below the root is one of the old places.
pub(super) fn is_moved(path: &Path) -> bool {
    MOVED.iter().any(|(old, ..)| path == Path::new(old))
}

/// Returns the paths below `/etc` and `/var` that dpkg unpacked from packages.
pub(super) fn shipped(root: &Dir) -> Result<BTreeSet<PathBuf>> {
    let info = Path::new("usr/lib/sysimage/dpkg/info");
    let mut shipped = BTreeSet::new();
    for name in rootfs::names(root, info)? {
        if Path::new(&name)
            .extension()
            .is_some_and(|extension| extension == "list")
        {
            let text = rootfs::read_text(root, info.join(&name))?.unwrap_or_default();
            let below = text.lines().filter_map(|line| line.strip_prefix('/'));
            let ours = below.filter(|path| path.starts_with("var/") || path.starts_with("etc/"));
            shipped.extend(ours.map(PathBuf::from));
        }
    }
    Ok(shipped)
}

/// Moves package state below `/usr` and links to it from its old place.
///
/// A program that replaced the link by a file or directory of its own wrote the newer state, so that wins.
pub(super) fn relocate(root: &Dir) -> Result<()> {
    for (old, new, target) in MOVED {
        let (old, new) = (Path::new(old), Path::new(new));
        if rootfs::link_target(root, old)?.is_none() {
            rootfs::move_tree(root, old, new)?;
        }
        // A link before its target exists would make the owner's `mkdir -p` fail.
        if rootfs::look(root, new)?.is_some() {
            rootfs::link(root, old, target)?;
        }
    }
    for path in DEBRIS {
        rootfs::remove(root, path)?;
    }
    Ok(())
}
