//! The transaction journal: killed at each checkpoint, the next run says how far it came; a full disk changes nothing.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::bus::wait_until;
use crate::support::machine::{Machine, changed_file};
use crate::support::mounted::Mounted;
use crate::support::paused;
use crate::support::service::Service;
use apt_ostree::deployment::journal::{self, Ending, KEPT, Line, Record, Records};
use apt_ostree::deployment::sysroot::{Host, Patience};
use apt_ostree::host::mounts;
use apt_ostree::report::Silent;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Each checkpoint with the words that tell how far a transaction came that was killed there.
const CHECKPOINTS: [(&str, &str, &str); 6] = [
    (
        "journal-begun",
        "before its first step",
        "what boots next is as it was before",
    ),
    (
        "import-before-publish",
        "while merging layers",
        "what boots next is as it was before",
    ),
    (
        "import-published",
        "while storing the image",
        "what boots next is as it was before",
    ),
    (
        "publish-before",
        "while writing the deployment",
        "what boots next is as it was before",
    ),
    (
        "publish-deployed",
        "while writing the deployment",
        "what boots next is as it was before",
    ),
    (
        "publish-after",
        "while writing the deployment",
        "the new deployment was published before the interruption and boots next",
    ),
];

fn folder(machine: &Machine) -> PathBuf {
    machine.sysroot.path().join("ostree/apt-ostree/transactions")
}

/// Returns the records, the newest first.
fn records(machine: &Machine) -> Vec<Record> {
    let records = Records::open(machine.sysroot.path()).unwrap().unwrap();
    records.read().unwrap().into_iter().map(Result::unwrap).collect()
}

fn ending(record: &Record) -> Option<Ending> {
    record.finished.as_ref().map(|finished| finished.result)
}

/// Runs a verb that a checkpoint kills.
fn killed(machine: &Machine, checkpoint: &str, arguments: &[&str]) {
    let output = machine
        .command(arguments)
        .env("APT_OSTREE_CHECKPOINT", checkpoint)
        .output()
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&output.status),
        Some(9),
        "{checkpoint} was not reached: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a verb that must succeed and returns what it told beside its result.
fn told(machine: &Machine, arguments: &[&str]) -> String {
    let output = machine.run(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    errors
}

#[test]
fn a_transaction_is_recorded_from_its_lock_to_its_end() {
    let machine = Machine::deployed();
    machine.publish("2", [changed_file("usr/share/a", "2")]);
    machine.ok(&["upgrade"]);
    machine.ok(&["upgrade"]);
    machine.fails(1, &["rebase", &machine.reference("os:missing")]);
    let all = records(&machine);
    let told: Vec<_> = all
        .iter()
        .map(|record| (record.number, record.begun.verb.as_str(), ending(record)))
        .collect();
    assert_eq!(
        told,
        [
            (4, "rebase", Some(Ending::Failed)),
            (3, "upgrade", Some(Ending::Unchanged)),
            (2, "upgrade", Some(Ending::Done)),
            (1, "rebase", Some(Ending::Done)),
        ]
    );
    let upgrade = &all[2];
    assert!(upgrade.begun.title.contains("upgrade"), "{:?}", upgrade.begun);
    assert!(upgrade.begun.initiator.contains("uid:0"), "{:?}", upgrade.begun);
    assert_eq!(upgrade.begun.deployments.len(), 1);
    let Some(Line::Publishing { from, to, .. }) = &upgrade.announced else {
        panic!("{upgrade:?}")
    };
    assert_eq!(from.as_ref(), upgrade.begun.deployments.first());
    assert_eq!(to.version.as_deref(), Some("2"));
    assert_eq!(upgrade.step.as_deref(), Some("Removing what is no longer needed"));
    // Who asked for what is root's to know.
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(folder(&machine)), 0o700);
    assert_eq!(mode(folder(&machine).join("000001.jsonl")), 0o600);
}

