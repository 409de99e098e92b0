//! `fsck`: boot entries, what they load, and what makes a menu of them.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::checkup::{assert_clean, mends, tells};
use crate::support::layer::Layer;
use crate::support::machine::Machine;
use crate::support::repo;
use apt_ostree::boot::loader::Loader;
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use std::path::PathBuf;

/// Makes a host with two deployments that have kernels of their own.
fn upgraded() -> Machine {
    let machine = Machine::deployed();
    let kernel = "usr/lib/modules/6.1.0-test/vmlinuz";
    machine.publish("2", [Layer::new().file(kernel, 0o644, "another kernel")]);
    machine.ok(&["upgrade"]);
    machine.ok(&["kargs", "--append=x=1"]);
    machine.ok(&["rollback"]);
    machine.ok(&["rollback"]);
    assert_eq!(machine.versions(), ["2", "2"]);
    machine
}

fn entry(machine: &Machine, number: u32) -> PathBuf {
    let entries = machine.sysroot.path().join("boot/loader/entries");
    entries.join(format!("ostree-{number}-default.conf"))
}

fn field(machine: &Machine, number: u32, key: &str) -> String {
    let text = std::fs::read_to_string(entry(machine, number)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().to_owned()
}

/// Returns the file on `/boot` that an entry loads.
fn loaded(machine: &Machine, key: &str) -> PathBuf {
    let path = field(machine, 2, key);
    machine
        .sysroot
        .path()
        .join("boot")
        .join(path.trim_start_matches('/'))
}

#[test]
fn a_lost_entry_is_written_again_with_the_deployments_etc() {
    let machine = upgraded();
    let root = machine.root(1);
    std::fs::write(root.join("etc/mine"), "mine").unwrap();
    let options = field(&machine, 2, "options");
    mends(&machine, &["boot-entry-missing"], || {
        std::fs::remove_file(entry(&machine, 1)).unwrap();
    });
    assert_eq!(machine.root(1), root);
    assert_eq!(std::fs::read_to_string(root.join("etc/mine")).unwrap(), "mine");
    // What boots next stays what it was, and its arguments are the lost one's now.
    let words = |text: &str| text.split(" ostree=").next().unwrap().to_owned();
    assert_eq!(words(&field(&machine, 2, "options")), words(&options));
    assert_eq!(words(&field(&machine, 1, "options")), words(&options));
    let origin = std::fs::read_to_string(format!("{}.origin", root.display())).unwrap();
    assert!(origin.contains("container-image-reference="), "{origin}");
}

#[test]
fn an_entry_that_leads_nowhere_goes() {
    let machine = upgraded();
    mends(&machine, &["boot-entry-stray", "sysroot-refused"], || {
        let text = std::fs::read_to_string(entry(&machine, 1)).unwrap();
        let text = text
            .replace("/0\n", "/9\n")
            .replace("/1\n", "/9\n")
            .replace("version 1", "version 0");
        std::fs::write(entry(&machine, 0), text).unwrap();
    });
}

#[test]
fn kernels_on_boot_are_those_of_their_deployments() {
    let machine = upgraded();
    mends(&machine, &["boot-file-missing"], || {
        std::fs::remove_file(loaded(&machine, "linux")).unwrap();
        std::fs::remove_file(loaded(&machine, "initrd")).unwrap();
    });
    mends(&machine, &["boot-file-differs"], || {
        std::fs::write(loaded(&machine, "linux"), "a kerneL").unwrap();
    });
    let text = std::fs::read_to_string(loaded(&machine, "linux")).unwrap();
    assert_eq!(text, "another kernel");
}

#[test]
fn an_entry_loads_from_its_own_folder() {
    let machine = upgraded();
    let other = "f".repeat(64);
    mends(&machine, &["boot-entry-differs"], || {
        let text = std::fs::read_to_string(entry(&machine, 2)).unwrap();
        let line = text.lines().find(|line| line.starts_with("linux")).unwrap();
        let (start, rest) = line.split_once("default-").unwrap();
        let wrong = format!("{start}default-{other}{}", &rest[64..]);
        std::fs::write(entry(&machine, 2), text.replace(line, &wrong)).unwrap();
    });
}

#[test]
fn the_script_of_the_menu_is_there_and_current() {
    let machine = upgraded();
    let path = machine.sysroot.path().join("boot");
    let boot = Dir::open_ambient_dir(&path, ambient_authority()).unwrap();
    Loader::Grub
        .configure(&repo::open(&machine.sysroot.repo()))
        .unwrap();
    Loader::Grub.install(&boot, None).unwrap();
    mends(&machine, &["boot-script-missing"], || {
        boot.remove_file("grub/grub.cfg").unwrap();
    });
    mends(&machine, &["boot-script-old"], || {
        let text = boot.read_to_string("grub/grub.cfg").unwrap();
        boot.write("grub/grub.cfg", format!("{text}# old\n")).unwrap();
    });
}

#[test]
fn a_menu_of_grub_mkconfig_lists_every_entry() {
    let machine = upgraded();
    let path = machine.sysroot.path().join("boot");
    let boot = Dir::open_ambient_dir(&path, ambient_authority()).unwrap();
    let place = apt_ostree::boot::loader::BootPlace {
        uuid: "u".to_owned(),
        own: true,
    };
    Loader::Grub2.install(&boot, Some(&place)).unwrap();
    assert_clean(&machine);
    let checkup = tells(&machine, &["boot-menu-incomplete"], || {
        boot.write("loader/grub.cfg", "# empty\n").unwrap();
    });
    let hint = checkup.finding("boot-menu-incomplete")["hint"].as_str().unwrap();
    assert!(hint.contains("grub-mkconfig"), "{hint}");
}
