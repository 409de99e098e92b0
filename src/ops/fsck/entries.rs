//! The boot entries: each deployment has one, each leads to a deployment, and what it loads lies on `/boot` as it is in
//! the deployment. With them what the boot loader needs beside.

use super::finding::{Finding, Findings, LostEntry, Remedy, is_denied};
use super::site::Site;
use crate::boot::loader::{self, Entry, Loader};
use crate::deployment::salvage;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::fs::Dir;
use cap_std_ext::dirext::CapStdExtDirExt;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes that are compared at once.
const BUFFER: usize = 1 << 16;

/// Looks at every boot entry; `quick` does not compare kernels.
pub(super) fn check(site: &Site<'_>, quick: bool, findings: &mut Findings) -> Result<()> {
    let boot = site.boot()?;
    let entries = match loader::entries(&boot) {
        Ok(entries) => entries,
        Err(error) if is_denied(&error) => return Err(error),
        Err(error) => {
            let message = format!("The boot entries cannot be read: {error:#}");
            findings.push(Finding::error(
                "boot-entries-unreadable",
                "boot/loader/entries",
                message,
            ));
            return Ok(());
        }
    };
    findings.checked.boot_entries = entries.len() as u64;
    let running = salvage::running();
    let (good, stray): (Vec<_>, Vec<_>) = entries
        .iter()
        .map(|(name, entry)| (name, entry, target(site, entry)))
        .partition(|(.., target)| target.is_some());
    for (name, entry, _) in stray {
        let finding = match resolve(site, entry) {
            Some(folder) => {
                let message = format!(
                    "/{}, the folder of the deployment that the boot entry {name} starts, is missing",
                    folder.display()
                );
                Finding::error("deployment-folder-missing", name, message)
            }
            None => {
                let message = format!("The boot entry {name} leads to no deployment");
                Finding::error("boot-entry-stray", name, message)
            }
        };
        let is_running = entry.ostree().and_then(|word| word.strip_prefix("ostree=")) == running.as_deref();
        findings.push(match good.is_empty() || (is_running && running.is_some()) {
            // What boots at all is not taken away.
            true => finding.hint("deploy again with `apt-ostree rebase REF`"),
            false => finding.remedy(Remedy::DropEntry(name.clone())),
        });
    }
    let mut files = Files {
        site,
        boot: &boot,
        quick,
        seen: BTreeSet::new(),
        findings: &mut *findings,
    };
    for (name, entry, target) in &good {
        if let Some(target) = target {
            files.check(name, entry, target)?;
        }
    }
    lost(site, &boot, findings)?;
    menu(site, &boot, findings)
}

/// Where the argument `ostree=` of an entry leads.
struct Target {
    /// The deployment's folder, below the sysroot.
    folder: PathBuf,
    /// The folder with its kernel, below `/boot`.
    kernel: PathBuf,
}

fn target(site: &Site<'_>, entry: &Entry) -> Option<Target> {
    let folder = resolve(site, entry)?;
    let mut parts = entry.ostree()?.split('/').skip(3);
    let (stateroot, checksum) = (parts.next()?, parts.next()?);
    site.root.is_dir(&folder).then(|| Target {
        folder,
        kernel: Path::new("ostree").join(format!("{stateroot}-{checksum}")),
    })
}

/// Returns the folder of the deployment that an entry starts, below the sysroot, whether it is there or not.
fn resolve(site: &Site<'_>, entry: &Entry) -> Option<PathBuf> {
    let link = entry.ostree()?.strip_prefix("ostree=")?;
    let (_, _, serial, directory) = salvage::resolve(&site.root, link)?;
    Some(directory.with_extension(serial.to_string()))
}

/// Holds what entries load against their deployments; a file that several load is looked at once.
struct Files<'a> {
    site: &'a Site<'a>,
    boot: &'a Dir,
    quick: bool,
    seen: BTreeSet<PathBuf>,
    findings: &'a mut Findings,
}

impl Files<'_> {
    fn check(&mut self, name: &str, entry: &Entry, target: &Target) -> Result<()> {
        let kernel = kernel_folder(self.site, &target.folder)?;
        for (number, path) in [&entry.linux].into_iter().chain(&entry.initrds).enumerate() {
            let below = path.strip_prefix("/boot").unwrap_or(path).trim_start_matches('/');
            let file = PathBuf::from(below);
            let is_overlay = number > 1;
            if !is_overlay && file.parent() != Some(target.kernel.as_path()) {
                let message = format!(
                    "The boot entry {name} loads /boot/{below}, which belongs to another deployment than the one it starts"
                );
                let finding = Finding::error("boot-entry-differs", format!("{name} ({below})"), message);
                let fits = Loader::detect(self.boot)? != Loader::Grub2 && file.parent().is_some();
                self.findings.push(match fits {
                    true => finding.remedy(Remedy::PointEntry {
                        entry: name.to_owned(),
                        path: path.clone(),
                        folder: target.kernel.clone(),
                    }),
                    false => finding
                        .hint("run `grub-mkconfig -o /boot/loader/grub.cfg` after correcting the entry"),
                });
                continue;
            }
            if !self.seen.insert(file.clone()) {
                continue;
            }
            let source = match (number, &kernel) {
                (0, Some(folder)) => Some(folder.join("vmlinuz")),
                (1, Some(folder)) => Some(folder.join("initramfs.img")),
                _ => None,
            };
            let source = source.filter(|source| self.site.root.is_file(source));
            let (code, state) = match (&source, self.boot.is_file(&file)) {
                (_, false) => ("boot-file-missing", "is missing"),
                (Some(source), true)
                    if !self.quick && !is_same(&self.site.root, source, self.boot, &file)? =>
                {
                    ("boot-file-differs", "is not the one of its deployment")
                }
                _ => continue,
            };
            let message = format!("/boot/{below}, which the boot entry {name} loads, {state}");
            let finding = Finding::error(code, below, message);
            self.findings.push(match source {
            Some(from) => finding.remedy(Remedy::CopyBootFile { from, to: file }),
            None => finding.hint(
                "make a new deployment with `apt-ostree initramfs-etc --force-sync` or `apt-ostree upgrade`",
            ),
        });
        }
        Ok(())
    }
}

