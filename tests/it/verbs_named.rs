//! Choosing an image in other ways than by its tag: a custom origin, what cannot be followed, a look before `deploy`.

use crate::support::layer::Layer;
use crate::support::machine::{Machine, changed_file};
use crate::support::package::Package;

#[test]
fn a_custom_origin_is_told_and_held_until_the_next_rebase() {
    let machine = Machine::deployed();
    let reference = machine.reference("os:stable");
    machine.publish("2", [changed_file("usr/bin/tool", "2\n")]);
    let custom = [
        "--custom-origin-url=https://fleet.example/rollout",
        "--custom-origin-description=Fleet of example",
    ];
    let before = machine.state();
    let errors = machine.fails(2, &["rebase", custom[0], custom[1], &reference]);
    assert!(errors.contains("names no digest"), "{errors}");
    machine.fails(2, &["rebase", custom[0], &reference]);
    let broken = "--custom-origin-description=two\nlines";
    machine.fails(2, &["rebase", custom[0], broken, &reference]);
    assert_eq!(machine.state(), before);

    let digest = {
        let shown = machine.run(&["upgrade", "--check"]);
        let shown = String::from_utf8(shown.stdout).expect("UTF-8");
        let line = shown
            .lines()
            .find(|line| line.contains("Digest: "))
            .expect("a digest");
        line.rsplit(' ').next().expect("a word").to_owned()
    };
    machine.ok(&["rebase", custom[0], custom[1], &reference, &digest]);
    let shown = machine.ok(&["status"]);
    assert!(
        shown.contains("  https://fleet.example/rollout (boots next)\n")
            && shown.contains("CustomOrigin: Fleet of example\n"),
        "{shown}"
    );
    let first = &machine.status()["deployments"][0];
    assert_eq!(
        first["custom-origin"],
        serde_json::json!(["https://fleet.example/rollout", "Fleet of example"])
    );
    assert_eq!(first["container-image-reference"], reference);
    machine.publish("3", [changed_file("usr/bin/tool", "3\n")]);
    for arguments in [&["upgrade"][..], &["upgrade", "--check"]] {
        let errors = machine.fails(1, arguments);
        assert!(
            errors.contains("Fleet of example") && errors.contains("rebase REF"),
            "{errors}"
        );
    }
    // Another change of the host keeps it, and another rebase does not.
    machine.ok(&["kargs", "--append=mine=1"]);
    assert!(!machine.status()["deployments"][0]["custom-origin"].is_null());
    machine.ok(&["rebase", "--skip-purge", "--experimental", &reference]);
    assert!(machine.status()["deployments"][0]["custom-origin"].is_null());
    assert_eq!(machine.versions()[0], "3");
    let out = machine.ok(&["rebase", &reference]);
    assert!(out.contains("already follows"), "{out}");
    machine.assert_sound();
}

#[test]
fn branches_of_ostree_remotes_cannot_be_followed() {
    let machine = Machine::deployed();
    let before = machine.state();
    for (arguments, words) in [
        (&["rebase", "-b", "debian/13"][..], "no `--branch`"),
        (&["rebase", "--remote=debian"], "no `--remote`"),
        (
            &["rebase", "/srv/repo:debian/13"],
            "a branch of an OSTree repository",
        ),
    ] {
        let errors = machine.fails(2, arguments);
        assert!(errors.contains(words) && errors.contains("hint: "), "{errors}");
    }
    machine.fails(2, &["rebase"]);
    assert_eq!(machine.state(), before);
}

#[test]
fn a_look_before_deploy_shows_packages_and_deploys_nothing() {
    let database = |version: &str| {
        let app = Package::new("app", version).installed();
        Layer::new().file("usr/lib/sysimage/dpkg/status", 0o644, app)
    };
    let machine = Machine::new();
    machine.publish("1", [database("1")]);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    machine.publish("2", [database("2")]);
    let deployments = machine.status()["deployments"].clone();
    let shown = machine.ok(&["deploy", "--preview", "2"]);
    assert!(
        shown.starts_with("Version: 2\nDigest: sha256:") && shown.contains("Upgraded:\n  app 1 -> 2\n"),
        "{shown}"
    );
    assert!(
        machine
            .ok(&["deploy", "--preview", "1"])
            .contains("No package would change.")
    );
    assert_eq!(machine.status()["deployments"], deployments);
    machine.fails(2, &["deploy", "--preview", "--reboot", "2"]);
    machine.fails(1, &["deploy", "--preview", "9"]);
}

#[test]
fn the_version_is_told_as_yaml() {
    let machine = Machine::new();
    for arguments in [&["--version"][..], &["status", "--version"]] {
        let shown = machine.ok(arguments);
        let version = format!("apt-ostree:\n Version: '{}'\n", env!("CARGO_PKG_VERSION"));
        assert!(shown.starts_with(&version), "{shown}");
        assert!(
            shown.ends_with(" Features:\n  - rust\n  - container\n  - layering\n"),
            "{shown}"
        );
    }
}

#[test]
fn advisories_are_not_known_yet_and_that_is_said() {
    let machine = Machine::deployed();
    for arguments in [&["status", "-a", "-p"][..], &["db", "list", "-a", "0"]] {
        let output = machine.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        assert!(errors.contains("advisories are not available"), "{errors}");
    }
}
