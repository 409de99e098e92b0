//! libostree's own GRUB backend: what it leaves undone and what it leaves unchecked.
//!
//! It runs `grub-mkconfig` in the booted root, whose `15_ostree` asks libostree for the entries. Outside a booted
//! host that fails, so the first `grub.cfg` is written here. In a booted host it can succeed and write a menu
//! without entries: `15_ostree` exits 0 where `/etc/default/grub` is missing.

use super::BootPlace;
use super::entry::{check_safe, entries};
use crate::fault::{Fault, Kind};
use anyhow::{Context, Result};
use cap_std_ext::cap_std::fs::{Dir, PermissionsExt};
use cap_std_ext::dirext::CapStdExtDirExt;
use fn_error_context::context;
use std::path::PathBuf;

/// What GRUB does before the first menu entry.
const HEADER: &str = "\
# Written by apt-ostree for the first deployment; grub-mkconfig writes the next ones.
if serial --unit=0 --speed=115200; then
  terminal_input console serial
  terminal_output console serial
fi
set default=0
set timeout=2
";

/// The key of the repository's configuration; a libostree that knows it holds its name.
const BOOT_PREFIX: &[u8] = b"bootprefix";

/// Returns the first `grub.cfg` of a host that uses libostree's backend, for the entries now in `boot`.
///
/// GRUB reads paths from the top of the file system that holds `/boot`, while the paths in the entries begin with
/// `/boot` or do not, depending on libostree's version; what `place` says is written.
#[context("Writing the first grub.cfg")]
pub fn first_grub_cfg(boot: &Dir, place: &BootPlace) -> Result<String> {
    let BootPlace { uuid, own } = place;
    let mut text = HEADER.to_owned();
    check_safe(boot)?;
    for (_, entry) in entries(boot)? {
        text += &format!(
            "menuentry '{}' {{\n  search --no-floppy --fs-uuid --set=root {uuid}\n  linux {} {}\n",
            entry.title,
            from_top(&entry.linux, *own),
            entry.options
        );
        let initrds: Vec<String> = entry.initrds.iter().map(|path| from_top(path, *own)).collect();
        if !initrds.is_empty() {
            text += &format!("  initrd {}\n", initrds.join(" "));
        }
        text += "}\n";
    }
    Ok(text)
}

/// Checks that `loader/grub.cfg` holds a menu entry for each boot entry in `boot`.
///
/// Called after libostree wrote both; the deployment that is missing would never be booted.
#[context("Checking grub.cfg")]
pub fn check_grub_cfg(boot: &Dir) -> Result<()> {
    let menu = boot
        .read_to_string("loader/grub.cfg")
        .context("Reading loader/grub.cfg")?;
    let started: Vec<_> = menu
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with("linux"))
        .flat_map(|line| line.split_whitespace().filter(|word| word.starts_with("ostree=")))
        .collect();
    for (name, entry) in entries(boot)? {
        if !entry.ostree().is_some_and(|wanted| started.contains(&wanted)) {
            return Err(Fault::new(
                Kind::Invalid,
                format!("The boot menu /boot/loader/grub.cfg lacks the boot entry `{name}`"),
            )
            .hint("see that /etc/default/grub exists and /etc/grub.d/15_ostree is executable, then run `grub-mkconfig -o /boot/loader/grub.cfg`")
            .into());
        }
    }
    Ok(())
}

/// Checks that the booted root can write a boot menu at shutdown, when nobody could act on a failure.
///
/// `root` is the booted root directory: libostree runs `grub-mkconfig` there, not in the new deployment.
#[context("Checking the boot menu generator")]
pub fn check_ready(root: &Dir) -> Result<()> {
    let hint = "install grub-common and ostree-boot in the image and keep both files in /etc, or provision with `--bootloader grub`";
    let fault = |message: &str| Fault::new(Kind::Unsupported, message.to_owned()).hint(hint);
    if !root.try_exists("usr/sbin/grub-mkconfig")? {
        return Err(fault("The boot menu cannot be written: /usr/sbin/grub-mkconfig is missing").into());
    }
    if !root.try_exists("etc/default/grub")? {
        return Err(fault("The boot menu would be empty: /etc/default/grub is missing").into());
    }
    let generator = root.metadata_optional(below_root(root, "etc/grub.d/15_ostree")?)?;
    if generator.is_none_or(|found| found.permissions().mode() & 0o111 == 0) {
        return Err(fault(
            "The boot menu would be empty: /etc/grub.d/15_ostree is missing or not executable",
        )
        .into());
    }
    Ok(())
}

/// Returns where `path` leads when it is a link, taken below `root`: Debian's link to `15_ostree` is absolute.
fn below_root(root: &Dir, path: &str) -> Result<PathBuf> {
    match root.symlink_metadata_optional(path)? {
        Some(found) if found.is_symlink() => {
            let target = root.read_link_contents(path)?;
            Ok(match target.strip_prefix("/") {
                Ok(below) => below.to_owned(),
                Err(_) => path.into(),
            })
        }
        _ => Ok(path.into()),
    }
}

