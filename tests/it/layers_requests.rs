//! `install` and `uninstall` on a host that runs the real Debian image, with a real repository and the image's own
//! dpkg: what each leaves behind and says.

use crate::support::debian_machine::DebianMachine;
use crate::support::package::Package;
use crate::support::repo;

fn tool(version: &str) -> Package {
    Package::new("tool", version)
        .depends("libtool-test")
        .file("usr/bin/tool", 0o755, format!("#!/bin/sh\necho {version}\n"))
        .conffile("etc/tool.conf", "default\n")
}

fn library() -> Package {
    Package::new("libtool-test", "1:0-1").file("usr/lib/libtool-test", 0o644, "library\n")
}

fn plain(name: &str, version: &str) -> Package {
    Package::new(name, version).file(&format!("usr/share/{name}"), 0o644, format!("{name} {version}\n"))
}

#[test]
fn a_package_comes_with_what_it_needs_and_goes_without_a_trace() {
    let host = DebianMachine::new(&[tool("2:1.0-1"), library(), plain("other", "1")]);
    let before = host.status()["deployments"][0].clone();
    let out = host.ok(&["install", "tool"]);
    assert!(
        out.contains("Added:") && out.contains("tool_2:1.0-1_all") && out.contains("libtool-test_1:0-1_all"),
        "{out}"
    );
    assert!(host.text(0, "usr/bin/tool").contains("echo 2:1.0-1"));
    assert_eq!(host.text(0, "usr/etc/tool.conf"), "default\n");
    assert_eq!(host.text(0, "etc/tool.conf"), "default\n");
    assert_eq!(host.text(0, "usr/lib/libtool-test"), "library\n");
    assert_eq!(host.list("requested-packages"), ["tool"]);
    assert_eq!(host.list("packages"), ["tool"]);
    let status = host.status();
    let layered = &status["deployments"][0];
    assert_eq!(layered["base-checksum"], before["checksum"]);
    assert_eq!(layered["base-timestamp"], before["timestamp"]);
    assert_eq!(layered["version"], before["version"]);
    assert_eq!(
        layered["container-image-reference-digest"],
        before["container-image-reference-digest"]
    );
    let packages = layered["layered-commit-meta"]["packages"]
        .as_array()
        .expect("packages");
    assert_eq!(packages.len(), 2, "{layered:#}");
    assert!(
        packages.iter().all(|package| package["repository"]
            .as_str()
            .is_some_and(|name| name.contains("Test"))),
        "the record names repositories: {packages:#?}"
    );
    let shown = host.ok(&["status", "-v"]);
    assert!(
        shown.contains(" + 1 package (")
            && shown.contains("LayeredPackages: tool")
            && shown.contains("BaseCommit: "),
        "{shown}"
    );
    assert!(
        host.text(0, "usr/lib/sysimage/dpkg/status")
            .contains("Package: tool\n")
    );
    host.assert_sound();
    assert!(host.leftovers().is_empty());

    let out = host.ok(&["uninstall", "tool"]);
    assert!(out.contains("Removed:"), "{out}");
    let after = host.status()["deployments"][0].clone();
    assert_eq!(
        after["checksum"], before["checksum"],
        "the image itself is deployed again"
    );
    let origin = host.root(0).with_extension(format!("{}.origin", after["serial"]));
    let origin = std::fs::read_to_string(origin).expect("the origin");
    assert!(
        !origin.contains("[packages]"),
        "bootc refuses that group: {origin}"
    );
    host.assert_sound();
}