#[test]
fn a_killed_transaction_is_told_of_by_the_next_and_by_status() {
    for (checkpoint, place, means) in CHECKPOINTS {
        let machine = Machine::deployed();
        machine.publish("2", [changed_file("usr/share/a", "2")]);
        killed(&machine, checkpoint, &["upgrade"]);
        // Status tells before anybody has looked, and after.
        let status = machine.ok(&["status"]);
        assert!(
            status.contains("Interrupted: `upgrade` was interrupted "),
            "{checkpoint}: {status}"
        );
        assert!(
            status.contains(place) && status.contains(means),
            "{checkpoint}: {status}"
        );
        let before = machine.versions();
        let errors = machine.fails(1, &["rebase", &machine.reference("os:missing")]);
        assert!(
            errors.contains("warning: `upgrade` was interrupted")
                && errors.contains(place)
                && errors.contains(means),
            "{checkpoint}: {errors}"
        );
        assert_eq!(machine.versions(), before, "{checkpoint}");
        let json = machine.status();
        assert_eq!(json["last-interrupted"]["verb"], "upgrade", "{checkpoint}");
        let record = &records(&machine)[1];
        assert_eq!(ending(record), Some(Ending::Interrupted), "{checkpoint}");
        // What the interruption left is gone, and the next success ends the matter.
        let roots = std::fs::read_dir(machine.sysroot.path().join("ostree/deploy/default/deploy")).unwrap();
        let directories = roots.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
        assert_eq!(directories.count(), before.len(), "{checkpoint}");
        let errors = told(&machine, &["upgrade"]);
        assert!(!errors.contains("interrupted"), "{checkpoint}: {errors}");
        assert!(machine.status()["last-interrupted"].is_null(), "{checkpoint}");
        assert_eq!(machine.versions(), ["2", "1"], "{checkpoint}");
        machine.assert_sound();
    }
}

#[test]
fn a_killed_change_of_the_boot_order_is_told_apart() {
    for (checkpoint, means, versions) in [
        (
            "reorder-before",
            "what boots next is as it was before",
            ["2", "1"],
        ),
        (
            "reorder-after",
            "the boot order was changed before the interruption",
            ["1", "2"],
        ),
    ] {
        let machine = Machine::deployed();
        machine.publish("2", [changed_file("usr/share/a", "2")]);
        machine.ok(&["upgrade"]);
        killed(&machine, checkpoint, &["rollback"]);
        let errors = told(&machine, &["cleanup", "--base"]);
        assert!(
            errors.contains("`rollback` was interrupted") && errors.contains(means),
            "{errors}"
        );
        assert_eq!(machine.versions(), versions, "{checkpoint}");
    }
}

#[test]
fn a_signal_ends_the_record_unless_something_may_be_published() {
    let machine = Machine::deployed();
    machine.publish("2", [changed_file("usr/share/a", "2")]);
    let stopped = |checkpoint: &str, signal: &str, number: i32| {
        let arguments = ["upgrade"];
        let mut child = paused::spawn(&machine.home, machine.sysroot.path(), &arguments, checkpoint);
        paused::wait_until_parked(&mut child);
        paused::send(signal, &child);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(128 + number), "{checkpoint}");
    };
    stopped("import-before-publish:pause", "TERM", 15);
    let record = &records(&machine)[0];
    assert_eq!(ending(record), Some(Ending::Cancelled));
    let text = &record.finished.as_ref().unwrap().text;
    assert_eq!(text, "The signal 15 stopped `upgrade` while merging layers");
    assert!(machine.status()["last-interrupted"].is_null());
    stopped("publish-after:pause", "INT", 2);
    assert_eq!(ending(&records(&machine)[0]), None);
    let errors = told(&machine, &["unpin", "0"]);
    assert!(
        errors.contains("the new deployment was published before the interruption"),
        "{errors}"
    );
}

#[test]
fn who_waits_or_is_refused_leaves_no_record() {
    let machine = Machine::deployed();
    let lock = open(&machine);
    let held = lock.lock("test", Patience::Fail, &Silent).unwrap();
    machine.fails(1, &["--no-wait", "kargs", "--append=x"]);
    assert_eq!(records(&machine).len(), 1, "only that of the first deployment");
    // Whoever has the lock looks for what was interrupted; nobody else does.
    assert_eq!(journal::recover(&open(&machine), &Silent).unwrap(), []);
    drop(held);
    // A process that has given its lock back is about to end its record.
    let begun = std::fs::read_to_string(folder(&machine).join("000001.jsonl")).unwrap();
    let (first, _) = begun.split_once('\n').unwrap();
    let mut line: serde_json::Value = serde_json::from_str(first).unwrap();
    let me = apt_ostree::host::process::Process::current().unwrap();
    line["begun"]["process"] = serde_json::to_value(&me).unwrap();
    std::fs::write(folder(&machine).join("000002.jsonl"), format!("{line}\n")).unwrap();
    assert_eq!(journal::recover(&open(&machine), &Silent).unwrap(), []);
    assert!(machine.status()["last-interrupted"].is_null());
    // The same id in another boot is another process.
    line["begun"]["process"]["boot"] = "other".into();
    std::fs::write(folder(&machine).join("000002.jsonl"), format!("{line}\n{{\"step")).unwrap();
    let recovered = journal::recover(&open(&machine), &Silent).unwrap();
    assert_eq!(recovered.len(), 1);
    assert_eq!(
        (recovered[0].transaction, recovered[0].verb.as_str()),
        (2, "rebase")
    );
    assert_eq!(
        ending(&records(&machine)[0]),
        Some(Ending::Interrupted),
        "the torn line is gone"
    );
    assert_eq!(journal::recover(&open(&machine), &Silent).unwrap(), []);
}