/// Checks that the libostree in `root` can write boot entries for a `/boot` on the root file system.
///
/// libostree before 2023 always writes paths that begin below `/boot`, which GRUB then looks for in the wrong place.
#[context("Checking libostree")]
pub fn check_boot_prefix(root: &Dir) -> Result<()> {
    let folder = root.open_dir(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))?;
    let library = folder
        .read("libostree-1.so.1")
        .context("Reading libostree-1.so.1")?;
    if library
        .windows(BOOT_PREFIX.len())
        .any(|window| window == BOOT_PREFIX)
    {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Unsupported,
        "The image's libostree writes boot entries that GRUB cannot read from a /boot on the root file system",
    )
    .hint("use `--bootloader grub`, or give /boot a file system of its own")
    .into())
}

/// Returns `path` of a boot entry as it is from the top of the file system with `/boot`.
fn from_top(path: &str, own: bool) -> String {
    let below = path.strip_prefix("/boot").unwrap_or(path);
    if own {
        below.to_owned()
    } else {
        format!("/boot{below}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std_ext::cap_std::ambient_authority;

    const ENTRY: &str = "title Debian (ostree:0)\nversion 2\noptions rw ostree=/ostree/boot.0/debian/ab/0\n\
                         linux /boot/ostree/debian-ab/vmlinuz\ninitrd /boot/ostree/debian-ab/initramfs.img\naboot x\n";

    fn boot(entries: &[(&str, &str)]) -> (tempfile::TempDir, Dir) {
        let temporary = tempfile::tempdir().unwrap();
        let boot = Dir::open_ambient_dir(temporary.path(), ambient_authority()).unwrap();
        boot.create_dir_all("loader/entries").unwrap();
        for (name, text) in entries {
            boot.write(format!("loader/entries/{name}"), text).unwrap();
        }
        (temporary, boot)
    }

    fn place(own: bool) -> BootPlace {
        BootPlace {
            uuid: "uuid".to_owned(),
            own,
        }
    }

    #[test]
    fn paths_begin_where_grub_begins() {
        let old = ENTRY.replace("/boot/ostree/debian-ab/vm", "/ostree/debian-ab/vm");
        let (_temporary, boot) = boot(&[("ostree-1-debian.conf", &old)]);
        let shared = first_grub_cfg(&boot, &place(false)).unwrap();
        assert!(
            shared.contains("linux /boot/ostree/debian-ab/vmlinuz rw"),
            "{shared}"
        );
        let own = first_grub_cfg(&boot, &place(true)).unwrap();
        assert!(own.contains("initrd /ostree/debian-ab/initramfs.img\n"), "{own}");
    }

    #[test]
    fn all_archives_are_loaded_at_once() {
        let entry = ENTRY.replace("aboot x", "initrd /boot/ostree/initramfs-overlays/cd.img");
        let (_temporary, boot) = boot(&[("ostree-1.conf", &entry)]);
        let menu = first_grub_cfg(&boot, &place(true)).unwrap();
        assert!(
            menu.contains("initrd /ostree/debian-ab/initramfs.img /ostree/initramfs-overlays/cd.img\n"),
            "{menu}"
        );
    }

    #[test]
    fn first_menu_holds_the_entries_newest_first() {
        let older = ENTRY.replace("boot.0/debian/ab/0", "boot.0/debian/ab/1");
        let (_temporary, boot) = boot(&[("ostree-2.conf", &older), ("ostree-10.conf", ENTRY)]);
        let menu = first_grub_cfg(&boot, &place(false)).unwrap();
        let newest = menu.find("debian/ab/0").unwrap();
        assert!(newest < menu.find("debian/ab/1").unwrap(), "{menu}");
        boot.write("loader/grub.cfg", menu).unwrap();
        check_grub_cfg(&boot).unwrap();
    }

    #[test]
    fn a_menu_without_the_entry_is_a_fault() {
        let (_temporary, boot) = boot(&[("ostree-1-debian.conf", ENTRY)]);
        boot.write(
            "loader/grub.cfg",
            "menuentry 'x' {\n linux /v ostree=/ostree/boot.1/debian/ab/0\n}\n",
        )
        .unwrap();
        let error = check_grub_cfg(&boot).unwrap_err();
        assert_eq!(Fault::find(&error).map(|fault| fault.kind), Some(Kind::Invalid));
    }

    #[test]
    fn script_in_a_title_is_refused() {
        let (_temporary, boot) = boot(&[("ostree-1.conf", &ENTRY.replace("Debian (", "Debian's ("))]);
        assert!(Fault::find(&first_grub_cfg(&boot, &place(false)).unwrap_err()).is_some());
    }

    #[test]
    fn generator_needs_its_files() {
        let temporary = tempfile::tempdir().unwrap();
        let root = Dir::open_ambient_dir(temporary.path(), ambient_authority()).unwrap();
        for directory in ["usr/sbin", "etc/default", "etc/grub.d"] {
            root.create_dir_all(directory).unwrap();
        }
        for file in [
            "usr/sbin/grub-mkconfig",
            "etc/default/grub",
            "etc/grub.d/15_ostree",
        ] {
            assert!(check_ready(&root).is_err(), "{file}");
            root.write(file, "").unwrap();
        }
        assert!(check_ready(&root).is_err(), "not executable");
        root.set_permissions("etc/grub.d/15_ostree", PermissionsExt::from_mode(0o755))
            .unwrap();
        check_ready(&root).unwrap();

        // As Debian ships it.
        root.rename("etc/grub.d/15_ostree", &root, "usr/15_ostree")
            .unwrap();
        assert!(check_ready(&root).is_err(), "gone");
        root.symlink_contents("/usr/15_ostree", "etc/grub.d/15_ostree")
            .unwrap();
        check_ready(&root).unwrap();
    }
}