#[test]
fn mistakes_are_told_all_at_once_and_nothing_changes() {
    let host = DebianMachine::new(&[plain("one", "1"), plain("two", "1")]);
    host.ok(&["install", "one"]);
    let before = host.state();
    let errors = host.fails(1, &["install", "nothing-a", "two", "nothing-b"]);
    assert!(
        errors.contains("`nothing-a`") && errors.contains("`nothing-b`"),
        "{errors}"
    );
    let errors = host.fails(1, &["install", "one", "--uninstall=three", "--uninstall=four"]);
    for part in [
        "one: it is requested already",
        "three: it is not requested",
        "four: it is not requested",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
    assert!(errors.contains("hint: "), "{errors}");
    host.fails(1, &["uninstall", "three"]);
    host.fails(2, &["install", "http://example.org/a.deb"]);
    host.fails(2, &["install", "--", "-x"]);
    host.fails(2, &["install"]);
    host.fails(2, &["uninstall"]);
    assert_eq!(host.state(), before);
    assert!(host.leftovers().is_empty());
}

#[test]
fn repeating_a_request_is_safe_where_that_is_asked_for() {
    let host = DebianMachine::new(&[plain("one", "1")]);
    host.ok(&["install", "one"]);
    let before = host.state();
    let run = |arguments: &[&str]| host.run(arguments).status.code();
    assert_eq!(run(&["install", "--idempotent", "one"]), Some(0));
    assert_eq!(
        run(&["install", "--idempotent", "--unchanged-exit-77", "one"]),
        Some(77)
    );
    assert_eq!(
        run(&["uninstall", "--idempotent", "--unchanged-exit-77", "two"]),
        Some(77)
    );
    assert_eq!(run(&["upgrade", "--unchanged-exit-77"]), Some(77));
    assert_eq!(host.state(), before);
}

#[test]
fn a_dry_run_shows_everything_and_changes_nothing() {
    let host = DebianMachine::new(&[tool("1"), library()]);
    let before = host.state();
    let out = host.ok(&["install", "--dry-run", "tool"]);
    assert!(
        out.contains("Installing 2 packages:") && out.contains("Download: ") && out.contains("--dry-run"),
        "{out}"
    );
    let out = host.ok(&["install", "-n", "--json", "tool"]);
    let plan: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(plan["packages"][0]["id"]["name"], "libtool-test");
    assert_eq!(plan["packages"][1]["id"]["version"], "1");
    assert!(
        plan["totals"]["download-size"]
            .as_u64()
            .is_some_and(|size| size > 0)
    );
    assert_eq!(host.state(), before);
    assert!(host.leftovers().is_empty());
}

#[test]
fn what_the_image_has_is_refused_or_dormant() {
    let host = DebianMachine::new(&[plain("one", "1")]);
    let errors = host.fails(1, &["install", "bash", "one"]);
    assert!(
        errors.contains("provides already: bash (by bash ") && errors.contains("--allow-inactive"),
        "{errors}"
    );
    let commit = host.status()["deployments"][0]["checksum"].clone();
    host.ok(&["install", "--allow-inactive", "bash"]);
    assert_eq!(
        host.status()["deployments"][0]["checksum"],
        commit,
        "nothing is layered"
    );
    assert_eq!(host.list("inactive-requests"), ["bash"]);
    assert_eq!(host.list("packages"), Vec::<String>::new());
    let shown = host.ok(&["status"]);
    assert!(shown.contains("InactiveRequests: bash"), "{shown}");
    host.ok(&["install", "one"]);
    assert_eq!(host.list("packages"), ["one"]);
    assert_eq!(host.list("inactive-requests"), ["bash"]);
}

#[test]
fn requests_fall_asleep_and_wake_with_the_image() {
    let host = DebianMachine::new(&[plain("one", "1"), plain("two", "1")]);
    host.ok(&["install", "one", "two"]);
    // The next image brings `one` itself.
    host.publish_image(
        "2",
        [host.brings(&plain("one", "1"), "usr/share/image-one", "one\n")],
    );
    host.ok(&["upgrade"]);
    assert_eq!(host.list("inactive-requests"), ["one"]);
    assert_eq!(host.list("packages"), ["two"]);
    assert!(!host.has(0, "usr/share/one") && host.has(0, "usr/share/image-one"));
    host.publish_image("3", []);
    host.ok(&["upgrade"]);
    assert_eq!(host.list("inactive-requests"), Vec::<String>::new());
    assert_eq!(host.list("packages"), ["one", "two"]);
    assert_eq!(host.text(0, "usr/share/one"), "one 1\n");
    host.assert_sound();
}

#[test]
fn all_packages_go_at_once_and_others_come_with_it() {
    let host = DebianMachine::new(&[plain("one", "1"), plain("two", "1"), plain("three", "1")]);
    host.ok(&["install", "one", "two"]);
    host.ok(&["uninstall", "--all", "--install", "three"]);
    assert_eq!(host.list("requested-packages"), ["three"]);
    assert!(host.has(0, "usr/share/three") && !host.has(0, "usr/share/one"));
    host.ok(&["install", "one", "--uninstall", "three"]);
    assert_eq!(host.list("requested-packages"), ["one"]);
    host.ok(&["remove", "one"]);
    assert_eq!(host.list("requested-packages"), Vec::<String>::new());
}

#[test]
fn packages_that_exclude_each_other_are_named() {
    let host = DebianMachine::new(&[
        plain("one", "1").field("Conflicts", "two"),
        plain("two", "1"),
        plain("enemy", "1").field("Conflicts", "bash"),
    ]);
    host.ok(&["install", "one"]);
    let before = host.state();
    let errors = host.fails(1, &["install", "two"]);
    assert!(errors.contains("two") && errors.contains("one"), "{errors}");
    let errors = host.fails(1, &["install", "enemy"]);
    assert!(errors.contains("enemy") && errors.contains("bash"), "{errors}");
    assert_eq!(host.state(), before);
}

#[test]
fn a_rebuilt_package_of_the_same_version_is_layered_anew() {
    let mut host = DebianMachine::new(&[plain("one", "1"), plain("two", "1")]);
    host.ok(&["install", "one"]);
    let first = host.status()["deployments"][0]["checksum"].clone();
    let rebuilt = Package::new("one", "1").file("usr/share/one", 0o644, "rebuilt\n");
    host.archive.publish(&[rebuilt, plain("two", "1")]);
    host.ok(&["upgrade"]);
    assert_eq!(host.text(0, "usr/share/one"), "rebuilt\n");
    assert_ne!(host.status()["deployments"][0]["checksum"], first);
}

#[test]
fn the_same_requests_give_the_same_commit() {
    let host = DebianMachine::new(&[plain("one", "1"), plain("two", "1")]);
    let commit = || host.status()["deployments"][0]["checksum"].clone();
    host.ok(&["install", "one"]);
    let tree = |commit: &serde_json::Value| {
        let commit = commit.as_str().expect("a checksum");
        let list = ["ls", "-d", "-C", commit, "/"];
        repo::ostree(&host.sysroot.repo(), &list)
    };
    let (first, first_tree) = (commit(), tree(&commit()));
    host.ok(&["install", "two"]);
    host.ok(&["uninstall", "two"]);
    assert_eq!(commit(), first, "the deployment behind is used again");
    host.ok(&["uninstall", "one"]);
    host.ok(&["cleanup", "--rollback"]);
    host.ok(&["install", "one"]);
    assert_eq!(tree(&commit()), first_tree, "made again from scratch");
}

#[test]
fn names_with_spaces_and_quotes_and_opt_arrive() {
    let odd = "usr/share/odd/it's \"a\" $(name)";
    let host = DebianMachine::new(&[Package::new("odd", "1")
        .file(odd, 0o644, "odd\n")
        .file("opt/vendor/bin/app", 0o755, "app\n")
        .file("usr/local/share/odd", 0o644, "local\n")]);
    host.ok(&["install", "odd"]);
    assert_eq!(host.text(0, odd), "odd\n");
    assert_eq!(host.text(0, "usr/lib/opt/vendor/bin/app"), "app\n");
    host.assert_sound();
}
