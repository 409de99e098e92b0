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

/// Returns a compressed changelog with one entry for each of these, newest first.
fn changelog(package: &str, entries: &[(&str, &str)]) -> Vec<u8> {
    let text: String = entries
        .iter()
        .map(|(version, change)| {
            format!("{package} ({version}) unstable; urgency=medium\n\n  * {change}\n\n -- A <a@example.org>  Mon, 01 Jan 2024\n\n")
        })
        .collect();
    let mut file = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    file.finish().unwrap()
}

#[test]
fn changelogs_of_the_images_tell_what_lies_between() {
    let machine = Machine::new();
    let old = [
        ("app", "1-1", "amd64"),
        ("doc", "1-1", "all"),
        ("down", "2", "all"),
        ("mute", "1", "all"),
        ("odd", "4:1", "all"),
    ];
    let new = [
        ("app", "1-3+b1", "amd64"),
        ("doc", "1-3", "all"),
        ("down", "1", "all"),
        ("mute", "2", "all"),
        ("odd", "4:2", "all"),
    ];
    let app = [("1-3", "third"), ("1-2", "second"), ("1-1", "first")];
    let docs = |packages, entries: &[(&str, &str)], down: &[(&str, &str)], odd: &[(&str, &str)]| {
        database(packages)
            .file(
                "usr/share/doc/app/changelog.Debian.gz",
                0o644,
                changelog("app", entries),
            )
            .symlink("usr/share/doc/doc", "app")
            .file("usr/share/doc/down/changelog.gz", 0o644, changelog("down", down))
            // The version of a binary package need not be its source's.
            .file("usr/share/doc/odd/changelog.gz", 0o644, changelog("odd", odd))
            // What upstream wrote.
            .file(
                "usr/share/doc/mute/changelog.gz",
                0o644,
                changelog("Mute (2)", &[]),
            )
    };
    let down = [("2", "lost"), ("1", "kept")];
    let odd = [("0.8", "eight"), ("0.7", "seven")];
    machine.publish("1", [docs(&old, &app[2..], &down, &odd[1..])]);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    let build = changelog("app", &[("1-3+b1", "Built again")]);
    let newer =
        docs(&new, &app, &down[1..], &odd).file("usr/share/doc/app/changelog.Debian.amd64.gz", 0o644, build);
    machine.publish("2", [newer]);
    machine.ok(&["upgrade"]);

    let out = machine.ok(&["db", "diff", "--changelogs"]);
    let expected = "\
Upgraded:
  app 1-1 -> 1-3+b1
    app (1-3+b1) unstable; urgency=medium
      * Built again
     -- A <a@example.org>  Mon, 01 Jan 2024
    app (1-3) unstable; urgency=medium
      * third
     -- A <a@example.org>  Mon, 01 Jan 2024
    app (1-2) unstable; urgency=medium
      * second
     -- A <a@example.org>  Mon, 01 Jan 2024
  doc 1-1 -> 1-3
";
    assert!(out.contains(expected), "{out}");
    assert!(!out.contains("* first") && !out.contains("* kept"), "{out}");
    let value = json(&machine.ok(&["db", "diff", "-c", "-F", "json"]));
    let logs = &value["changelogs"];
    assert_eq!(logs["mute"], Value::Null);
    for (package, entries, words) in [
        ("doc", 2, "* second"),
        ("down", 1, "* lost"),
        ("odd", 1, "* eight"),
    ] {
        let found = logs[package].as_array().unwrap();
        assert_eq!(found.len(), entries, "{package}: {found:?}");
        assert!(
            found.last().unwrap().as_str().unwrap().contains(words),
            "{found:?}"
        );
    }
    assert!(json(&machine.ok(&["db", "diff", "-F", "json"]))["changelogs"].is_null());
    machine.fails(2, &["db", "diff", "-c", "-F", "diff"]);
    let bare = upgraded();
    let out = bare.ok(&["db", "diff", "-c"]);
    assert!(
        out.ends_with("The images ship no changelogs of these packages.\n"),
        "{out}"
    );
}

#[test]
fn a_range_is_made_of_deployments() {
    let machine = upgraded();
    machine.ok(&["pin", "1"]);
    machine.publish("3", [database(&[("app", "2-1", "amd64")])]);
    machine.ok(&["upgrade"]);
    let listed = |range: &str| {
        let out = machine.ok(&["db", "list", range, "app"]);
        let lines = out.lines().filter(|line| line.starts_with(' '));
        lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let all = ["app_2-1_amd64", "app_1.10-1_amd64", "app_1.9-1_amd64"];
    assert_eq!(listed("0..2"), all);
    assert_eq!(listed("2..1"), [all[2], all[1]]);
    let state = machine.status();
    let commit = state["deployments"][1]["checksum"].as_str().unwrap();
    assert_eq!(listed(&format!("{commit}..2")), all[1..]);
    assert_eq!(
        machine
            .ok(&["db", "version", "0..2"])
            .matches("dpkgdbv is")
            .count(),
        3
    );
    machine.fails(1, &["db", "list", "0..9"]);
    machine.fails(1, &["db", "list", "..0"]);
    let repo = machine.sysroot.repo();
    let range = format!("{commit}..{commit}");
    machine.fails(2, &["db", "list", "--repo", repo.to_str().unwrap(), &range]);
}
