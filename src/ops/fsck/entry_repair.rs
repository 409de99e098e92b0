//! Boot entries mended: entries that lead nowhere go, lost ones come back, and kernels are copied to `/boot` again.

use super::finding::LostEntry;
use super::site::Site;
use crate::boot::loader::{self, Loader};
use crate::deployment::origin::Origin;
use crate::deployment::staging;
use crate::deployment::sysroot::WriteLock;
use anyhow::{Context, Result};
use cap_std_ext::dirext::CapStdExtDirExt;
use ostree_ext::ostree;
use std::path::{Path, PathBuf};

/// Removes a boot entry, and lets libostree see that something changed.
pub(super) fn drop_entry(site: &Site<'_>, name: &str) -> Result<()> {
    let folder = site.boot()?.open_dir("loader/entries")?;
    folder
        .remove_file(name)
        .with_context(|| format!("Removing the boot entry {name}"))?;
    changed(site)
}

/// Makes an entry load its kernel from the folder of the deployment that it starts.
pub(super) fn point_entry(site: &Site<'_>, entry: &str, path: &str, folder: &Path) -> Result<()> {
    let entries = site.boot()?.open_dir("loader/entries")?;
    let text = entries.read_to_string(entry)?;
    let file = Path::new(path)
        .file_name()
        .context("A path of a boot entry ends in a name")?;
    let prefix = if path.starts_with("/boot/") { "/boot" } else { "" };
    let right = format!("{prefix}/{}", folder.join(file).display());
    entries
        .atomic_write(entry, text.replace(path, &right))
        .with_context(|| format!("Writing the boot entry {entry}"))?;
    changed(site)
}

/// Writes the boot entry of a deployment that has lost it, behind the others. The kernel arguments are those of another
/// deployment, because its own went with the entry.
pub(super) fn restore_entry(lock: &WriteLock<'_>, site: &Site<'_>, lost: &LostEntry) -> Result<()> {
    let mut order = lock.host().deployments();
    let model = order
        .iter()
        .rfind(|deployment| deployment.osname() == lost.stateroot)
        .or(order.last())
        .context("There is no deployment to take kernel arguments from")?;
    let entry = ostree::BootconfigParser::new();
    entry.set("options", &staging::current_arguments(model).to_string());
    let deployment = ostree::Deployment::new(
        i32::try_from(order.len())?,
        &lost.stateroot,
        &lost.commit,
        lost.serial,
        Some(&lost.bootcsum),
        lost.bootserial,
    );
    deployment.set_bootconfig(Some(&entry));
    let mut origin = lost.folder().into_os_string();
    origin.push(".origin");
    if let Ok(text) = site.root.read_to_string(&origin) {
        deployment.set_origin(Some(Origin::parse(&text)?.key_file()));
    }
    order.push(deployment);
    staging::reorder(lock, &order)
}

/// Copies a kernel or an initramfs to `/boot`, in one step.
pub(super) fn copy_file(site: &Site<'_>, from: &Path, to: &Path) -> Result<()> {
    let boot = site.boot()?;
    if let Some(folder) = to.parent() {
        boot.create_dir_all(folder)?;
    }
    let mut source = site.root.open(from)?;
    boot.atomic_replace_with(to, |target| std::io::copy(&mut source, target).map(drop))
        .with_context(|| format!("Writing /boot/{}", to.display()))
}

/// Writes our GRUB script.
pub(super) fn write_script(site: &Site<'_>) -> Result<()> {
    let boot = site.boot()?;
    match Loader::detect(&boot)? {
        Loader::None => Loader::Grub.install(&boot, None),
        _ => loader::refresh(&boot),
    }
}

/// Makes libostree, also in other processes, read the boot entries again: it looks at this folder's time.
pub(super) fn changed(site: &Site<'_>) -> Result<()> {
    let folder = site.root.open_dir("ostree/deploy")?;
    let now = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        },
    };
    rustix::fs::futimens(&folder, &now).context("Touching ostree/deploy")
}

impl LostEntry {
    /// Returns the deployment's folder, below the sysroot.
    pub(super) fn folder(&self) -> PathBuf {
        PathBuf::from(format!(
            "ostree/deploy/{}/deploy/{}.{}",
            self.stateroot, self.commit, self.serial
        ))
    }
}
