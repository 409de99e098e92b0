//! Timers that would change the host behind the image's back, first-boot presets, apt in derived builds, GRUB.

use super::rootfs;
use anyhow::Result;
use cap_std_ext::cap_std::fs::{Dir, PermissionsExt};
use std::collections::BTreeSet;
use std::path::Path;

/// Units that run dpkg or apt by themselves.
pub(crate) const APT_UNITS: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "unattended-upgrades.service",
];

const UNITS: &str = "usr/lib/systemd/system";
/// Before every other preset: no image wants these.
const TIMER_PRESET: &str = "usr/lib/systemd/system-preset/00-apt-ostree-timers.preset";
/// Behind the presets of an image's author, before systemd's own.
const IMAGE_PRESET: &str = "usr/lib/systemd/system-preset/85-apt-ostree-image.preset";

/// For builds that start `FROM` this image. Fragments of the machine that layers packages are not executed.
const APT_CONFIGURATION: &str = "\
// Written by apt-ostree container prepare, for images that are built from this one.
// apt would replace the link in /var/lib/apt by a file.
Dir::State::extended_states \"/usr/lib/sysimage/dpkg/extended_states\";
// /var is empty in an image: maintainer scripts need their files there again.
DPkg::Pre-Invoke { \"if [ ! -e /run/ostree-booted ]; then mkdir -p /run/media; systemd-tmpfiles --create --prefix=/var >/dev/null 2>&1 || true; fi\"; };
";

const GRUB_DEFAULTS: &str = "\
# Written by apt-ostree container prepare: /etc/grub.d/15_ostree makes no entries where this file is missing.
GRUB_DEFAULT=0
GRUB_TIMEOUT=5
GRUB_DISTRIBUTOR=\"Debian\"
GRUB_DISABLE_OS_PROBER=true
";

/// Parts of a `grub.cfg` that an OSTree host needs or its owner writes; all others look for foreign systems.
const GRUB_PARTS: &[&str] = &[
    "00_header",
    "05_debian_theme",
    "15_ostree",
    "40_custom",
    "41_custom",
];

/// Disables what fights an image and fixes what the first boot enables.
pub(super) fn configure(root: &Dir) -> Result<()> {
    disable_apt_units(root)?;
    keep_enablement(root)?;
    rootfs::write(root, "etc/apt/apt.conf.d/50apt-ostree", APT_CONFIGURATION, 0o644)?;
    configure_grub(root)
}

fn disable_apt_units(root: &Dir) -> Result<()> {
    for (folder, name) in enablement_links(root)? {
        if APT_UNITS.contains(&name.as_str()) {
            rootfs::remove(root, Path::new(&folder).join(&name))?;
        }
    }
    let lines: String = APT_UNITS.iter().map(|unit| format!("disable {unit}\n")).collect();
    rootfs::write(
        root,
        TIMER_PRESET,
        &format!("# Packages of the host come with its image.\n{lines}"),
        0o644,
    )?;
    Ok(())
}

/// Returns folder and name of every link that enables a unit in `/etc`.
pub(crate) fn enablement_links(root: &Dir) -> Result<Vec<(String, String)>> {
    let mut links = Vec::new();
    let system = Path::new("etc/systemd/system");
    rootfs::walk(root, system, &mut |path, metadata| {
        if metadata.is_symlink() {
            let folder = path.parent().unwrap_or(system).to_string_lossy().into_owned();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            links.push((folder, name));
        }
        Ok(())
    })?;
    Ok(links)
}

/// Writes presets by which the first boot leaves disabled what is disabled in the image.
///
/// Debian's default is to enable every unit that no preset names.
fn keep_enablement(root: &Dir) -> Result<()> {
    let mut enabled = BTreeSet::new();
    for (folder, name) in enablement_links(root)? {
        if let Some(target) = rootfs::link_target(root, Path::new(&folder).join(&name))? {
            enabled.extend(target.file_name().map(|unit| unit.to_string_lossy().into_owned()));
        }
        enabled.insert(name);
    }
    let mut lines = String::from("# The first boot enables nothing that this image left disabled.\n");
    for name in rootfs::names(root, UNITS)? {
        let name = name.to_string_lossy().into_owned();
        let path = Path::new(UNITS).join(&name);
        let text = rootfs::read_text(root, &path)?.unwrap_or_default();
        let installable = text.lines().any(|line| line.trim() == "[Install]");
        let instance_enabled = name.split_once("@.").is_some_and(|(stem, ending)| {
            enabled
                .iter()
                .any(|unit| unit.starts_with(&format!("{stem}@")) && unit.ends_with(ending))
        });
        if installable && !enabled.contains(&name) && !instance_enabled && !APT_UNITS.contains(&name.as_str())
        {
            lines.push_str(&format!("disable {name}\n"));
        }
    }
    rootfs::write(root, IMAGE_PRESET, &lines, 0o644)?;
    Ok(())
}

/// Makes libostree's grub2 backend work in images that carry GRUB; others are left alone.
fn configure_grub(root: &Dir) -> Result<()> {
    let has_grub = rootfs::is_file(root, "usr/sbin/grub-mkconfig")?;
    if !has_grub || !rootfs::is_file(root, "etc/grub.d/15_ostree")? {
        return Ok(());
    }
    if rootfs::look(root, "etc/default/grub")?.is_none() {
        rootfs::write(root, "etc/default/grub", GRUB_DEFAULTS, 0o644)?;
    }
    for name in rootfs::names(root, "etc/grub.d")? {
        let path = Path::new("etc/grub.d").join(&name);
        let Some(metadata) = rootfs::look(root, &path)?.filter(|found| found.is_file()) else {
            continue;
        };
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o111 != 0 && !GRUB_PARTS.contains(&&*name.to_string_lossy()) {
            rootfs::set_mode(root, &path, mode & !0o111)?;
        }
    }
    Ok(())
}
