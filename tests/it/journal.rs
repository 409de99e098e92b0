//! The transaction journal: killed at each checkpoint, the next run says how far it came; a full disk changes nothing.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::machine::{Machine, changed_file};
use apt_ostree::deployment::journal::{Ending, Line, Record, Records};
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
