//! Requests through `upgrade`, `rebase` and `deploy`: carried, met anew, and refused before anything is staged.

use crate::support::debian_machine::DebianMachine;
use crate::support::layer::Layer;
use crate::support::package::Package;

fn plain(name: &str, version: &str) -> Package {
    Package::new(name, version).file(&format!("usr/share/{name}"), 0o644, format!("{name} {version}\n"))
}

fn marked(version: &str) -> Layer {
    Layer::new().file("usr/share/mark", 0o644, version)
}

#[test]
fn packages_survive_upgrade_deploy_and_rebase() {
    let host = DebianMachine::new(&[plain("one", "1"), plain("two", "1")]);
    let local = host.file(&plain("mine", "1"));
    host.ok(&["install", "one", &local]);
    host.publish_image("2", [marked("2")]);
    let digest = host.status()["deployments"][0]["container-image-reference-digest"].clone();
    host.ok(&["upgrade"]);
    assert_eq!(host.text(0, "usr/share/mark"), "2");
    assert_eq!(host.text(0, "usr/share/one"), "one 1\n");
    assert_eq!(host.text(0, "usr/share/mine"), "mine 1\n");
    // Back to the first image, which a deployment below still holds, with another list of packages.
    host.ok(&[
        "deploy",
        digest.as_str().expect("a digest"),
        "--install",
        "two",
        "--uninstall",
        "one",
    ]);
    assert!(!host.has(0, "usr/share/mark") && !host.has(0, "usr/share/one"));
    assert_eq!(host.text(0, "usr/share/two"), "two 1\n");
    assert_eq!(
        host.run(&[
            "deploy",
            "--unchanged-exit-77",
            digest.as_str().expect("a digest")
        ])
        .status
        .code(),
        Some(77)
    );
    host.ok(&["upgrade"]);
    assert_eq!(host.text(0, "usr/share/mark"), "2");
    assert!(host.has(0, "usr/share/two") && host.has(0, "usr/share/mine"));
    // The same image under another name.
    let other = host.image().with_file_name("other");
    std::fs::rename(host.image(), &other).expect("the image");
    host.ok(&[
        "rebase",
        &format!("ostree-unverified-image:oci:{}", other.display()),
        "--install",
        "one",
    ]);
    for name in ["one", "two", "mine"] {
        assert!(host.has(0, &format!("usr/share/{name}")), "{name}");
    }
    host.assert_sound();
}

#[test]
fn an_upgrade_takes_newer_packages_on_the_same_image() {
    let mut host = DebianMachine::new(&[plain("one", "1")]);
    host.ok(&["install", "one"]);
    assert!(host.ok(&["upgrade"]).contains("No upgrade available."));
    host.archive.publish(&[plain("one", "2")]);
    let out = host.ok(&["upgrade"]);
    assert!(out.contains("Upgraded:") && out.contains("one 1 -> 2"), "{out}");
    assert_eq!(host.text(0, "usr/share/one"), "one 2\n");
}

#[test]
fn what_the_archive_replaced_meanwhile_is_found_again() {
    let mut host = DebianMachine::new(&[plain("one", "1"), plain("two", "1")]);
    host.ok(&["install", "two"]);
    // The lists are young, and name a file that is gone.
    host.archive.publish(&[plain("one", "2"), plain("two", "1")]);
    host.ok(&["install", "one"]);
    assert_eq!(host.text(0, "usr/share/one"), "one 2\n");
    host.fails(2, &["install", "--apply-live", "--idempotent", "one"]);
}

#[test]
fn a_package_that_no_longer_fits_stops_the_upgrade_by_name() {
    let mut host = DebianMachine::new(&[
        plain("one", "1"),
        plain("two", "1").field("Conflicts", "newcomer"),
    ]);
    host.ok(&["install", "one", "two"]);
    let before = host.status()["deployments"].clone();
    // The archive drops one, the image brings what the other conflicts with.
    host.archive
        .publish(&[plain("two", "1").field("Conflicts", "newcomer")]);
    host.publish_image("2", [marked("2")]);
    let errors = host.fails(1, &["upgrade"]);
    assert!(
        errors.contains("`one`") && errors.contains("with `apt-ostree uninstall one`\n"),
        "{errors}"
    );
    assert_eq!(host.status()["deployments"], before, "nothing is staged");
    host.publish_image(
        "3",
        [host.brings(&plain("newcomer", "1"), "usr/share/newcomer", "new\n")],
    );
    let errors = host.fails(1, &["upgrade", "--uninstall", "one"]);
    assert!(
        errors.contains("two") && errors.contains("with `apt-ostree uninstall two`\n"),
        "{errors}"
    );
    assert_eq!(host.status()["deployments"], before);
    host.ok(&["upgrade", "--uninstall", "one", "--uninstall", "two"]);
    assert_eq!(host.versions()[0], "3");
    assert!(host.leftovers().is_empty());
    host.assert_sound();
}

