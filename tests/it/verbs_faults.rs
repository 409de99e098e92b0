//! Faults during the verbs: killed at each checkpoint, full disk, two writers, signals. Each leaves what boots as
//! it was, `ostree fsck` clean, and a correct rerun succeeds.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::layer::Layer;
use crate::support::machine::{Machine, changed_file};
use crate::support::mounted::Mounted;
use crate::support::paused;
use std::path::Path;
use std::time::Duration;

/// Every point at which the way from `upgrade` to a boot entry can be cut.
const CHECKPOINTS: [&str; 6] = [
    "import-layer-done",
    "import-before-publish",
    "import-published",
    "publish-before",
    "publish-deployed",
    "publish-after",
];

/// Returns the part of the state that decides what boots.
fn boots(machine: &Machine) -> Vec<(String, String)> {
    machine
        .state()
        .into_iter()
        .filter(|(name, _)| name.contains("loader/entries"))
        .collect()
}

#[test]
fn killed_at_each_checkpoint_and_run_again() {
    for checkpoint in CHECKPOINTS {
        let machine = Machine::deployed();
        machine.publish(
            "2",
            [
                changed_file("usr/share/a", "2"),
                Layer::new().noise("usr/share/noise", 1 << 16),
            ],
        );
        let before = boots(&machine);
        let output = machine
            .command(&["upgrade"])
            .env("APT_OSTREE_CHECKPOINT", checkpoint)
            .output()
            .unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&output.status),
            Some(9),
            "{checkpoint} was not reached: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        machine.assert_sound();
        if checkpoint == "publish-after" {
            assert_eq!(machine.versions(), ["2", "1"], "{checkpoint}");
        } else {
            assert_eq!(boots(&machine), before, "{checkpoint}");
            assert_eq!(machine.versions(), ["1"], "{checkpoint}");
        }
        machine.ok(&["upgrade"]);
        assert_eq!(machine.versions(), ["2", "1"], "{checkpoint}");
        machine.assert_sound();
        let leftovers: Vec<_> =
            std::fs::read_dir(machine.sysroot.path().join("ostree/deploy/default/deploy"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .filter(|name| !name.ends_with(".origin"))
                .collect();
        assert_eq!(leftovers.len(), 2, "{checkpoint}: {leftovers:?}");
    }
}

#[test]
fn signals_end_an_import_without_a_trace() {
    for signal in ["INT", "TERM"] {
        let machine = Machine::deployed();
        machine.publish("2", [Layer::new().noise("usr/share/noise", 1 << 16)]);
        let before = boots(&machine);
        let mut child = spawn(&machine, &["upgrade"], "import-before-publish:pause");
        paused::wait_until_parked(&mut child);
        paused::send(signal, &child);
        let status = child.wait().unwrap();
        assert!(!status.success(), "{signal}");
        assert_eq!(boots(&machine), before, "{signal}");
        machine.assert_sound();
        machine.ok(&["upgrade"]);
        assert_eq!(machine.versions(), ["2", "1"]);
    }
}

#[test]
fn a_second_writer_is_told_who_writes() {
    let machine = Machine::deployed();
    machine.publish("2", []);
    let mut child = spawn(&machine, &["upgrade"], "import-before-publish:pause");
    paused::wait_until_parked(&mut child);
    let errors = machine.fails(1, &["--no-wait", "kargs", "--append=x"]);
    assert!(
        errors.contains(&format!("process {}", child.id())) && errors.contains("upgrade"),
        "{errors}"
    );
    // Reading goes on meanwhile, and says who writes.
    let out = machine.ok(&["status"]);
    assert!(out.contains("State: busy") && out.contains("Version: 1"), "{out}");
    // A writer that waits goes on as soon as the first one ends.
    let mut second = spawn(&machine, &["kargs", "--append=x"], "none");
    std::thread::sleep(Duration::from_millis(600));
    assert!(second.try_wait().unwrap().is_none(), "the second writer waits");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(second.wait().unwrap().success());
    assert_eq!(machine.ok(&["kargs"]).trim(), "x");
    machine.assert_sound();
}

#[test]
fn a_full_disk_changes_nothing() {
    let machine = Machine::new();
    let _mount = Mounted::tmpfs(machine.sysroot.path(), "size=24m,nr_inodes=4000");
    machine.init_again();
    machine.publish("1", []);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    let before = boots(&machine);
    // More than fits: refused before a byte of a layer moves, with the figures.
    machine.publish("2", [Layer::new().noise("usr/share/noise", 40 << 20)]);
    let errors = machine.fails(1, &["upgrade"]);
    assert!(errors.contains("space"), "{errors}");
    assert_eq!(boots(&machine), before);
    machine.assert_sound();
    // Fits packed, and not unpacked: found while importing.
    machine.publish(
        "3",
        [Layer::new().file("usr/share/zeros", 0o644, vec![0; 40 << 20])],
    );
    let errors = machine.fails(1, &["upgrade"]);
    assert!(errors.contains("space"), "{errors}");
    assert_eq!(boots(&machine), before);
    machine.assert_sound();
    // A smaller image fits after that.
    machine.publish("4", [changed_file("usr/share/a", "4")]);
    machine.ok(&["upgrade"]);
    assert_eq!(machine.versions(), ["4", "1"]);
    machine.assert_sound();
    // No room left for the deployment of an image that is stored already.
    machine.publish("5", [changed_file("usr/share/a", "5")]);
    machine.ok(&["upgrade", "--download-only"]);
    let before = boots(&machine);
    let filler = fill(machine.sysroot.path());
    let errors = machine.fails(1, &["upgrade", "--cache-only"]);
    assert!(errors.contains("error: "), "{errors}");
    assert_eq!(boots(&machine), before);
    std::fs::remove_dir_all(filler).unwrap();
    machine.assert_sound();
    machine.ok(&["upgrade", "--cache-only"]);
    assert_eq!(machine.versions()[0], "5");
    machine.assert_sound();
}

#[test]
fn a_read_only_sysroot_is_named() {
    let machine = Machine::new();
    let mount = Mounted::tmpfs(machine.sysroot.path(), "size=64m");
    machine.init_again();
    machine.publish("1", []);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    let before = machine.state();
    mount.remount("ro");
    let errors = machine.fails(1, &["kargs", "--append=x"]);
    assert!(
        errors.contains("read-only file system") && errors.contains("hint: mount it writable"),
        "{errors}"
    );
    assert_eq!(machine.versions(), ["1"], "reading works");
    mount.remount("rw");
    assert_eq!(machine.state(), before);
    machine.ok(&["kargs", "--append=x"]);
}

#[test]
fn labels_and_architecture_are_checked_before_layers_move() {
    use crate::support::image::Image;
    use crate::support::machine::unlabelled;
    let machine = Machine::deployed();
    let before = machine.state();
    let cases = [
        (unlabelled("2"), "containers.bootc"),
        (Image::bootable("2").architecture("s390x"), "s390x"),
    ];
    for (image, expected) in cases {
        machine.publish_image("2", image, []);
        let errors = machine.fails(1, &["upgrade"]);
        assert!(errors.contains(expected) && errors.contains("hint:"), "{errors}");
        assert_eq!(machine.state(), before);
        machine.assert_sound();
    }
    machine.publish("3", []);
    machine.ok(&["upgrade"]);
}

/// Uses up all inodes below a directory and returns the folder that holds them.
fn fill(root: &Path) -> std::path::PathBuf {
    let folder = root.join("filler");
    std::fs::create_dir(&folder).unwrap();
    for number in 0.. {
        if std::fs::write(folder.join(number.to_string()), "").is_err() {
            break;
        }
    }
    folder
}

fn spawn(machine: &Machine, arguments: &[&str], checkpoint: &str) -> std::process::Child {
    paused::spawn(&machine.home, machine.sysroot.path(), arguments, checkpoint)
}

#[test]
fn the_lock_is_released_when_the_holder_dies() {
    let machine = Machine::deployed();
    let mut child = spawn(&machine, &["kargs", "--append=y"], "publish-before:pause");
    paused::wait_until_parked(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    machine.ok(&["--no-wait", "kargs", "--append=x"]);
    assert_eq!(machine.ok(&["kargs"]).trim(), "x");
}
