//! Who may do what through the service: every action allowed and denied, for a user without rights of its own.

use crate::support::bus::connect_to_transaction;
use crate::support::polkit::Polkit;
use crate::support::service::{NAME, OTHER, Service, USER};
use apt_ostree::daemon::ACTIONS;
use apt_ostree::daemon::proxy::Transaction;
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::report::Silent;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A request for each action that a request can need, with all that it needs.
fn requests() -> Vec<(&'static str, Value, &'static [&'static str])> {
    vec![
        ("upgrade", json!({}), &["upgrade"]),
        ("automatic-update", json!({}), &["upgrade"]),
        (
            "rebase",
            json!({ "reference": "registry.example/os:1" }),
            &["rebase"],
        ),
        ("deploy", json!({ "revision": "1" }), &["deploy"]),
        (
            "install",
            json!({ "packages": ["htop"] }),
            &["install-uninstall-packages"],
        ),
        (
            "install",
            json!({ "packages": ["https://deb.example/a.deb"] }),
            &["install-local-packages", "install-uninstall-packages"],
        ),
        (
            "uninstall",
            json!({ "packages": ["htop"] }),
            &["install-uninstall-packages"],
        ),
        ("override-replace", json!({ "packages": ["htop"] }), &["override"]),
        ("override-remove", json!({ "packages": ["htop"] }), &["override"]),
        ("override-reset", json!({ "all": true }), &["override"]),
        ("reset", json!({}), &["reset"]),
        ("initramfs", json!({ "disable": true }), &["bootconfig"]),
        ("initramfs-etc", json!({ "force-sync": true }), &["bootconfig"]),
        ("kargs", json!({ "append": ["a"] }), &["bootconfig"]),
        ("rollback", json!({}), &["rollback"]),
        ("cleanup", json!({ "base": true }), &["cleanup"]),
        ("pin", json!({}), &["pin"]),
        ("unpin", json!({}), &["pin"]),
        (
            "finalize-deployment",
            json!({ "allow-missing-checksum": true }),
            &["finalize-deployment", "reboot"],
        ),
        ("apply-live", json!({}), &["apply-live"]),
        ("usroverlay", json!({}), &["usroverlay"]),
        ("refresh-md", json!({}), &["repo-refresh"]),
        ("fsck", json!({}), &["repair"]),
        (
            "image-pull",
            json!({ "reference": "registry.example/os:1" }),
            &["image"],
        ),
        (
            "image-remove",
            json!({ "reference": "registry.example/os:1" }),
            &["image"],
        ),
        ("image-prune", json!({}), &["image"]),
        (
            "upgrade",
            json!({ "install": ["htop"], "reboot": true }),
            &["install-uninstall-packages", "reboot", "upgrade"],
        ),
    ]
}

fn kind(error: &anyhow::Error) -> Option<Kind> {
    Fault::find(error).map(|fault| fault.kind)
}

#[test]
fn every_action_is_asked_for_and_obeyed() {
    let service = Service::start();
    let polkit = Polkit::start(&service.bus);
    let client = service.client(USER);
    let root = service.client(0);
    // Nothing starts: what is granted waits, and is cancelled by root.
    let mut seen = BTreeSet::from(["cancel", "reload-daemon"]);
    for (verb, options, actions) in requests() {
        seen.extend(actions);
        for missing in actions {
            let others: Vec<&str> = actions
                .iter()
                .copied()
                .filter(|action| action != missing)
                .collect();
            polkit.allow(&others);
            let error = client.ask(verb, options.clone()).expect_err("denied");
            assert_eq!(kind(&error), Some(Kind::Denied), "{verb}: {error:#}");
            assert!(
                error.to_string().contains(&format!("{NAME}.{missing}")),
                "{verb}: {error:#}"
            );
        }
        polkit.allow(actions);
        polkit.take_asked();
        client
            .ask(verb, options.clone())
            .unwrap_or_else(|error| panic!("{verb} {options}: {error:#}"));
        let asked = polkit.take_asked();
        let names: Vec<String> = asked.iter().map(|asked| asked.action.clone()).collect();
        let expected: Vec<String> = actions.iter().map(|action| format!("{NAME}.{action}")).collect();
        assert_eq!(names, expected, "{verb}");
        for question in asked {
            assert_eq!(
                (question.kind.as_str(), question.name.as_str()),
                ("system-bus-name", client.name().as_str())
            );
            assert_eq!(question.details["verb"], verb);
            assert!(question.is_interactive, "the client lets a person be asked");
        }
        assert!(root.service.cancel().expect("an answer"), "{verb} has the place");
    }
    assert_eq!(
        seen,
        ACTIONS.iter().copied().collect(),
        "actions without a request"
    );
    assert!(service.workers().is_empty());
}

#[test]
fn the_settings_are_read_again_with_a_right() {
    let service = Service::start();
    let polkit = Polkit::start(&service.bus);
    let client = service.client(USER);
    assert_eq!(
        kind(&client.service.reload_config().expect_err("denied")),
        Some(Kind::Denied)
    );
    polkit.allow(&["reload-daemon"]);
    client.service.reload_config().expect("allowed");
    let settings = service
        .machine
        .sysroot
        .path()
        .join("etc/apt-ostree/config.d/wrong.toml");
    crate::support::write(settings, "[daemon]\nidle-exit = 1\n");
    let error = client.service.reload_config().expect_err("a mistake");
    assert!(error.to_string().contains("wrong.toml"), "{error:#}");
}

#[test]
fn reading_needs_no_right() {
    let service = Service::start();
    let client = service.client(USER);
    client.service.register("reader").expect("registered");
    client.service.reload().expect("read again");
    let status: Value = serde_json::from_str(&client.service.status().expect("the status")).expect("JSON");
    assert_eq!(status["deployments"][0]["version"], "1");
    assert_eq!(client.service.active().expect("an answer"), None);
    let sysroot = zbus::blocking::Proxy::new(
        &client.bus,
        NAME,
        "/org/aptostree/dev/Sysroot",
        "org.aptostree.dev.Sysroot1",
    )
    .expect("a proxy");
    let path: String = sysroot.get_property("Path").expect("a property");
    assert_eq!(path, service.machine.sysroot.path().display().to_string());
    let error = sysroot.set_property("Path", "/").expect_err("the bus forbids it");
    assert!(error.to_string().contains("AccessDenied"), "{error}");
}

#[test]
fn without_polkit_root_works_and_others_are_denied() {
    let service = Service::start();
    let error = service.client(USER).ask("pin", json!({})).expect_err("denied");
    assert_eq!(kind(&error), Some(Kind::Denied), "{error:#}");
    assert!(error.to_string().contains("polkit does not answer"), "{error:#}");
    service
        .client(0)
        .begin("pin", json!({}))
        .run(&Silent)
        .expect("root may");
}

#[test]
fn a_transaction_is_cancelled_by_its_owner_by_root_and_with_the_right() {
    let service = Service::start();
    let polkit = Polkit::start(&service.bus);
    let (owner, other, root) = (service.client(USER), service.client(OTHER), service.client(0));
    let kargs = json!({ "append": ["a=1"] });
    let ask = || {
        polkit.allow(&["bootconfig"]);
        let address = owner.ask("kargs", kargs.clone()).expect("granted");
        polkit.allow(&[]);
        address
    };
    let is_over = |address: &str| {
        let ended = Transaction::on(connect_to_transaction(address, 0)).result();
        assert_eq!(kind(&ended.expect_err("cancelled")), Some(Kind::Cancelled));
    };
    let address = ask();
    let watcher = other.attach(&address);
    assert_eq!(
        kind(&watcher.start().expect_err("not theirs")),
        Some(Kind::Denied)
    );
    assert_eq!(
        kind(&watcher.canceller().cancel().expect_err("not theirs")),
        Some(Kind::Denied)
    );
    assert_eq!(
        kind(&other.service.cancel().expect_err("no right")),
        Some(Kind::Denied)
    );
    assert_eq!(
        polkit.take_asked().last().map(|asked| asked.action.clone()),
        Some(format!("{NAME}.cancel"))
    );
    polkit.allow(&["cancel"]);
    assert!(other.service.cancel().expect("allowed"));
    is_over(&address);

    let address = ask();
    assert!(owner.service.cancel().expect("the owner needs no right"));
    is_over(&address);
    let address = ask();
    owner.attach(&address).canceller().cancel().expect("the owner");
    is_over(&address);
    let address = ask();
    root.attach(&address).canceller().cancel().expect("root");
    is_over(&address);
}

#[test]
fn a_user_joins_only_with_the_same_right() {
    let service = Service::start();
    let polkit = Polkit::start(&service.bus);
    let _held = service.hold_lock();
    let (owner, other) = (service.client(USER), service.client(OTHER));
    let kargs = json!({ "append": ["a=1"] });
    polkit.allow(&["bootconfig"]);
    let address = owner.ask("kargs", kargs.clone()).expect("granted");
    polkit.allow(&[]);
    assert_eq!(
        kind(&other.ask("kargs", kargs.clone()).expect_err("no right")),
        Some(Kind::Denied)
    );
    polkit.allow(&["bootconfig"]);
    assert_eq!(other.ask("kargs", kargs).expect("granted"), address);
    let joined = other.attach(&address);
    assert!(joined.start().expect("who joined may start"));
    // It is the first user's all the same.
    assert_eq!(
        kind(&joined.canceller().cancel().expect_err("not theirs")),
        Some(Kind::Denied)
    );
    assert!(
        owner
            .service
            .active()
            .expect("an answer")
            .expect("it runs")
            .initiator
            .contains("uid:65534")
    );
    owner.service.cancel().expect("the owner");
    service.wait_until_idle();
}

#[test]
fn nobody_but_root_takes_the_name() {
    let mut service = Service::start();
    service.stop();
    let error = service
        .bus
        .connect_as(USER)
        .request_name(NAME)
        .expect_err("the bus forbids it");
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    service.bus.connect().request_name(NAME).expect("root may");
}
