//! The history of deployments: what was made, by what, how often it was booted, and what came of it.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::booted;
use crate::support::debian_machine::DebianMachine;
use crate::support::machine::{Machine, changed_file};
use crate::support::run;
use apt_ostree::deployment::history::{self, Boot, KEPT};
use apt_ostree::deployment::sysroot::{Host, Patience};
use apt_ostree::report::Silent;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn open(machine: &Machine) -> Host {
    Host::open(Some(machine.sysroot.path()), "test", true).unwrap()
}

/// Notes a boot of the deployment at a place in the boot order, and returns whether it was new.
fn boot(machine: &Machine, index: usize, id: &str, at: u64) -> bool {
    let host = open(machine);
    let boot = Boot {
        id: id.to_owned(),
        at,
        kernel: format!("6.12.{index}"),
    };
    history::record_boot(&host, &host.deployments()[index], boot).unwrap()
}

/// Returns what `log --json` tells, the newest first.
fn log(machine: &Machine, arguments: &[&str]) -> Vec<Value> {
    let text = machine.ok(&[&["log", "--json"], arguments].concat());
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["problems"], Value::Array(Vec::new()), "{text}");
    value["entries"].as_array().unwrap().clone()
}

/// Returns verb, version and state of each entry.
fn summary(entries: &[Value]) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    entries
        .iter()
        .map(|entry| {
            let version = word(&entry["after"]["version"]);
            format!("{} {version} {}", word(&entry["verb"]), word(&entry["state"]))
        })
        .collect()
}

fn now() -> u64 {
    apt_ostree::host::clock::seconds()
}

/// Sets back the time of all that was recorded, as if it had happened that long ago.
fn age(machine: &Machine, seconds: u64) {
    let folder = machine.sysroot.path().join("ostree/apt-ostree/history");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        value["created"] = (value["created"].as_u64().unwrap() - seconds).into();
        std::fs::write(&path, value.to_string()).unwrap();
    }
}

