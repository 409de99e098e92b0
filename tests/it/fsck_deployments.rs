//! `fsck`: the folders of deployments and their origins, also where libostree refuses the sysroot.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::checkup::{Checkup, assert_clean, mends, tells};
use crate::support::machine::{Machine, changed_file};
use crate::support::{run, write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn upgraded() -> Machine {
    let machine = Machine::deployed();
    machine.publish(
        "2",
        [
            changed_file("usr/share/a", "2"),
            changed_file("usr/share/folder/b", "2"),
        ],
    );
    machine.ok(&["upgrade"]);
    machine
}

fn origin(machine: &Machine, index: usize) -> PathBuf {
    let mut name = machine.root(index).into_os_string();
    name.push(".origin");
    PathBuf::from(name)
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn files_of_usr_are_put_back_and_nothing_else_is_touched() {
    let machine = upgraded();
    let root = machine.root(0);
    mends(&machine, &["deployment-file-missing"], || {
        std::fs::remove_file(root.join("usr/share/a")).unwrap();
        std::fs::remove_dir_all(root.join("usr/share/folder")).unwrap();
    });
    assert_eq!(
        std::fs::read_to_string(root.join("usr/share/folder/b")).unwrap(),
        "2"
    );
    mends(&machine, &["deployment-file-differs"], || {
        // Another file in the place of the object's link.
        std::fs::remove_file(root.join("usr/share/a")).unwrap();
        std::fs::write(root.join("usr/share/a"), "3").unwrap();
        std::fs::remove_file(root.join("usr/etc/motd")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("usr/etc/motd")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(root.join("usr/share"), mode).unwrap();
    });
    assert_eq!(std::fs::read_to_string(root.join("usr/share/a")).unwrap(), "2");
    // Of equal size it takes a look at the content, which a copy of the same content passes.
    let path = root.join("usr/share/a");
    std::fs::rename(&path, root.join("usr/share/before")).unwrap();
    std::fs::copy(root.join("usr/share/before"), &path).unwrap();
    std::fs::remove_file(root.join("usr/share/before")).unwrap();
    assert_clean(&machine);
}

#[test]
fn what_somebody_put_into_usr_stays() {
    let machine = upgraded();
    let root = machine.root(0);
    tells(
        &machine,
        &["deployment-file-differs", "deployment-file-extra"],
        || {
            std::fs::write(root.join("usr/share/mine"), "mine").unwrap();
            std::fs::remove_file(root.join("usr/share/a")).unwrap();
            write(root.join("usr/share/a/mine"), "mine");
        },
    );
    assert!(root.join("usr/share/mine").exists() && root.join("usr/share/a/mine").exists());
}

#[test]
fn the_top_folder_is_made_immutable_again() {
    let machine = upgraded();
    mends(&machine, &["deployment-mutable"], || {
        run("chattr", ["-i", &machine.root(1).display().to_string()]);
    });
}

#[test]
fn a_deployment_whose_folder_is_gone_gives_up_its_boot_entry() {
    let machine = upgraded();
    let root = machine.root(1);
    let damage = || {
        run("chattr", ["-i", &root.display().to_string()]);
        std::fs::remove_dir_all(&root).unwrap();
    };
    assert_clean(&machine);
    damage();
    machine.fails(1, &["kargs", "--append=x"]);
    let checkup = Checkup::of(&machine, &[]);
    assert_eq!(checkup.status, 1);
    assert_eq!(checkup.left(), ["deployment-folder-missing", "sysroot-refused"]);
    let checkup = Checkup::of(&machine, &["--repair"]);
    assert_eq!(checkup.status, 0, "{:#}\n{}", checkup.value, checkup.errors);
    assert_eq!(machine.versions(), ["2"]);
    assert_clean(&machine);
    machine.ok(&["kargs", "--append=x"]);
}

#[test]
fn the_last_boot_entry_is_never_removed() {
    let machine = Machine::deployed();
    let root = machine.root(0);
    run("chattr", ["-i", &root.display().to_string()]);
    std::fs::remove_dir_all(&root).unwrap();
    let before = machine.state();
    let checkup = Checkup::of(&machine, &["--repair"]);
    assert_eq!(checkup.status, 1);
    assert!(
        checkup.left().contains(&"deployment-folder-missing"),
        "{:#}",
        checkup.value
    );
    assert_eq!(machine.state(), before);
}

#[test]
fn a_damaged_origin_is_set_aside() {
    let machine = upgraded();
    let origin = origin(&machine, 0);
    let path = origin.display().to_string();
    assert_clean(&machine);
    std::fs::write(&origin, "[origin\nno key file").unwrap();
    assert_eq!(
        Checkup::of(&machine, &[]).left(),
        ["origin-unreadable", "sysroot-refused"]
    );
    let checkup = Checkup::of(&machine, &["--repair"]);
    assert_eq!(checkup.status, 1);
    // Nobody knows what it followed; the next step says how to tell.
    assert_eq!(checkup.left(), ["origin-missing"]);
    let hint = checkup.finding("origin-missing")["hint"].as_str().unwrap();
    assert!(hint.contains("apt-ostree rebase"), "{hint}");
    let kept = std::fs::read_to_string(format!("{path}.damaged-0")).unwrap();
    assert_eq!(kept, "[origin\nno key file");
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    machine.ok(&["cleanup", "--rollback"]);
    assert_clean(&machine);
}

#[test]
fn origins_are_read_to_their_last_word() {
    let machine = upgraded();
    let origin = origin(&machine, 0);
    let text = std::fs::read_to_string(&origin).unwrap();
    for (code, change) in [
        ("origin-reference", "container-image-reference=nonsense\n"),
        (
            "origin-requests",
            "container-image-reference=@\n[packages]\nrequested=--force;\n",
        ),
        (
            "local-package-missing",
            "container-image-reference=@\n[packages]\nrequested-local=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:x1_1_all;\n",
        ),
        (
            "answers-missing",
            "container-image-reference=@\n[apt-ostree]\ndebconf=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n",
        ),
    ] {
        let reference = text.split_once('=').unwrap().1.trim();
        tells(&machine, &[code], || {
            std::fs::write(&origin, format!("[origin]\n{}", change.replace('@', reference))).unwrap();
        });
        std::fs::write(&origin, &text).unwrap();
    }
    tells(&machine, &["origin-missing"], || {
        std::fs::remove_file(&origin).unwrap()
    });
    std::fs::write(&origin, &text).unwrap();
    replace(&origin, "[origin]", "[mine]\nkept=1\n[origin]");
    assert_clean(&machine);
}