#[test]
fn an_override_that_no_longer_fits_is_named_as_one() {
    let mut host = DebianMachine::new(&[plain("extra", "2")]);
    let brings = |host: &DebianMachine| [host.brings(&plain("extra", "1"), "usr/share/extra", "image's\n")];
    host.publish_image("2", brings(&host));
    host.ok(&["upgrade"]);
    host.ok(&["override", "replace", "extra=2"]);
    host.archive.publish(&[plain("extra", "3")]);
    host.publish_image(
        "3",
        brings(&host).map(|layer| layer.file("usr/share/mark", 0o644, "3")),
    );
    let before = host.status()["deployments"].clone();
    let errors = host.fails(1, &["upgrade"]);
    assert!(
        errors.contains("with `apt-ostree override reset extra=2`\n") && !errors.contains("uninstall"),
        "{errors}"
    );
    assert_eq!(host.status()["deployments"], before);
    host.ok(&["override", "reset", "extra=2"]);
    host.ok(&["upgrade"]);
    assert_eq!(host.text(0, "usr/share/mark"), "3");
}

#[test]
fn a_repository_that_is_away_stops_an_upgrade_and_the_way_out_works() {
    let mut host = DebianMachine::new(&[plain("one", "1")]);
    host.ok(&["install", "one"]);
    let before = host.status()["deployments"].clone();
    host.archive.web().stop();
    // What the packages would be cannot be known, on an unchanged image either.
    let refused = |host: &DebianMachine| {
        let errors = host.fails(1, &["upgrade"]);
        assert!(
            errors.contains("cannot be reached") && errors.contains("`--cache-only`"),
            "{errors}"
        );
        assert_eq!(host.status()["deployments"], before);
    };
    refused(&host);
    assert!(
        host.ok(&["upgrade", "--cache-only"])
            .contains("No upgrade available.")
    );
    host.publish_image("2", [marked("2")]);
    refused(&host);
    host.ok(&["upgrade", "--cache-only"]);
    assert_eq!(host.text(0, "usr/share/mark"), "2");
    assert_eq!(host.text(0, "usr/share/one"), "one 1\n");
    host.assert_sound();
}

#[test]
fn what_was_downloaded_is_deployed_without_network() {
    let mut host = DebianMachine::new(&[plain("one", "1")]);
    let before = host.state();
    host.ok(&["install", "--download-only", "one"]);
    assert_eq!(host.versions().len(), 1, "nothing is deployed");
    assert_eq!(host.list("requested-packages"), Vec::<String>::new());
    assert!(before.keys().all(|key| host.state().contains_key(key)));
    host.archive.web().stop();
    host.fails(1, &["install", "--cache-only", "two"]);
    host.ok(&["install", "--cache-only", "one"]);
    assert!(host.has(0, "usr/share/one"));
    // The same for an image together with its packages.
    host.archive.web().resume();
    host.archive.publish(&[plain("one", "2")]);
    host.publish_image("2", [marked("2")]);
    host.ok(&["upgrade", "--download-only"]);
    host.archive.web().stop();
    std::fs::rename(host.image(), host.image().with_file_name("gone")).expect("the image");
    host.ok(&["upgrade", "--cache-only"]);
    assert_eq!(host.text(0, "usr/share/one"), "one 2\n");
    assert_eq!(host.text(0, "usr/share/mark"), "2");
    host.fails(2, &["upgrade", "-C", "--download-only"]);
    host.fails(2, &["install", "--dry-run", "--download-only", "one"]);
    host.assert_sound();
}