fn open(machine: &Machine) -> Host {
    Host::open(Some(machine.sysroot.path()), "test", true).unwrap()
}

#[test]
fn the_service_closes_what_was_interrupted_when_it_starts() {
    let machine = Machine::deployed();
    machine.publish("2", [changed_file("usr/share/a", "2")]);
    killed(&machine, "publish-deployed", &["upgrade"]);
    let service = Service::of(machine);
    let machine = &service.machine;
    wait_until("the record is closed", || {
        ending(&records(machine)[0]) == Some(Ending::Interrupted)
    });
    let status = machine.ok(&["status"]);
    assert!(status.contains("what boots next is as it was before"), "{status}");
    wait_until("the service has said so", || {
        std::fs::read_to_string(service.log()).is_ok_and(|log| log.contains("`upgrade` was interrupted"))
    });
}

#[test]
fn a_disk_that_is_too_full_for_the_record_changes_nothing() {
    let machine = Machine::new();
    let mount = Mounted::tmpfs(machine.sysroot.path(), "size=24m");
    machine.init_again();
    machine.publish("1", []);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    let before = machine.state();
    mount.leave(4096);
    let errors = machine.fails(1, &["kargs", "--append=x"]);
    assert!(
        errors.contains("Recording the transaction")
            && errors.contains("is full")
            && errors.contains("hint: free space"),
        "{errors}"
    );
    assert_eq!(machine.state(), before);
    assert_eq!(records(&machine).len(), 1, "nothing is left of it");
    // What frees space must work on a full disk, and says what is missing.
    let errors = told(&machine, &["cleanup", "--base"]);
    assert!(
        errors.contains("warning: The transaction is not recorded"),
        "{errors}"
    );
    mount.empty();
    machine.ok(&["kargs", "--append=x"]);
    machine.assert_sound();
}

#[test]
fn a_record_that_cannot_begin_stops_the_transaction() {
    let machine = Machine::deployed();
    machine.publish("2", []);
    let before = machine.state();
    let output = machine
        .command(&["upgrade"])
        .env("APT_OSTREE_CHECKPOINT", "journal-begin:enospc")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("is full"), "{errors}");
    assert_eq!(machine.state(), before);
    // A folder where the records should be is named.
    std::fs::remove_dir_all(folder(&machine)).unwrap();
    std::fs::write(folder(&machine), "").unwrap();
    let errors = machine.fails(1, &["upgrade"]);
    assert!(errors.contains("transactions"), "{errors}");
    assert_eq!(machine.state(), before);
}

#[test]
fn the_number_of_records_is_bounded() {
    let machine = Machine::deployed();
    let fixture = include_str!("../fixtures/transaction-v1.jsonl");
    for number in 2..=(KEPT as u64 + 20) {
        std::fs::write(folder(&machine).join(format!("{number:06}.jsonl")), fixture).unwrap();
    }
    std::fs::write(folder(&machine).join("000500.jsonl"), "").unwrap();
    for _ in 0..3 {
        machine.ok(&["unpin", "0"]);
        assert_eq!(std::fs::read_dir(folder(&machine)).unwrap().count(), KEPT);
    }
    let all = records(&machine);
    assert_eq!(
        (all[0].begun.verb.as_str(), all[0].number, all[KEPT - 1].number),
        ("unpin", 123, 24)
    );
}

