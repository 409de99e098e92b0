//! `initramfs-etc`: files of the host's `/etc` in an archive of their own behind the initramfs.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::machine::{Machine, changed_file};
use apt_ostree::host::runner::Cmd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

/// Returns the archives that the first boot entry loads, the initramfs first.
fn initrds(machine: &Machine) -> Vec<PathBuf> {
    let boot = machine.sysroot.path().join("boot");
    let entries = std::fs::read_dir(boot.join("loader/entries")).unwrap();
    let newest = entries.map(|entry| entry.unwrap().path()).max().unwrap();
    let text = std::fs::read_to_string(newest).unwrap();
    let paths = text.lines().filter_map(|line| line.strip_prefix("initrd "));
    paths
        .map(|path| boot.join(path.trim_start_matches("/boot").trim_start_matches('/')))
        .collect()
}

fn options(machine: &Machine) -> String {
    let boot = machine.sysroot.path().join("boot/loader/entries");
    let newest = std::fs::read_dir(boot)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max()
        .unwrap();
    let text = std::fs::read_to_string(newest).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix("options "))
        .unwrap()
        .to_owned()
}

/// Unpacks an archive with cpio and returns the folder.
fn unpack(archive: &PathBuf) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    Cmd::new("cpio")
        .args(["--extract", "--quiet", "--preserve-modification-time"])
        .input(std::fs::read(archive).unwrap())
        .current_dir(folder.path())
        .run()
        .unwrap();
    folder
}

#[test]
fn tracked_files_are_loaded_behind_the_initramfs_and_made_again_at_each_deployment() {
    let machine = Machine::deployed();
    assert_eq!(machine.ok(&["initramfs-etc"]), "No files are tracked.\n");
    assert_eq!(initrds(&machine).len(), 1);
    let etc = machine.root(0).join("etc");
    std::fs::create_dir(etc.join("secret")).unwrap();
    std::fs::write(etc.join("secret/key"), "one").unwrap();
    std::fs::set_permissions(etc.join("secret/key"), PermissionsExt::from_mode(0o600)).unwrap();
    symlink("secret/key", etc.join("link")).unwrap();

    machine.ok(&["initramfs-etc", "--track=/etc/secret/key", "--track=/etc/link"]);
    assert_eq!(
        machine.ok(&["initramfs-etc"]),
        "Tracked files:\n  /etc/link\n  /etc/secret/key\n"
    );
    let found = initrds(&machine);
    assert_eq!(found.len(), 2, "{found:?}");
    let name = found[1].file_stem().unwrap().to_str().unwrap();
    assert!(
        options(&machine).contains(&format!("apt-ostree.initrd={name} ")),
        "{}",
        options(&machine)
    );
    assert!(!machine.ok(&["kargs"]).contains("apt-ostree.initrd"));
    let content = unpack(&found[1]);
    let key = content.path().join("etc/secret/key");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "one");
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert_eq!(
        std::fs::read_link(content.path().join("etc/link")).unwrap(),
        PathBuf::from("secret/key")
    );
    assert!(std::fs::metadata(&found[0]).unwrap().is_file());

    // Nothing is made again for the same list, but for the asking; equal files give an equal archive.
    let unchanged = |arguments: &[&str]| {
        let arguments = [&["initramfs-etc", "--unchanged-exit-77"], arguments].concat();
        machine.run(&arguments).status.code() == Some(77)
    };
    assert!(unchanged(&["--track=/etc/link"]));
    assert!(!unchanged(&["--force-sync"]));
    assert_eq!(initrds(&machine), found);

    // An upgrade takes the file as it is then, and other verbs keep the list.
    std::fs::write(machine.root(0).join("etc/secret/key"), "two").unwrap();
    machine.publish("2", [changed_file("usr/bin/tool", "2\n")]);
    machine.ok(&["upgrade"]);
    let later = initrds(&machine);
    assert_ne!(later[1], found[1]);
    assert_eq!(
        std::fs::read_to_string(unpack(&later[1]).path().join("etc/secret/key")).unwrap(),
        "two"
    );
    machine.ok(&["kargs", "--append=mine=1"]);
    assert_eq!(initrds(&machine)[1], later[1]);
    assert_eq!(options(&machine).matches("apt-ostree.initrd=").count(), 1);

    machine.ok(&["initramfs-etc", "--untrack=/etc/link"]);
    assert_eq!(
        machine.ok(&["initramfs-etc"]),
        "Tracked files:\n  /etc/secret/key\n"
    );
    machine.ok(&["initramfs-etc", "--untrack-all"]);
    assert_eq!(initrds(&machine).len(), 1);
    assert!(!options(&machine).contains("apt-ostree.initrd"));
    assert!(unchanged(&["--untrack-all"]));
    machine.assert_sound();
}

#[test]
fn only_files_of_etc_that_are_there_are_taken() {
    let machine = Machine::deployed();
    let before = machine.state();
    for bad in ["/usr/bin/tool", "etc/motd", "/etc/../usr/x", "/etc/"] {
        let errors = machine.fails(2, &["initramfs-etc", &format!("--track={bad}")]);
        assert!(errors.contains("only files below /etc can"), "{errors}");
    }
    let errors = machine.fails(1, &["initramfs-etc", "--track=/etc/none"]);
    assert!(
        errors.contains("it is missing") && errors.contains("--untrack=/etc/none"),
        "{errors}"
    );
    std::fs::create_dir(machine.root(0).join("etc/folder")).unwrap();
    let errors = machine.fails(1, &["initramfs-etc", "--track=/etc/folder"]);
    assert!(errors.contains("neither a file nor a link"), "{errors}");
    let errors = machine.fails(1, &["initramfs-etc", "--untrack=/etc/motd"]);
    assert!(errors.contains("is not tracked"), "{errors}");
    machine.fails(2, &["initramfs-etc", "--untrack=/etc/motd", "--untrack-all"]);
    assert_eq!(machine.state(), before);
}

#[test]
fn an_initramfs_made_here_excludes_it() {
    let machine = Machine::deployed();
    let origin = machine.root(0).with_extension("0.origin");
    let text = std::fs::read_to_string(&origin).unwrap();
    std::fs::write(
        &origin,
        format!("{text}\n[apt-ostree]\nregenerate-initramfs=true\n"),
    )
    .unwrap();
    let errors = machine.fails(1, &["initramfs-etc", "--track=/etc/motd"]);
    assert!(errors.contains("initramfs --disable"), "{errors}");
}

#[test]
fn no_initramfs_is_made_here_while_files_are_tracked() {
    let machine = Machine::deployed();
    std::fs::write(machine.root(0).join("etc/motd"), "hello").unwrap();
    machine.ok(&["initramfs-etc", "--track=/etc/motd"]);
    let before = machine.state();
    let errors = machine.fails(1, &["initramfs", "--enable"]);
    assert!(errors.contains("initramfs-etc --untrack-all"), "{errors}");
    assert_eq!(machine.state(), before);
    machine.ok(&["initramfs", "--disable"]);
}
