//! `db`: packages of deployments, images and commits, told from the repository alone.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::layer::Layer;
use crate::support::machine::Machine;
use serde_json::{Value, json};

/// Returns a layer with a dpkg database of these packages.
fn database(packages: &[(&str, &str, &str)]) -> Layer {
    let status: Vec<String> = packages
        .iter()
        .map(|(name, version, architecture)| {
            format!("Package: {name}\nStatus: install ok installed\nArchitecture: {architecture}\nVersion: {version}\n")
        })
        .collect();
    Layer::new().file("usr/lib/sysimage/dpkg/status", 0o644, status.join("\n"))
}

/// Makes a host that booted nothing yet, whose second deployment has other packages than the first.
fn upgraded() -> Machine {
    let machine = Machine::new();
    machine.publish(
        "1",
        [database(&[
            ("app", "1.9-1", "amd64"),
            ("lib", "1:2", "all"),
            ("old", "1", "all"),
        ])],
    );
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    machine.publish(
        "2",
        [database(&[
            ("app", "1.10-1", "amd64"),
            ("lib", "3", "all"),
            ("new", "1", "all"),
        ])],
    );
    machine.ok(&["upgrade"]);
    machine
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn differences_in_all_three_formats() {
    let machine = upgraded();
    let state = machine.status();
    let commit = |index: usize| {
        state["deployments"][index]["checksum"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        machine.ok(&["db", "diff"]),
        format!(
            "ostree diff commit from: deployment 1 ({})\nostree diff commit to:   deployment 0 ({})\n\
             Upgraded:\n  app 1.9-1 -> 1.10-1\nDowngraded:\n  lib 1:2 -> 3\nRemoved:\n  old_1_all\nAdded:\n  new_1_all\n",
            commit(1),
            commit(0)
        )
    );
    let out = machine.ok(&["db", "diff", "--format=diff", "1", "0"]);
    let lines: Vec<&str> = out.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "!app_1.9-1_amd64",
            "=app_1.10-1_amd64",
            "!lib_1:2_all",
            "=lib_3_all",
            "+new_1_all",
            "-old_1_all"
        ]
    );
    let value = json(&machine.ok(&["db", "diff", "--format=json"]));
    assert_eq!(
        value,
        json!({
            "ostree-commit-from": commit(1),
            "ostree-commit-to": commit(0),
            "pkgdiff": [
                ["app", 2, { "PreviousPackage": ["app", "1.9-1", "amd64"], "NewPackage": ["app", "1.10-1", "amd64"] }],
                ["lib", 3, { "PreviousPackage": ["lib", "1:2", "all"], "NewPackage": ["lib", "3", "all"] }],
                ["new", 0, { "NewPackage": ["new", "1", "all"] }],
                ["old", 1, { "PreviousPackage": ["old", "1", "all"] }],
            ],
            "advisories": [],
        })
    );
}

#[test]
fn a_revision_is_an_index_a_commit_a_digest_a_reference_or_a_ref() {
    let machine = upgraded();
    let state = machine.status();
    let deployment = &state["deployments"][0];
    let (commit, digest) = (
        deployment["checksum"].as_str().unwrap(),
        deployment["container-image-reference-digest"].as_str().unwrap(),
    );
    let name = format!("{}/os:stable", machine.registry.location());
    let reference = machine.reference("os:stable");
    let kept = crate::support::repo::refs(&machine.sysroot.repo())
        .into_iter()
        .find(|(name, held)| name.contains("/baseimage/") && held == commit)
        .unwrap()
        .0;
    for revision in ["0", commit, &commit[..10], digest, &name, &reference, &kept] {
        let value = json(&machine.ok(&["db", "diff", "--format=json", "1", revision]));
        assert_eq!(value["ostree-commit-to"], commit, "{revision}");
    }
    // One revision is compared with the current deployment.
    let value = json(&machine.ok(&["db", "diff", "--format=json", "1"]));
    assert_eq!(value["ostree-commit-from"], commit);
    for bad in ["7", "deadbeef", "sha256:00", "no/such/ref", "a b", "--", "../x"] {
        let errors = machine.fails(1, &["db", "diff", "--", "0", bad]);
        assert!(
            errors.contains(&format!("`{bad}` names no deployment")),
            "{errors}"
        );
    }
}

#[test]
fn lists_and_versions_come_from_a_repository_of_its_own() {
    let machine = upgraded();
    let state = machine.status();
    let commit = state["deployments"][0]["checksum"].as_str().unwrap();
    let repo = machine.sysroot.repo();
    let repo = repo.to_str().unwrap();
    let listed = |words: &[&str]| {
        let out = machine.ok(&[&["db", "list", "--repo", repo], words].concat());
        out.lines()
            .skip(1)
            .map(|line| line.trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(&[commit]), ["app_1.10-1_amd64", "lib_3_all", "new_1_all"]);
    assert_eq!(listed(&[commit, "l*", "ne?"]), ["lib_3_all", "new_1_all"]);
    let value = json(&machine.ok(&["db", "list", "--json", "--repo", repo, commit, "app"]));
    assert_eq!(value[0]["packages"], json!([["app", "1.10-1", "amd64"]]));

    let version =
        |revision: &str| json(&machine.ok(&["db", "version", "--json", revision]))[0]["dpkgdbv"].clone();
    assert_eq!(version("0"), version(commit));
    assert_ne!(version("0"), version("1"));
    assert!(machine.ok(&["db", "version", "0"]).contains("\n  dpkgdbv is: 3:"));

    let errors = machine.fails(2, &["db", "diff", "--repo", repo]);
    assert!(errors.contains("name both revisions"), "{errors}");
    machine.fails(1, &["db", "list", "l*"]);
    machine.fails(1, &["db", "list", "--repo", "/nonexistent", commit]);
}