#[test]
fn deployments_are_told_with_their_makers_and_boots() {
    let machine = Machine::deployed();
    assert!(boot(&machine, 0, "boot-1", now()));
    assert!(
        !boot(&machine, 0, "boot-1", now() + 5),
        "the same boot is noted once"
    );
    age(&machine, 1000);
    machine.publish("2", [changed_file("usr/share/a", "2")]);
    machine.ok(&["upgrade"]);
    assert_eq!(
        summary(&log(&machine, &[])),
        ["upgrade 2 boots-next", "rebase 1 was-booted"]
    );
    assert!(boot(&machine, 0, "boot-2", now() + 10));
    assert!(boot(&machine, 0, "boot-3", now() + 20));
    let entries = log(&machine, &[]);
    let upgrade = &entries[0];
    assert_eq!(upgrade["boots"], 2);
    assert_eq!(upgrade["kernel"], "6.12.0");
    assert!(upgrade["last-boot"].as_u64() > upgrade["first-boot"].as_u64());
    assert!(upgrade["title"].as_str().unwrap().contains("upgrade"));
    assert!(upgrade["initiator"].as_str().unwrap().contains("uid:0"));
    assert_eq!(upgrade["from"], entries[1]["deployment"]);
    assert_eq!(upgrade["before"], entries[1]["after"]);
    assert!(
        upgrade["after"]["digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    assert_eq!(
        upgrade["after"]["image"].as_str(),
        Some(machine.reference("os:stable").as_str())
    );

    // Going back: by the verb, and by the boot that follows.
    machine.ok(&["rollback"]);
    assert_eq!(
        summary(&log(&machine, &[])),
        ["upgrade 2 rolled-back", "rebase 1 boots-next"]
    );
    boot(&machine, 0, "boot-4", now() + 30);
    let text = machine.ok(&["log"]);
    assert!(
        text.contains("upgrade (rolled back)") && text.contains("Booted: 2 times, last "),
        "{text}"
    );

    // What goes is still told of.
    age(&machine, 1000);
    machine.publish("3", [changed_file("usr/share/a", "3")]);
    machine.ok(&["upgrade"]);
    machine.publish("4", [changed_file("usr/share/a", "4")]);
    age(&machine, 1000);
    machine.ok(&["upgrade"]);
    let entries = log(&machine, &[]);
    let present: Vec<bool> = entries.iter().map(|entry| entry["present"] == true).collect();
    assert_eq!(
        summary(&entries)[2..],
        ["upgrade 2 rolled-back", "rebase 1 was-booted"],
        "{:?}",
        summary(&entries)
    );
    assert_eq!(present, [true, true, false, false], "{:?}", summary(&entries));
    assert_eq!(log(&machine, &["-n", "1"]).len(), 1);
    assert_eq!(log(&machine, &["--limit=3"]).len(), 3);
    assert_eq!(log(&machine, &["--all"]).len(), 4);
    machine.fails(2, &["log", "--all", "--limit=3"]);
    assert_eq!(log(&machine, &["--stateroot", "other"]).len(), 0);
}

#[test]
fn what_failed_or_was_interrupted_is_told_to_root() {
    let machine = Machine::deployed();
    machine.publish("2", []);
    age(&machine, 1000);
    machine.fails(1, &["rebase", &machine.reference("os:missing")]);
    for checkpoint in ["import-before-publish", "publish-after"] {
        let mut command = machine.command(&["upgrade"]);
        command = command.env("APT_OSTREE_CHECKPOINT", checkpoint);
        assert!(!command.output().unwrap().status.success());
    }
    // Before anybody has looked: the deployment is there, and nobody knows whose it is.
    assert!(
        log(&machine, &[])
            .iter()
            .any(|entry| entry["state"] == "interrupted")
    );
    machine.ok(&["unpin", "0"]);
    let entries = log(&machine, &[]);
    let mut told = summary(&entries);
    told.sort();
    assert_eq!(
        told,
        [
            "rebase - failed",
            "rebase 1 never-booted",
            "upgrade - interrupted",
            "upgrade 2 boots-next"
        ]
    );
    let upgrade = entries
        .iter()
        .find(|entry| entry["after"]["version"] == "2")
        .unwrap();
    assert!(
        upgrade["text"]
            .as_str()
            .unwrap()
            .contains("was published before the interruption")
    );
    let text = machine.ok(&["log"]);
    assert!(
        text.contains("rebase (failed)") && text.contains("Result: "),
        "{text}"
    );
    // The history is for everyone, the records of transactions are not.
    let mode = |path: &str| {
        let path = machine.sysroot.path().join("ostree/apt-ostree").join(path);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(
        (mode("history"), mode("history/000001.json"), mode("transactions")),
        (0o755, 0o644, 0o700)
    );
    let hidden = machine.sysroot.path().join("ostree/apt-ostree/transactions");
    std::fs::rename(&hidden, hidden.with_extension("away")).unwrap();
    assert_eq!(log(&machine, &[]).len(), 2);
}

#[test]
fn other_programs_deployments_are_told_as_far_as_they_are_known() {
    let machine = Machine::deployed();
    let commit = machine.status()["deployments"][0]["checksum"]
        .as_str()
        .unwrap()
        .to_owned();
    machine
        .sysroot
        .admin("deploy", &["--os=default", "--retain", &commit]);
    let entries = log(&machine, &[]);
    let foreign = entries.iter().find(|entry| entry["verb"].is_null()).unwrap();
    assert_eq!(
        (&foreign["state"], &foreign["after"]["version"]),
        (&"boots-next".into(), &"1".into())
    );
    assert!(
        foreign["at"].as_u64().unwrap() + 60 > now(),
        "it was made just now: {foreign}"
    );
    assert!(machine.ok(&["log"]).contains("(not recorded) (boots next)"));
    // Once booted it is remembered when it is gone.
    boot(&machine, 0, "boot-1", now());
    machine.sysroot.admin("undeploy", &["0"]);
    let entries = log(&machine, &[]);
    let gone = entries.iter().find(|entry| entry["verb"].is_null()).unwrap();
    assert_eq!(
        (&gone["state"], &gone["boots"], &gone["present"]),
        (&"was-booted".into(), &1.into(), &false.into())
    );
    assert_eq!(gone["after"]["version"], "1");
    // A host from before there was a history.
    std::fs::remove_dir_all(machine.sysroot.path().join("ostree/apt-ostree")).unwrap();
    assert_eq!(summary(&log(&machine, &[])), ["- 1 boots-next"]);
}

#[test]
fn files_of_each_version_are_read_and_bounded() {
    let machine = Machine::deployed();
    let root = machine.sysroot.path().join("ostree/apt-ostree");
    let (entry, boots) = (
        include_str!("../fixtures/history-v1.json"),
        include_str!("../fixtures/boots-v1.json"),
    );
    boot(&machine, 0, "boot-1", now());
    for number in 2..=(KEPT + 40) {
        let id = |text: &str| text.replace("default-cc.0", &format!("default-cc.{number}"));
        std::fs::write(root.join(format!("history/{number:06}.json")), id(entry)).unwrap();
        std::fs::write(root.join(format!("boots/default-cc.{number}.json")), id(boots)).unwrap();
    }
    let later = root.join("history/000900.json");
    std::fs::write(
        &later,
        entry.replace("\"format\": 1", "\"format\": 2, \"more\": 1"),
    )
    .unwrap();
    let known = log(&machine, &["--all"]);
    assert_eq!(known.len(), KEPT + 40);
    let old = known.last().unwrap();
    assert_eq!(
        (&old["boots"], &old["kernel"]),
        (&4.into(), &"6.12.57+deb13-amd64".into())
    );
    assert_eq!(
        (&old["uid"], &old["after"]["packages"][0]),
        (&0.into(), &"htop".into())
    );
    std::fs::remove_file(later).unwrap();
    machine.publish("2", []);
    machine.ok(&["upgrade"]);
    let count = |name: &str| std::fs::read_dir(root.join(name)).unwrap().count();
    // The deployment that is still there stays beyond the bound.
    assert_eq!((count("history"), count("boots")), (KEPT + 1, KEPT));
    assert!(root.join("history/000001.json").exists());
    // A damaged file is named, and the rest told.
    std::fs::write(root.join("history/000241.json"), "{").unwrap();
    let text = machine.ok(&["log"]);
    assert!(
        text.contains("Problem: Reading the entry 000241.json of the history"),
        "{text}"
    );
    assert!(text.contains("rebase") || text.contains("upgrade"), "{text}");
}

#[test]
fn only_the_latest_boots_are_remembered_one_by_one() {
    let machine = Machine::deployed();
    for number in 0..105 {
        assert!(boot(&machine, 0, &number.to_string(), now() + number));
    }
    let entries = log(&machine, &[]);
    assert_eq!(entries[0]["boots"], 105);
    let folder = machine.sysroot.path().join("ostree/apt-ostree/boots");
    let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let kept: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(
        (kept["boots"].as_array().unwrap().len(), &kept["forgotten"]),
        (100, &5.into())
    );
}

#[test]
fn no_boot_fails_for_its_record() {
    let machine = Machine::deployed();
    let output = machine.run(&["record-boot"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("warning: The boot is not recorded") && errors.contains("did not boot from"),
        "{errors}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("BootedDeployment:"));
}

#[test]
fn a_booted_host_notes_its_boot_with_the_rights_of_the_unit() {
    let host = DebianMachine::new(&[]);
    let rights = [
        "setpriv",
        "--bounding-set=-all,+sys_admin",
        "--inh-caps=-all",
        "--no-new-privs",
        "/run/apt-ostree",
        "record-boot",
    ];
    // Once a boot, however often it is asked for.
    for _ in 0..2 {
        let output = booted::run(&host, &rights);
        let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(
            output.status.success() && !told[1].contains("warning"),
            "{told:?}"
        );
        assert!(
            told[0].contains("BootedDeployment:") && told[0].contains("(booted)"),
            "{told:?}"
        );
    }
    let output = booted::run(&host, &["/run/apt-ostree", "log", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let entry = &told["entries"][0];
    assert_eq!(
        (&entry["state"], &entry["boots"]),
        (&"booted".into(), &1.into()),
        "{told}"
    );
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(entry["kernel"], release.trim());
    // A writer that holds the lock does not keep a boot from being noted.
    std::fs::remove_dir_all(host.sysroot.path().join("ostree/apt-ostree/boots")).unwrap();
    let held = open(&host);
    let _lock = held.lock("test", Patience::Fail, &Silent).unwrap();
    assert!(booted::run(&host, &rights).status.success());
    assert_eq!(log(&host, &[])[0]["boots"], 1);
}

#[test]
fn the_first_deployment_of_a_host_is_its_first_entry() {
    let machine = Machine::new();
    machine.publish("1", []);
    let target = tempfile::tempdir().unwrap();
    let shown = target.path().to_str().unwrap();
    let output = crate::support::apt_ostree(&machine.home)
        .args([
            "provision",
            "to-filesystem",
            "--root-mount-spec=UUID=0",
            "--image",
            &machine.reference("os:stable"),
            shown,
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = crate::support::apt_ostree(&machine.home)
        .args(["--sysroot", shown, "log"])
        .run_text()
        .unwrap();
    assert!(
        text.contains("provision (boots next)") && text.contains("Image: "),
        "{text}"
    );
    unlock(target.path());
}

/// Deployments are immutable; without this their directory could not be removed.
fn unlock(sysroot: &Path) {
    let roots: PathBuf = sysroot.join("ostree/deploy");
    run(
        "find",
        [
            roots.to_str().unwrap(),
            "-maxdepth",
            "3",
            "-path",
            "*/deploy/*.*",
            "-type",
            "d",
            "-exec",
            "chattr",
            "-i",
            "{}",
            "+",
        ],
    );
}

#[test]
fn the_unit_that_records_boots_is_sound() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd/apt-ostree-bootstatus.service");
    let shown = source.to_str().unwrap();
    // The program is not installed where the tests run: a root that has it.
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("usr/lib/systemd/system");
    crate::support::write(root.path().join("usr/bin/apt-ostree"), "#!/bin/sh\n");
    let program = root.path().join("usr/bin/apt-ostree");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(&units).unwrap();
    run("cp", ["-a", "/lib/systemd/system/.", units.to_str().unwrap()]);
    let name = source.file_name().unwrap();
    std::fs::copy(&source, units.join(name)).unwrap();
    let output = apt_ostree::host::runner::Cmd::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no", "--root"])
        .arg(root.path())
        .arg(name)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let security = ["security", "--offline=true", "--threshold=20", shown];
    run("systemd-analyze", security);
}
