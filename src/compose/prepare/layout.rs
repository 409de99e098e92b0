//! The top level of the root: links into `/var`, mount points, and what must exist for a derived build.

use super::{Scope, rootfs};
use crate::compose::tmpfiles;
use crate::fault::{Fault, Kind};
use crate::report::Report;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Top-level links: name, target, mode of the target directory.
const LINKS: &[(&str, &str, u32)] = &[
    ("home", "var/home", 0o755),
    ("root", "var/roothome", 0o700),
    ("srv", "var/srv", 0o755),
    ("mnt", "var/mnt", 0o755),
    // Writable on the host; what packages bring moves on to /usr/lib/opt and is linked from there.
    ("opt", "var/opt", 0o755),
    ("media", "run/media", 0o755),
];

/// Directories that the kernel, systemd and OSTree mount over or fill.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("sysroot", 0o755),
    ("boot", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
    ("var/log", 0o755),
    ("var/log/apt", 0o755),
    ("var/lib/apt/lists/partial", 0o755),
    ("var/cache/apt/archives/partial", 0o755),
];

/// Where the payload of `/opt` lives, so that it is read-only and rolls back with the image.
const OPT: &str = "usr/lib/opt";

/// Makes the top-level links and directories; what was in a directory moves along.
pub(super) fn place(root: &Dir, report: &dyn Report) -> Result<()> {
    if !rootfs::is_dir(root, "usr/lib")? || !rootfs::is_dir(root, "etc")? {
        return Err(Fault::new(
            Kind::Invalid,
            "This is no Debian root: it has no /usr/lib or no /etc",
        )
        .hint("name the root directory of the image with --rootfs DIR")
        .into());
    }
    for (path, mode) in DIRECTORIES {
        rootfs::make_dir(root, path, *mode)?;
    }
    for (name, target, mode) in LINKS {
        replace_by_link(root, name, target, *mode, report)?;
    }
    rootfs::link(root, "ostree", "sysroot/ostree")?;
    move_opt_payload(root)
}

/// Tells of what packages added at the top of the root: it stays, and a host cannot change it there.
pub(super) fn tell_additions(root: &Dir, base: &Dir, report: &dyn Report) -> Result<()> {
    let known = LINKS.iter().map(|(name, ..)| *name);
    let known: Vec<&str> = known
        .chain(DIRECTORIES.iter().map(|(name, _)| *name))
        .chain(["etc", "ostree"])
        .collect();
    for name in rootfs::names(root, "")? {
        let is_known = known.iter().any(|known| name == **known);
        if !is_known && rootfs::look(base, &name)?.is_none() {
            report.warning(&format!(
                "/{} is new at the top of the root: it is kept, and read-only on the host.",
                name.to_string_lossy()
            ));
        }
    }
    Ok(())
}

fn replace_by_link(root: &Dir, name: &str, target: &str, mode: u32, report: &dyn Report) -> Result<()> {
    if rootfs::is_mount_point(root, name)? {
        report.warning(&format!(
            "/{name} stays a directory, because something is mounted over it."
        ));
        return Ok(());
    }
    let volatile = target.starts_with("run/");
    if volatile && rootfs::link_target(root, name)?.as_deref() == Some(Path::new(target)) {
        return Ok(());
    }
    // Maintainer scripts in derived builds fail on a dangling link.
    rootfs::make_dir(root, target, mode)?;
    if rootfs::is_dir(root, name)? {
        rootfs::move_tree(root, Path::new(name), Path::new(target))?;
    }
    rootfs::link(root, name, target)?;
    Ok(())
}

/// Moves what packages put into `/opt` below `/usr` and leaves links behind.
fn move_opt_payload(root: &Dir) -> Result<()> {
    for name in rootfs::names(root, "var/opt")? {
        let from = Path::new("var/opt").join(&name);
        if rootfs::link_target(root, &from)?.is_some() {
            continue;
        }
        let to = Path::new(OPT).join(&name);
        rootfs::move_tree(root, &from, &to)?;
        let mut target = PathBuf::from("../..").into_os_string();
        target.push("/");
        target.push(to);
        rootfs::link(root, &from, &target.to_string_lossy())?;
    }
    Ok(())
}

/// Makes the links in `/etc` that tmpfiles.d would make at boot, so that no host differs from its image by them.
///
/// Those that an image below could have had and has not stay away.
pub(super) fn link_etc(root: &Dir, scope: &Scope<'_>) -> Result<()> {
    let known = match scope {
        Scope::Image => BTreeMap::new(),
        Scope::Layer(layer) => tmpfiles::load(layer.base, false)?,
    };
    for line in tmpfiles::load(root, false)?.into_values() {
        let in_etc = line.path.starts_with("etc") && line.letter == 'L' && !line.argument.is_empty();
        if in_etc && !known.contains_key(&line.path) && rootfs::look(root, &line.path)?.is_none() {
            rootfs::link(root, &line.path, &line.argument)?;
        }
    }
    Ok(())
}

/// Empties the directories whose content belongs to the build and not to the image.
pub(super) fn clear_scratch(root: &Dir) -> Result<()> {
    for folder in ["run", "tmp"] {
        rootfs::clear(root, folder)?;
    }
    Ok(())
}
