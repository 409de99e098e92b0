//! `override` on a host that runs the real Debian image: packages of the image taken out or exchanged.

use crate::support::debian_machine::DebianMachine;
use crate::support::layer::Layer;
use crate::support::package::Package;

fn plain(name: &str, version: &str) -> Package {
    Package::new(name, version).file(&format!("usr/share/{name}"), 0o644, format!("{name} {version}\n"))
}

/// Makes version 2 of the image, which has the package `extra` with one file, and boots it next.
fn with_extra(packages: &[Package]) -> DebianMachine {
    let host = DebianMachine::new(packages);
    host.publish_image("2", extra(&host, "1"));
    host.ok(&["upgrade"]);
    host
}

/// Returns the layer that gives an image the package `extra` of this version.
fn extra(host: &DebianMachine, version: &str) -> [Layer; 1] {
    [host.brings(
        &plain("extra", version),
        "usr/share/extra",
        &format!("image's {version}\n"),
    )]
}

#[test]
fn a_removal_is_carried_sleeps_and_is_taken_back() {
    let mut host = with_extra(&[plain("one", "1")]);
    let image = host.status()["deployments"][0]["checksum"].clone();
    host.archive.web().stop();
    host.ok(&["override", "remove", "extra"]);
    assert!(!host.has(0, "usr/share/extra"));
    assert!(
        !host
            .text(0, "usr/lib/sysimage/dpkg/status")
            .contains("Package: extra\n")
    );
    assert_eq!(host.list("requested-base-removals"), ["extra"]);
    let shown = host.ok(&["status"]);
    assert!(shown.contains("RemovedBasePackages: extra"), "{shown}");
    assert_eq!(host.ok(&["override", "list"]), "remove extra 1\n");
    host.archive.web().resume();
    let errors = host.fails(1, &["install", "extra"]);
    assert!(errors.contains("override reset extra"), "{errors}");
    // Carried through an upgrade, asleep while the image has no such package, and awake again.
    host.publish_image("3", extra(&host, "2"));
    host.ok(&["upgrade"]);
    assert_eq!(host.ok(&["override", "list"]), "remove extra 2\n");
    host.publish_image("4", []);
    host.ok(&["upgrade"]);
    assert_eq!(host.ok(&["override", "list"]), "remove extra (inactive)\n");
    let shown = host.ok(&["status"]);
    assert!(shown.contains("InactiveBaseRemovals: extra"), "{shown}");
    host.publish_image("5", extra(&host, "1"));
    host.ok(&["upgrade"]);
    assert!(!host.has(0, "usr/share/extra"));
    host.ok(&["override", "reset", "extra"]);
    assert_eq!(host.text(0, "usr/share/extra"), "image's 1\n");
    assert_eq!(host.ok(&["override", "list"]), "No overrides.\n");
    assert_ne!(host.status()["deployments"][0]["checksum"], image);
    host.assert_sound();
}

#[test]
fn what_cannot_be_overridden_is_told() {
    let host = with_extra(&[plain("one", "1")]);
    host.ok(&["install", "one"]);
    let before = host.state();
    let errors = host.fails(1, &["override", "remove", "one", "nowhere"]);
    assert!(
        errors.contains("one: it is layered") && errors.contains("nowhere: the image has no such package"),
        "{errors}"
    );
    host.fails(1, &["override", "reset", "extra"]);
    host.fails(2, &["override", "remove", "./a.deb"]);
    let errors = host.fails(1, &["override", "remove", "dpkg"]);
    assert!(errors.contains("dpkg"), "{errors}");
    assert_eq!(host.state(), before);
}

#[test]
fn a_replacement_follows_the_repository() {
    let mut host = with_extra(&[plain("extra", "3"), plain("extra", "2")]);
    host.ok(&["override", "replace", "extra=2"]);
    assert_eq!(host.text(0, "usr/share/extra"), "extra 2\n");
    assert_eq!(host.ok(&["override", "list"]), "replace extra 1 -> 2\n");
    host.ok(&["override", "replace", "extra"]);
    assert_eq!(host.text(0, "usr/share/extra"), "extra 3\n");
    host.archive.publish(&[plain("extra", "4")]);
    host.ok(&["upgrade"]);
    assert_eq!(host.text(0, "usr/share/extra"), "extra 4\n");
    let shown = host.ok(&["status"]);
    assert!(shown.contains("RemoteOverrides: extra 1 -> 4"), "{shown}");
    let list: serde_json::Value =
        serde_json::from_str(&host.ok(&["override", "list", "--json"])).expect("JSON");
    assert_eq!(list[0]["after"], "4");
    assert_eq!(list[0]["active"], true);
    host.ok(&["override", "reset", "--all"]);
    assert_eq!(host.text(0, "usr/share/extra"), "image's 1\n");
}