/// Returns the folder with the kernel of a deployment, below the sysroot.
fn kernel_folder(site: &Site<'_>, deployment: &Path) -> Result<Option<PathBuf>> {
    let modules = deployment.join("usr/lib/modules");
    if !site.root.is_dir(&modules) {
        return Ok(None);
    }
    for entry in site.root.read_dir(&modules)? {
        let folder = modules.join(entry?.file_name());
        if site.root.is_file(folder.join("vmlinuz")) {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

fn is_same(root: &Dir, left: &Path, boot: &Dir, right: &Path) -> Result<bool> {
    let (mut left, mut right) = (root.open(left)?, boot.open(right)?);
    if left.metadata()?.len() != right.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let count = left.read(&mut one)?;
        if count == 0 {
            return Ok(true);
        }
        right.read_exact(&mut other[..count])?;
        if one[..count] != other[..count] {
            return Ok(false);
        }
    }
}

/// Finds deployments that have their link for booting and no boot entry any more.
fn lost(site: &Site<'_>, boot: &Dir, findings: &mut Findings) -> Result<()> {
    // Without libostree nobody knows all deployments.
    if site.refused.is_some() {
        return Ok(());
    }
    for entry in linked(site, boot)? {
        let id = format!("{}-{}.{}", entry.stateroot, entry.commit, entry.serial);
        if site.find(&id).is_some() || !site.root.is_dir(entry.folder()) {
            continue;
        }
        let message = format!("The deployment {id} has no boot entry");
        let finding = Finding::error("boot-entry-missing", id, message);
        findings.push(match site.deployments.iter().any(|found| !found.is_staged) {
            true => finding.remedy(Remedy::RestoreEntry(entry)),
            false => finding.hint("deploy again with `apt-ostree rebase REF`"),
        });
    }
    Ok(())
}

/// Returns what the links for booting lead to that the boot entries use now.
pub(super) fn linked(site: &Site<'_>, boot: &Dir) -> Result<Vec<LostEntry>> {
    let mut found = Vec::new();
    let target = boot
        .read_link("loader")
        .context("Reading the link /boot/loader")?;
    let version = target
        .to_string_lossy()
        .rsplit('.')
        .next()
        .unwrap_or_default()
        .to_owned();
    let top = PathBuf::from(format!("ostree/boot.{version}"));
    for stateroot in names(&site.root, &top)? {
        for bootcsum in names(&site.root, &top.join(&stateroot))? {
            for bootserial in names(&site.root, &top.join(&stateroot).join(&bootcsum))? {
                let link = format!("/ostree/boot.{version}/{stateroot}/{bootcsum}/{bootserial}");
                let number = bootserial.parse();
                if let (Some((stateroot, commit, serial, _)), Ok(bootserial)) =
                    (salvage::resolve(&site.root, &link), number)
                {
                    found.push(LostEntry {
                        stateroot,
                        commit,
                        serial,
                        bootcsum: bootcsum.clone(),
                        bootserial,
                    });
                }
            }
        }
    }
    Ok(found)
}

pub(super) fn names(root: &Dir, folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in root
        .read_dir(folder)
        .with_context(|| format!("Listing {}", folder.display()))?
    {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Checks what turns the entries into a menu.
fn menu(site: &Site<'_>, boot: &Dir, findings: &mut Findings) -> Result<()> {
    let thing = "boot/grub/grub.cfg";
    match Loader::detect(boot)? {
        Loader::Grub2 => {
            if let Err(error) = loader::check_grub_cfg(boot) {
                let finding = Finding::error(
                    "boot-menu-incomplete",
                    "boot/loader/grub.cfg",
                    format!("{error:#}"),
                );
                findings.push(finding.hint("run `grub-mkconfig -o /boot/loader/grub.cfg`"));
            }
        }
        Loader::Grub if !loader::is_current(boot)? => {
            let message = format!("/{thing} is of another version of apt-ostree");
            findings.push(Finding::note("boot-script-old", thing, message).remedy(Remedy::WriteScript));
        }
        Loader::None if had_script(site, boot)? => {
            let message = format!("/{thing}, the script that makes a menu of the boot entries, is missing");
            findings.push(Finding::error("boot-script-missing", thing, message).remedy(Remedy::WriteScript));
        }
        Loader::Grub | Loader::None => {}
    }
    Ok(())
}

/// Returns whether the sysroot was set up for our script: the folder is there, and the repository's settings are ours.
fn had_script(site: &Site<'_>, boot: &Dir) -> Result<bool> {
    let config = site.repo.copy_config();
    let is_ours = config.boolean("sysroot", "bootprefix").unwrap_or(false)
        && config
            .string("sysroot", "bootloader")
            .is_ok_and(|name| name == "none");
    Ok(is_ours && boot.is_dir("grub") && boot.symlink_metadata_optional("grub/grub.cfg")?.is_none())
}
