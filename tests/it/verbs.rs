//! The verbs on a scratch sysroot with a real registry: what each leaves behind and says.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::image::{Image, root_layer};
use crate::support::layer::Layer;
use crate::support::machine::{Machine, changed_file};
use crate::support::{relay::Relay, repo};

fn text(path: impl AsRef<std::path::Path>) -> String {
    std::fs::read_to_string(path.as_ref())
        .unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn rebase_upgrade_and_rollback() {
    let machine = Machine::new();
    machine.publish("1", []);
    let out = machine.ok(&["rebase", &machine.reference("os:stable")]);
    assert!(
        out.contains("Queued for next boot: ostree-unverified-registry:"),
        "{out}"
    );
    assert_eq!(machine.versions(), ["1"]);
    let root = machine.root(0);
    assert_eq!(text(root.join("usr/etc/motd")), "version 1\n");
    assert!(
        text(root.with_extension("0.origin"))
            .contains("container-image-reference=ostree-unverified-registry:")
    );

    // A local change to /etc survives, and a new default of the image arrives.
    std::fs::write(root.join("etc/motd"), "mine\n").unwrap();
    machine.publish(
        "2",
        [
            changed_file("etc/new-default", "2\n"),
            changed_file("usr/bin/tool", "2\n"),
        ],
    );
    machine.ok(&["upgrade"]);
    assert_eq!(machine.versions(), ["2", "1"]);
    let root = machine.root(0);
    assert_eq!(text(root.join("etc/motd")), "mine\n");
    assert_eq!(text(root.join("etc/new-default")), "2\n");
    assert_eq!(text(root.join("usr/bin/tool")), "2\n");

    machine.ok(&["rollback"]);
    assert_eq!(machine.versions(), ["1", "2"]);
    machine.ok(&["rollback"]);
    assert_eq!(machine.versions(), ["2", "1"]);
    machine.assert_sound();
}

#[test]
fn a_bare_name_says_which_form_it_chose() {
    let machine = Machine::new();
    machine.publish("1", []);
    let output = machine.run(&["rebase", &format!("{}/os:stable", machine.registry.location())]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("ostree-unverified-registry:"), "{errors}");
}

#[test]
fn an_upgrade_without_news_is_one_manifest_fetch() {
    let machine = Machine::deployed();
    let relay = Relay::start(machine.registry.port());
    machine
        .home
        .insecure(&[&machine.registry.location(), &relay.location()]);
    machine.ok(&["rebase", &relay.reference("os:stable")]);
    relay.take_requests();
    let before = machine.state();
    let out = machine.ok(&["upgrade"]);
    assert!(out.contains("No upgrade available."), "{out}");
    let requests = relay.take_requests();
    let fetched: Vec<&String> = requests.iter().filter(|line| !line.ends_with("/v2/")).collect();
    assert_eq!(fetched.len(), 1, "{requests:?}");
    assert!(fetched[0].contains("/manifests/"), "{requests:?}");
    assert_eq!(machine.state(), before);
    assert_eq!(
        machine.run(&["upgrade", "--unchanged-exit-77"]).status.code(),
        Some(77)
    );
}

#[test]
fn check_and_preview_look_without_deploying() {
    let machine = Machine::deployed();
    assert_eq!(machine.run(&["upgrade", "--check"]).status.code(), Some(77));
    let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.2-1\n";
    machine.publish(
        "2",
        [Layer::new().file("usr/lib/sysimage/dpkg/status", 0o644, status)],
    );
    let before = machine.state();
    let out = machine.ok(&["upgrade", "--check"]);
    assert!(
        out.contains("AvailableUpdate:") && out.contains("Added layers: 2"),
        "{out}"
    );
    assert_eq!(machine.state(), before, "a check writes nothing");
    let out = machine.ok(&["upgrade", "--preview"]);
    assert!(
        out.contains("+a 1.2-1") && out.contains("0 upgraded, 0 downgraded, 0 removed, 1 added"),
        "{out}"
    );
    assert_eq!(machine.versions(), ["1"]);
    machine.assert_sound();
}

#[test]
fn download_only_then_cache_only_needs_no_network() {
    let mut machine = Machine::deployed();
    machine.publish("2", []);
    let out = machine.ok(&["upgrade", "--download-only"]);
    assert!(out.contains("Update downloaded"), "{out}");
    assert_eq!(machine.versions(), ["1"]);
    machine.registry.stop();
    machine.ok(&["upgrade", "--cache-only"]);
    assert_eq!(machine.versions(), ["2", "1"]);
    let errors = machine.fails(1, &["rebase", "--cache-only", &machine.reference("other:1")]);
    assert!(
        errors.contains("is not stored on this host") && errors.contains("hint:"),
        "{errors}"
    );
}

#[test]
fn an_older_image_needs_consent() {
    let machine = Machine::new();
    machine.publish("5", []);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    machine.publish("3", []);
    let before = machine.state();
    let errors = machine.fails(1, &["upgrade"]);
    assert!(
        errors.contains("is older") && errors.contains("--allow-downgrade"),
        "{errors}"
    );
    assert_eq!(machine.versions(), ["5"]);
    assert!(before.keys().all(|key| machine.state().contains_key(key)));
    machine.ok(&["upgrade", "--allow-downgrade"]);
    assert_eq!(machine.versions(), ["3", "5"]);
}

#[test]
fn deploy_by_digest_and_version() {
    let machine = Machine::new();
    let first = machine.publish("1", []);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    machine.publish("2", []);
    machine.publish("3", []);
    machine.ok(&["upgrade"]);
    machine.ok(&["deploy", &first.manifest_digest]);
    assert_eq!(machine.versions(), ["1", "3"]);
    assert_eq!(
        machine.status()["deployments"][0]["override-commit"],
        first.manifest_digest.as_str()
    );
    machine.ok(&["deploy", "version=2"]);
    assert_eq!(machine.versions(), ["2", "1"]);
    assert_eq!(
        machine
            .run(&["deploy", "--unchanged-exit-77", "version=2"])
            .status
            .code(),
        Some(77)
    );
    // The tag is followed again by the next upgrade.
    machine.ok(&["upgrade"]);
    assert_eq!(machine.versions(), ["3", "2"]);
    assert!(
        machine.status()["deployments"][0]
            .get("override-commit")
            .is_none()
    );
    let errors = machine.fails(1, &["deploy", "version=99"]);
    assert!(errors.contains("99"), "{errors}");
    machine.fails(2, &["deploy", "sha256:abc"]);
    machine.assert_sound();
}

#[test]
fn kernel_arguments_carry_over_and_follow_the_image() {
    let machine = Machine::new();
    let kargs_d = |list: &str| {
        Layer::new().file(
            "usr/lib/bootc/kargs.d/10.toml",
            0o644,
            format!("kargs = {list}\n"),
        )
    };
    machine.publish("1", [kargs_d("[\"from-image=1\", \"stays\"]")]);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    machine.ok(&["kargs", "--append=mine=1", "--append-if-missing=stays"]);
    assert_eq!(machine.ok(&["kargs"]).trim(), "from-image=1 stays mine=1");
    machine.publish("2", [kargs_d("[\"stays\", \"fresh=2\"]")]);
    machine.ok(&["upgrade"]);
    assert_eq!(machine.ok(&["kargs"]).trim(), "stays mine=1 fresh=2");
    machine.ok(&["kargs", "--replace=mine=2"]);
    machine.ok(&["kargs", "--delete=fresh"]);
    assert_eq!(machine.ok(&["kargs"]).trim(), "stays mine=2");
    assert_eq!(
        machine
            .run(&["kargs", "--unchanged-exit-77", "--append-if-missing=stays"])
            .status
            .code(),
        Some(77)
    );
    let before = machine.state();
    for bad in ["a;b", "$(reboot)", "a b", "ostree=/x"] {
        let errors = machine.fails(2, &["kargs", &format!("--append={bad}")]);
        assert!(errors.contains("is refused"), "{errors}");
    }
    machine.fails(1, &["kargs", "--delete=nothing-there"]);
    assert_eq!(machine.state(), before);
    machine.publish("3", [kargs_d("[\"a;reboot\"]")]);
    let errors = machine.fails(1, &["upgrade"]);
    assert!(errors.contains("kargs.d/10.toml"), "{errors}");
    assert_eq!(machine.versions()[0], "2");
}

#[test]
fn pinned_deployments_stay_and_cleanup_drops_the_others() {
    let machine = Machine::deployed();
    machine.ok(&["pin", "0"]);
    assert!(machine.ok(&["pin", "0"]).contains("already"));
    for version in ["2", "3"] {
        machine.publish(version, []);
        machine.ok(&["upgrade"]);
    }
    assert_eq!(machine.versions(), ["3", "2", "1"]);
    machine.ok(&["cleanup", "--rollback"]);
    assert_eq!(machine.versions(), ["3", "1"]);
    machine.ok(&["unpin", "1"]);
    machine.ok(&["cleanup", "-r"]);
    assert_eq!(machine.versions(), ["3"]);
    assert!(machine.ok(&["cleanup", "-r"]).contains("unchanged"));
    machine.fails(2, &["cleanup"]);
    machine.fails(1, &["pin", "7"]);
    machine.assert_sound();
}

#[test]
fn collection_keeps_what_deployments_need_and_nothing_else() {
    let machine = Machine::new();
    let layers = |n: &str| {
        [
            changed_file("usr/share/data", n),
            Layer::new().noise(&format!("usr/share/noise-{n}"), 4096),
        ]
    };
    machine.publish("1", layers("1"));
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    for version in ["2", "3"] {
        machine.publish(version, layers(version));
        machine.ok(&["upgrade"]);
    }
    let refs = repo::refs(&machine.sysroot.repo());
    let count = |prefix: &str| refs.keys().filter(|name| name.starts_with(prefix)).count();
    assert_eq!(count("ostree/container/image/"), 1);
    assert_eq!(count("ostree/container/baseimage/apt-ostree/"), 2, "{refs:#?}");
    // Versions 2 and 3 have three layers each and share none.
    assert_eq!(count("ostree/container/blob/"), 6, "{refs:#?}");
    machine.ok(&["rollback"]);
    machine.ok(&["cleanup", "--base"]);
    assert_eq!(machine.versions(), ["2", "3"]);
    machine.assert_sound();
}

#[test]
fn another_reference_can_be_followed_and_the_same_one_changes_nothing() {
    let machine = Machine::deployed();
    let before = machine.state();
    let out = machine.ok(&["rebase", &machine.reference("os:stable")]);
    assert!(out.contains("already follows"), "{out}");
    assert_eq!(machine.state(), before);
    // The same image under another name is another intent.
    machine.ok(&["rebase", &machine.reference("os:1")]);
    assert_eq!(machine.versions(), ["1", "1"]);
    let status = machine.status();
    assert!(
        status["deployments"][0]["container-image-reference"]
            .as_str()
            .unwrap()
            .ends_with("os:1")
    );
}

#[test]
fn trees_that_cannot_boot_are_refused() {
    let machine = Machine::deployed();
    let before = machine.state();
    let second_kernel = Layer::new()
        .file("usr/lib/modules/6.2.0-other/vmlinuz", 0o644, "k")
        .file("usr/lib/modules/6.2.0-other/initramfs.img", 0o644, "i");
    let no_kernel = Layer::new().whiteout("usr/lib/modules/6.1.0-test");
    let no_initramfs = Layer::new().whiteout("usr/lib/modules/6.1.0-test/initramfs.img");
    let title = changed_file("usr/lib/os-release", "ID=debian\nPRETTY_NAME=\"Bob's; reboot\"\n");
    for (layer, expected) in [
        (second_kernel, "6.1.0-test, 6.2.0-other"),
        (no_kernel, "holds no kernel"),
        (no_initramfs, "has no /usr/lib/modules/6.1.0-test/initramfs.img"),
        (title, "GRUB would read as script"),
    ] {
        machine.publish("2", [layer]);
        let errors = machine.fails(1, &["upgrade"]);
        assert!(errors.contains(expected) && errors.contains("hint:"), "{errors}");
        assert_eq!(machine.versions(), ["1"]);
        let kept = |state: std::collections::BTreeMap<String, String>| {
            state
                .into_iter()
                .filter(|(name, _)| name.contains("loader/entries"))
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(machine.state()), kept(before.clone()));
        machine.assert_sound();
    }
    let image = Image::new().label("containers.bootc", "1").layer(root_layer("2"));
    machine.publish_image("3", image.created("2026-02-01T00:00:00Z"), []);
    machine.ok(&["upgrade"]);
    assert_eq!(machine.versions().len(), 2);
}
