//! The static `grub.cfg` in Debian's signed GRUB, without an operating system behind it.

use crate::disk::cache;
use crate::qemu::{self, Accelerator};
use crate::support::write;
use apt_ostree::boot::loader::{BootPlace, Loader};
use apt_ostree::compose::disk::{EfiFiles, Filesystem, Layout, new_uuid};
use cap_std_ext::cap_std::{ambient_authority, fs::Dir};
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn menu_lists_the_entries_newest_first() {
    // Names of libostree 2025 on the root file system, and of 2022 on a /boot of its own.
    for (own, suffix) in [(false, ""), (true, "-debian")] {
        let temporary = tempfile::tempdir().expect("directory");
        let tree = temporary.path().join("tree");
        let boot = if own { tree.clone() } else { tree.join("boot") };
        for number in [1, 2, 9, 10, 11] {
            let sum = "ab".repeat(32);
            let kernel = format!("ostree/debian-{sum}");
            write(boot.join(&kernel).join("vmlinuz-6"), "no kernel");
            write(boot.join(&kernel).join("initramfs-6.img"), "nothing");
            write(
                boot.join(format!("loader.1/entries/ostree-{number}{suffix}.conf")),
                format!(
                    "title Debian {number} (trixie) (ostree:0)\nversion {number}\n\
                     options root=UUID=x ip=[::1] ostree=/ostree/boot.1/debian/{sum}/0\n\
                     linux /boot/{kernel}/vmlinuz-6\ninitrd /boot/{kernel}/initramfs-6.img\naboot /a\nfuture-key 1\n"
                ),
            );
        }
        std::os::unix::fs::symlink("loader.1", boot.join("loader")).expect("link");
        let log = show_menu(temporary.path(), &tree, &boot, own);
        let places: Vec<_> = [11, 10, 9, 2, 1]
            .iter()
            .map(|number| {
                let title = format!("Debian {number} (trixie) (ostree:0)");
                log.find(&title).unwrap_or_else(|| panic!("no {title} in {log}"))
            })
            .collect();
        assert!(places.is_sorted(), "{log}");
    }
}

/// Starts GRUB on a disk with the tree and returns what it writes until its menu is complete.
fn show_menu(folder: &Path, tree: &Path, boot: &Path, own: bool) -> String {
    let place = BootPlace {
        uuid: new_uuid().expect("uuid"),
        own,
    };
    let boot = Dir::open_ambient_dir(boot, ambient_authority()).expect("boot");
    Loader::Grub.install(&boot, Some(&place)).expect("loader");
    let disk = folder.join("disk.raw");
    let size = 1 << 30;
    std::fs::File::create(&disk)
        .and_then(|file| file.set_len(size))
        .expect("disk");
    let layout = Layout::of(size);
    layout.write(&disk).expect("partitions");
    Filesystem::make_ext4_from(&disk, layout.root, &place.uuid, tree).expect("file system");
    let boot_files = Some(cache().join("efi")).filter(|path| path.is_dir());
    let mut efi = EfiFiles::find(boot_files.as_deref(), tree).expect("signed boot loader");
    efi.add_stub(&place);
    efi.write_partition(&disk, layout.esp, folder)
        .expect("EFI system partition");
    std::fs::copy(qemu::VARIABLES, folder.join("vars.fd")).expect("firmware variables");

    let accelerator = Accelerator::find();
    let mut child = qemu::start(folder, &qemu::arguments(folder, accelerator, &[]));
    let start = Instant::now();
    let mut log = String::new();
    while start.elapsed() < accelerator.allow(20) && !log.contains("Debian 1 (trixie)") {
        std::thread::sleep(Duration::from_millis(200));
        let bytes = std::fs::read(folder.join("serial.log")).unwrap_or_default();
        log = String::from_utf8_lossy(&bytes).into_owned();
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    log
}
