//! `fsck`: objects and refs of the repository, leftovers, and what a caller without rights is told.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::checkup::{Checkup, assert_clean, mends, tells};
use crate::support::machine::{Machine, changed_file};
use crate::support::repo;
use apt_ostree::host::runner::Cmd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Makes a host with two deployments.
fn upgraded() -> Machine {
    let machine = Machine::deployed();
    machine.publish("2", [changed_file("usr/share/a", "2")]);
    machine.ok(&["upgrade"]);
    machine
}

fn commit(machine: &Machine, index: usize) -> String {
    let status = machine.status();
    status["deployments"][index]["checksum"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Returns the object of a file of the first deployment.
fn object(machine: &Machine, path: &str) -> PathBuf {
    let line = repo::ostree(&machine.sysroot.repo(), &["ls", "-C", &commit(machine, 0), path]);
    let name = line.split_whitespace().find(|word| word.len() == 64).unwrap();
    place(machine, name, "file")
}

fn place(machine: &Machine, name: &str, extension: &str) -> PathBuf {
    let objects = machine.sysroot.repo().join("objects");
    objects
        .join(&name[..2])
        .join(format!("{}.{extension}", &name[2..]))
}

fn set_ref(machine: &Machine, name: &str, commit: &str) {
    crate::support::write(
        machine.sysroot.repo().join("refs/heads").join(name),
        format!("{commit}\n"),
    );
}

fn delete_refs(machine: &Machine, prefix: &str) {
    repo::ostree(&machine.sysroot.repo(), &["refs", "--delete", prefix]);
}

#[test]
fn a_sound_host_has_no_finding() {
    let machine = upgraded();
    assert_clean(&machine);
    let text = machine.ok(&["fsck"]);
    assert!(text.contains("The sysroot is sound."), "{text}");
    assert!(text.contains("2 deployments"), "{text}");
    assert_eq!(Checkup::of(&machine, &["--quick"]).status, 0);
    assert_eq!(Checkup::of(&machine, &["--repair"]).status, 0);
    assert!(machine.ok(&["--validate"]).contains("The sysroot is sound."));
    machine.ok(&["kargs", "--append=x"]);
    machine.ok(&["rollback"]);
    assert_clean(&machine);
}

#[test]
fn a_missing_object_comes_back_from_a_deployment() {
    let mut machine = upgraded();
    machine.registry.stop();
    mends(&machine, &["object-missing"], || {
        std::fs::remove_file(object(&machine, "/usr/share/a")).unwrap();
    });
}

#[test]
fn a_damaged_object_is_fetched_again() {
    let machine = upgraded();
    // The deployment's file is the same one, so it is damaged with the object.
    let damage = || std::fs::write(object(&machine, "/usr/share/a"), "x").unwrap();
    mends(&machine, &["object-corrupt"], damage);
    let text = std::fs::read_to_string(machine.root(0).join("usr/share/a")).unwrap();
    assert_eq!(text, "2");
    // What `--quick` does not read, it does not find.
    damage();
    assert_eq!(Checkup::of(&machine, &["--quick"]).status, 0);
    let text = machine.run(&["fsck"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("error object-corrupt: The object ")
            && text.contains("`/usr/share/a` of the deployment default-")
            && text.contains("`apt-ostree fsck --repair` mends 1 of them."),
        "{text}"
    );
}

#[test]
fn damaged_permissions_and_directories_are_found_too() {
    let machine = upgraded();
    mends(&machine, &["object-corrupt"], || {
        let object = object(&machine, "/usr/share/a");
        std::fs::set_permissions(object, std::fs::Permissions::from_mode(0o4755)).unwrap();
    });
    mends(&machine, &["object-corrupt"], || {
        let line = repo::ostree(
            &machine.sysroot.repo(),
            &["ls", "-d", "-C", &commit(&machine, 0), "/usr/share"],
        );
        let names: Vec<&str> = line.split_whitespace().filter(|word| word.len() == 64).collect();
        std::fs::write(place(&machine, names[0], "dirtree"), "x").unwrap();
    });
}

#[test]
fn without_the_registry_a_damaged_object_stays_missing_until_the_next_upgrade() {
    let machine = upgraded();
    std::fs::write(object(&machine, "/usr/share/a"), "x").unwrap();
    machine.home.registries("");
    let checkup = Checkup::of(&machine, &["--repair"]);
    assert_eq!(checkup.status, 1);
    assert_eq!(
        checkup.left(),
        ["commit-partial", "deployment-file-differs", "object-missing"]
    );
    assert!(checkup.errors.contains("again"), "{}", checkup.errors);
    machine.home.insecure(&[&machine.registry.location()]);
    assert!(machine.ok(&["upgrade"]).contains("No upgrade available."));
    machine.assert_sound();
    mend_rest(&machine, "deployment-file-differs");
}

#[test]
fn what_ostree_fsck_deleted_is_fetched_by_the_next_upgrade() {
    let machine = upgraded();
    std::fs::write(object(&machine, "/usr/share/a"), "x").unwrap();
    let output = Cmd::new("ostree")
        .arg(format!("--repo={}", machine.sysroot.repo().display()))
        .args(["fsck", "--all", "--delete"])
        .output()
        .unwrap();
    assert!(!output.status.success(), "it found nothing");
    machine.ok(&["upgrade"]);
    mend_rest(&machine, "deployment-file-differs");
}

/// Fails the test unless this is mended, whatever else there is besides.
fn mend_rest(machine: &Machine, code: &str) {
    let checkup = Checkup::of(machine, &["--repair"]);
    assert!(checkup.mended().contains(&code), "{:#}", checkup.value);
    assert_eq!(checkup.status, 0, "{:#}", checkup.value);
    assert_clean(machine);
}

#[test]
fn refs_that_lead_nowhere_go() {
    let machine = upgraded();
    mends(&machine, &["ref-dangling"], || {
        set_ref(&machine, "mine/branch", &"0".repeat(64));
    });
}

#[test]
fn a_lost_layer_is_fetched_again() {
    let machine = upgraded();
    mends(&machine, &["layer-missing"], || {
        let refs = repo::refs(&machine.sysroot.repo());
        let layer = refs.keys().find(|name| name.contains("container/blob")).unwrap();
        delete_refs(&machine, layer);
    });
    // Its commit alone is gone.
    mends(&machine, &["ref-dangling"], || {
        let refs = repo::refs(&machine.sysroot.repo());
        let (_, layer) = refs
            .iter()
            .find(|(name, _)| name.contains("container/blob"))
            .unwrap();
        std::fs::remove_file(place(&machine, layer, "commit")).unwrap();
    });
}

#[test]
fn deployments_are_held_and_nothing_else() {
    let machine = upgraded();
    mends(&machine, &["deployment-not-held"], || {
        delete_refs(&machine, "ostree/container/baseimage");
        for version in ["ostree/0", "ostree/1"] {
            delete_refs(&machine, version);
        }
    });
    mends(&machine, &["ref-superfluous"], || {
        let refs = repo::refs(&machine.sysroot.repo());
        let layer = refs
            .iter()
            .find(|(name, _)| name.contains("container/blob"))
            .unwrap();
        set_ref(&machine, "ostree/container/baseimage/apt-ostree/99", layer.1);
        set_ref(&machine, "ostree/0/1/7", layer.1);
    });
}

#[test]
fn an_image_that_says_nothing_of_itself_is_named() {
    let machine = upgraded();
    let checkup = tells(&machine, &["image-unreadable"], || {
        let refs = repo::refs(&machine.sysroot.repo());
        let layer = refs
            .iter()
            .find(|(name, _)| name.contains("container/blob"))
            .unwrap();
        set_ref(
            &machine,
            "ostree/container/image/docker_3A__2F__2F_strange",
            layer.1,
        );
    });
    assert_eq!(checkup.status, 1);
}

#[test]
fn a_mark_without_a_reason_is_taken_off() {
    let machine = upgraded();
    mends(&machine, &["commit-partial"], || {
        let state = machine.sysroot.repo().join("state");
        std::fs::write(state.join(format!("{}.commitpartial", commit(&machine, 0))), "").unwrap();
    });
}

#[test]
fn what_killed_runs_left_is_removed() {
    let machine = upgraded();
    mends(&machine, &["leftover-scratch"], || {
        std::fs::create_dir_all(machine.sysroot.repo().join("tmp/apt-ostree-layer.7/checkout")).unwrap();
    });
    machine.publish("3", [changed_file("usr/share/a", "3")]);
    let killed = |checkpoint: &str| {
        let command = machine
            .command(&["upgrade"])
            .env("APT_OSTREE_CHECKPOINT", checkpoint);
        assert!(!command.output().unwrap().status.success(), "{checkpoint}");
    };
    mends(&machine, &["leftover-scratch", "transaction-unfinished"], || {
        killed("import-before-publish");
    });
    mends(
        &machine,
        &["leftover-deployment", "transaction-unfinished"],
        || {
            killed("publish-deployed");
        },
    );
    assert_eq!(machine.versions(), ["2", "1"]);
    mends(&machine, &["leftover-kernel"], || {
        let folder = format!("boot/ostree/default-{}", "a".repeat(64));
        std::fs::create_dir(machine.sysroot.path().join(folder)).unwrap();
    });
}

#[test]
fn a_caller_without_rights_is_told_what_was_not_read() {
    let machine = Machine::new();
    // Whoever is nobody must reach the sysroot at all.
    std::fs::set_permissions(machine.sysroot.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    machine.publish(
        "1",
        [crate::support::layer::Layer::new().file("usr/share/secret", 0o600, "s")],
    );
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    let sysroot = machine.sysroot.path().display().to_string();
    let as_nobody = |arguments: &[&str]| {
        let output = Cmd::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .args([env!("CARGO_BIN_EXE_apt-ostree"), "--sysroot", &sysroot])
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, text, _) = as_nobody(&["fsck"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(
        text.contains("note unreadable: The caller has no right to read 1 of the objects")
            && text.contains("hint: run it as root"),
        "{text}"
    );
    let (status, _, errors) = as_nobody(&["fsck", "--repair"]);
    assert_eq!(status, Some(1));
    assert!(errors.contains("root"), "{errors}");
}