#[test]
fn a_file_replaces_a_package_up_and_down() {
    let mut host = with_extra(&[plain("one", "1")]);
    host.archive.web().stop();
    let down = host.file(&plain("extra", "0.5"));
    host.ok(&["override", "replace", "-C", &down]);
    assert_eq!(host.text(0, "usr/share/extra"), "extra 0.5\n");
    let up = host.file(&plain("extra", "9"));
    host.ok(&["override", "replace", "-C", &up]);
    assert_eq!(
        host.ok(&["override", "list"]),
        "replace extra 1 -> 9 (from a file)\n"
    );
    assert!(host.ok(&["status"]).contains("LocalOverrides: extra 1 -> 9"));
    host.archive.web().resume();
    host.publish_image("3", extra(&host, "2"));
    host.ok(&["upgrade", "--install", "one"]);
    assert_eq!(host.text(0, "usr/share/extra"), "extra 9\n");
    assert!(host.has(0, "usr/share/one"));
    host.ok(&["override", "reset", "extra_9_all", "--uninstall", "one"]);
    assert_eq!(host.text(0, "usr/share/extra"), "image's 2\n");
    assert!(!host.has(0, "usr/share/one"));
    host.assert_sound();
}

#[test]
fn reset_drops_what_it_is_told_to() {
    let host = with_extra(&[plain("one", "1"), plain("two", "1")]);
    let image = host.status()["deployments"][0]["checksum"].clone();
    host.ok(&["override", "remove", "extra", "--install", "one"]);
    host.ok(&["reset", "--overlays"]);
    assert_eq!(host.list("requested-packages"), Vec::<String>::new());
    assert_eq!(host.list("requested-base-removals"), ["extra"]);
    host.ok(&["reset", "--overrides", "--install", "two"]);
    assert_eq!(host.list("requested-base-removals"), Vec::<String>::new());
    assert_eq!(host.list("requested-packages"), ["two"]);
    assert!(host.has(0, "usr/share/extra"));
    host.ok(&["reset"]);
    assert_eq!(host.status()["deployments"][0]["checksum"], image);
    assert!(host.ok(&["reset"]).contains("No changes."));
}

#[test]
fn reset_rescues_an_origin_that_cannot_be_used() {
    let host = with_extra(&[plain("one", "1")]);
    let serial = host.status()["deployments"][0]["serial"].clone();
    let origin = host.root(0).with_extension(format!("{serial}.origin"));
    let mut text = std::fs::read_to_string(&origin).expect("the origin");
    text += "\n[packages]\nrequested=--force;\n";
    std::fs::write(&origin, text).expect("the origin");
    let errors = host.fails(1, &["install", "one"]);
    assert!(
        errors.contains("`requested` in `[packages]`") && errors.contains("apt-ostree reset"),
        "{errors}"
    );
    assert!(
        host.ok(&["status"]).contains("`requested` in `[packages]`"),
        "status tells and goes on"
    );
    host.ok(&["reset"]);
    host.ok(&["install", "one"]);
    assert_eq!(host.list("requested-packages"), ["one"]);
}

#[test]
fn rpm_ostrees_way_to_name_a_repository_means_a_suite() {
    let mut host = with_extra(&[plain("extra", "3")]);
    host.archive
        .publish_in("backports", "main", &[plain("extra", "5")]);
    host.use_archive();
    let replace = ["override", "replace", "--experimental", "extra"];
    let with = |more: &[&'static str]| [&replace[..], more].concat();
    host.fails(2, &with(&["--from=backports"]));
    host.fails(2, &with(&["--freeze", "--from=repo=backports"]));
    host.fails(2, &["override", "replace", "--from=repo=backports", "extra=3"]);
    host.ok(&with(&["--from=repo=backports"]));
    assert_eq!(host.text(0, "usr/share/extra"), "extra 5\n");
    assert_eq!(
        host.list("requested-base-remote-replacements"),
        ["extra/backports"]
    );
}
