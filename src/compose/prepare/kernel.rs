//! The one kernel: found in `/boot` or beside its modules, put beside its modules.

use super::{Scope, rootfs};
use crate::fault::{Fault, Kind};
use crate::report::Report;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use std::collections::BTreeSet;
use std::path::Path;

/// Links that the kernel package puts into the root or `/boot`.
const LINKS: &[&str] = &["vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old"];

/// Moves the kernel to `/usr/lib/modules/K/vmlinuz`, empties `/boot` and returns `K`.
///
/// Fails with a fault that names the kernels when there is not exactly one.
#[context("Placing the kernel")]
pub(super) fn place(root: &Dir, scope: &Scope<'_>, report: &dyn Report) -> Result<String> {
    remove_leftovers(root)?;
    let kernels = find(root)?;
    let kernel = match kernels.as_slice() {
        [one] => one.clone(),
        [] => {
            return Err(Fault::new(
                Kind::NotFound,
                "The image has no kernel: neither /boot/vmlinuz-* nor /usr/lib/modules/*/vmlinuz exists",
            )
            .hint("run apt-get install linux-image-amd64 (or the kernel of your architecture) in the image")
            .into());
        }
        several => {
            return Err(Fault::new(
                Kind::Invalid,
                format!(
                    "The image has {} kernels and must have one: {}",
                    several.len(),
                    several.join(", ")
                ),
            )
            .hint(remedy(scope, several)?)
            .into());
        }
    };
    let modules = Path::new("usr/lib/modules").join(&kernel);
    if !rootfs::is_dir(root, &modules)? {
        return Err(Fault::new(
            Kind::Invalid,
            format!("The kernel {kernel} has no modules: /usr/lib/modules/{kernel} is missing"),
        )
        .hint(format!(
            "run apt-get install --reinstall linux-image-{kernel} in the image"
        ))
        .into());
    }
    for (name, target) in [
        ("vmlinuz", "vmlinuz"),
        ("config", "config"),
        ("System.map", "System.map"),
    ] {
        let from = Path::new("boot").join(format!("{name}-{kernel}"));
        if rootfs::is_file(root, &from)? {
            rootfs::move_tree(root, &from, &modules.join(target))?;
        }
    }
    empty_boot(root, report)?;
    Ok(kernel)
}

/// Returns how to get down to one kernel.
fn remedy(scope: &Scope<'_>, kernels: &[String]) -> Result<String> {
    let Scope::Layer(layer) = scope else {
        return Ok(format!(
            "run apt-get purge linux-image-{} in the image",
            kernels[0]
        ));
    };
    let base = find(layer.base)?;
    let added = kernels.iter().find(|kernel| !base.contains(kernel));
    let removed = kernels.iter().find(|kernel| base.contains(kernel));
    Ok(format!(
        "`apt-ostree override remove linux-image-{}` takes out the image's own, `apt-ostree uninstall {}` the other",
        removed.unwrap_or(&kernels[0]),
        match layer.kernel_package {
            Some(package) => package.to_owned(),
            None => format!("linux-image-{}", added.unwrap_or(&kernels[0])),
        },
    ))
}

/// Returns the releases of all kernels, sorted.
fn find(root: &Dir) -> Result<Vec<String>> {
    let mut kernels = BTreeSet::new();
    for name in rootfs::names(root, "boot")? {
        if let Some(release) = name.to_string_lossy().strip_prefix("vmlinuz-") {
            kernels.insert(release.to_owned());
        }
    }
    for name in rootfs::names(root, "usr/lib/modules")? {
        if rootfs::is_file(root, Path::new("usr/lib/modules").join(&name).join("vmlinuz"))? {
            kernels.insert(name.to_string_lossy().into_owned());
        }
    }
    Ok(kernels.into_iter().collect())
}

/// Removes module directories whose package is gone.
///
/// dpkg does not know the files that an earlier run put there, so purging a kernel leaves them behind.
fn remove_leftovers(root: &Dir) -> Result<()> {
    for name in rootfs::names(root, "usr/lib/modules")? {
        let modules = Path::new("usr/lib/modules").join(&name);
        let packaged = rootfs::is_dir(root, modules.join("kernel"))?
            || rootfs::is_file(root, modules.join("modules.builtin"))?;
        let in_boot = format!("boot/vmlinuz-{}", name.to_string_lossy());
        let ours = rootfs::is_file(root, modules.join("vmlinuz"))?
            || rootfs::is_file(root, modules.join("initramfs.img"))?;
        if ours && !packaged && !rootfs::is_file(root, in_boot)? {
            rootfs::remove(root, &modules)?;
        }
    }
    Ok(())
}

fn empty_boot(root: &Dir, report: &dyn Report) -> Result<()> {
    for name in LINKS {
        if rootfs::link_target(root, name)?.is_some() {
            rootfs::remove(root, name)?;
        }
    }
    for name in rootfs::names(root, "boot")? {
        let shown = name.to_string_lossy().into_owned();
        let expected = shown.starts_with("initrd.img") || LINKS.contains(&shown.as_str()) || shown == "grub";
        if rootfs::remove(root, Path::new("boot").join(&name))? && !expected {
            report.note(&format!(
                "/boot/{shown} was removed: the host's /boot is not part of the image."
            ));
        }
    }
    Ok(())
}