#[test]
fn a_new_image_downloads_no_package_again() {
    let host = DebianMachine::new(&[plain("one", "1"), plain("two", "1").depends("one")]);
    let mut host = host;
    host.ok(&["install", "two"]);
    host.archive.web().take_requests();
    host.publish_image("2", [marked("2")]);
    host.ok(&["upgrade"]);
    let requests = host.archive.web().take_requests();
    assert!(
        !requests.iter().any(|path| path.ends_with(".deb")),
        "{requests:?}"
    );
    assert_eq!(host.text(0, "usr/share/mark"), "2");
}

#[test]
fn kernel_arguments_and_pins_go_with_packages() {
    let host = DebianMachine::new(&[plain("one", "1"), plain("two", "1")]);
    host.ok(&["kargs", "--append=mine=1"]);
    host.ok(&["install", "one"]);
    assert_eq!(
        host.ok(&["kargs"])
            .trim()
            .split(' ')
            .filter(|word| *word == "mine=1")
            .count(),
        1
    );
    host.ok(&["kargs", "--append=mine=2"]);
    assert_eq!(host.list("packages"), ["one"]);
    host.ok(&["pin", "1"]);
    host.ok(&["install", "two"]);
    host.ok(&["uninstall", "two"]);
    let pins: Vec<bool> = host.status()["deployments"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|deployment| deployment["pinned"].as_bool().expect("a bool"))
        .collect();
    assert_eq!(pins.iter().filter(|pinned| **pinned).count(), 1, "{pins:?}");
    assert!(!pins[0], "a pin is not carried over");
    host.assert_sound();
}

#[test]
fn a_rollback_takes_packages_back_and_the_image_stays_stored() {
    let host = DebianMachine::new(&[plain("one", "1")]);
    host.ok(&["install", "one"]);
    host.ok(&["rollback"]);
    assert_eq!(host.list("requested-packages"), Vec::<String>::new());
    host.ok(&["rollback"]);
    assert_eq!(host.list("requested-packages"), ["one"]);
    host.ok(&["cleanup", "--rollback", "--base"]);
    assert_eq!(host.versions().len(), 1);
    // Only the derived commit is deployed now; its image is still there to layer on.
    std::fs::rename(host.image(), host.image().with_file_name("gone")).expect("the image");
    host.ok(&["uninstall", "one"]);
    assert!(!host.has(0, "usr/share/one"));
    host.assert_sound();
}

#[test]
fn a_look_at_an_upgrade_shows_packages_on_top_as_well() {
    let mut host = DebianMachine::new(&[plain("one", "1"), plain("helper", "1")]);
    host.ok(&["install", "one"]);
    let none = |host: &DebianMachine, option: &str| {
        let output = host.run(&["upgrade", option]);
        assert_eq!(output.status.code(), Some(77), "{option}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "No updates available.\n");
    };
    none(&host, "--check");
    none(&host, "--preview");
    let deployments = host.status()["deployments"].clone();
    // The same image: what the repository has by now, with what it needs.
    host.archive
        .publish(&[plain("one", "2").depends("helper"), plain("helper", "1")]);
    for option in ["--check", "--preview"] {
        let shown = host.ok(&["upgrade", option]);
        assert!(
            shown.contains("Diff: 1 upgraded, 0 downgraded, 0 removed, 1 added")
                && shown.contains("    one 1 -> 2\n    +helper 1\n")
                && shown.contains("Added layers: 0 "),
            "{shown}"
        );
    }
    // Another image, which brings a package and drops none that is on top.
    host.publish_image(
        "2",
        [host.brings(&plain("extra", "1"), "usr/share/extra", "image's\n")],
    );
    let output = host.run(&["upgrade", "--check"]);
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && notes.contains("were not compared"),
        "{notes}"
    );
    let shown = host.ok(&["upgrade", "--check", "--preview"]);
    assert!(
        shown.contains("Diff: 1 upgraded, 0 downgraded, 0 removed, 2 added")
            && shown.contains("+extra 1")
            && shown.contains("Added layers: 1 "),
        "{shown}"
    );
    // What an upgrade would fail at.
    host.archive.publish(&[plain("helper", "1")]);
    let errors = host.fails(1, &["upgrade", "--preview"]);
    assert!(errors.contains("apt-ostree uninstall one"), "{errors}");
    assert_eq!(host.status()["deployments"], deployments);
    assert!(host.leftovers().is_empty());
}