#[test]
fn records_of_each_version_are_read_and_those_of_later_ones_left_alone() {
    let machine = Machine::deployed();
    let fixture = include_str!("../fixtures/transaction-v1.jsonl");
    let place = |number: u32| folder(&machine).join(format!("{number:06}.jsonl"));
    std::fs::write(place(2), fixture).unwrap();
    std::fs::write(
        place(3),
        fixture.replace("\"format\":1", "\"format\":2,\"more\":[]"),
    )
    .unwrap();
    std::fs::write(place(4), "nonsense\n").unwrap();
    let read = Records::open(machine.sysroot.path())
        .unwrap()
        .unwrap()
        .read()
        .unwrap();
    let [record] = read
        .iter()
        .flatten()
        .filter(|record| record.number == 2)
        .collect::<Vec<_>>()[..]
    else {
        panic!("{read:?}")
    };
    assert_eq!(record.begun.deployments, ["default-aa.0", "default-bb.0"]);
    assert_eq!(record.begun.process.pid, 4242);
    assert_eq!(record.step.as_deref(), Some("Writing the deployment"));
    assert!(matches!(&record.announced, Some(Line::Reordering { to, .. }) if to[0] == "default-bb.0"));
    assert_eq!(ending(record), Some(Ending::Done));
    assert_eq!(read.iter().filter(|record| record.is_err()).count(), 1);
    assert_eq!(read.len(), 3, "the later version is passed over");
    // A damaged record stops nobody.
    let errors = told(&machine, &["unpin", "0"]);
    assert!(errors.contains("warning: Reading the transaction 4"), "{errors}");
    assert!(place(3).exists() && place(4).exists());
}

#[test]
fn the_journal_of_the_machine_is_told_who_did_what() {
    mounts::enter_private().expect("a mount namespace; these tests need root");
    let _sockets = Mounted::tmpfs("/run/systemd".as_ref(), "mode=755");
    std::fs::create_dir_all("/run/log").unwrap();
    let _logs = Mounted::tmpfs("/run/log".as_ref(), "mode=755");
    let machine = Machine::deployed();
    std::fs::create_dir("/run/systemd/journal").unwrap();
    let mut journald = machine
        .home
        .surroundings()
        .server_command("/lib/systemd/systemd-journald")
        .spawn()
        .unwrap();
    while !std::path::Path::new("/run/systemd/journal/socket").exists() {
        assert!(journald.try_wait().unwrap().is_none(), "journald ended");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    machine.publish("2", []);
    machine.ok(&["upgrade"]);
    machine.ok(&["rollback"]);
    machine.fails(1, &["kargs", "--deploy-index=9", "--append=a\nb"]);
    killed(&machine, "publish-before", &["kargs", "--append=x"]);
    machine.ok(&["unpin", "0"]);
    let ids: Vec<String> = machine.status()["deployments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|deployment| deployment["id"].as_str().unwrap().to_owned())
        .collect();
    crate::support::run("journalctl", ["--sync"]);
    let lines = crate::support::run(
        "journalctl",
        [
            "--directory=/run/log/journal",
            "--output=json",
            "MESSAGE_ID=f49cadbab6874234abb6dff49eb1dab2",
        ],
    );
    journald.kill().unwrap();
    journald.wait().unwrap();
    let told: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let field = |index: usize, name: &str| told[index][format!("APT_OSTREE_{name}")].clone();
    let results: Vec<_> = (0..told.len())
        .map(|index| format!("{} {}", field(index, "VERB"), field(index, "RESULT")).replace('"', ""))
        .collect();
    assert_eq!(
        results,
        [
            "upgrade done",
            "rollback done",
            "kargs failed",
            "kargs interrupted",
            "unpin unchanged"
        ]
    );
    assert_eq!(
        (field(0, "FROM"), field(0, "TO")),
        (ids[0].as_str().into(), ids[1].as_str().into())
    );
    assert_eq!(
        (field(1, "FROM"), field(1, "TO")),
        (ids[1].as_str().into(), ids[0].as_str().into())
    );
    assert_eq!(field(0, "TO_VERSION"), "2");
    assert!(field(0, "TO_DIGEST").as_str().unwrap().starts_with("sha256:"));
    assert_eq!(
        (field(0, "UID"), field(0, "TRANSACTION")),
        ("0".into(), "2".into())
    );
    assert!(field(0, "DURATION").as_str().unwrap().parse::<f64>().unwrap() > 0.0);
    assert!(
        field(0, "INITIATOR")
            .as_str()
            .unwrap()
            .contains("client(id:cli uid:0)")
    );
    assert!(
        field(2, "TITLE").as_str().unwrap().contains("--append=a\nb"),
        "{}",
        told[2]
    );
    assert_eq!(told[2]["PRIORITY"], "4");
    assert!(
        told[3]["MESSAGE"]
            .as_str()
            .unwrap()
            .contains("what boots next is as it was before")
    );
}
