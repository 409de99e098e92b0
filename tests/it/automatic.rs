//! Automatic updates on a scratch sysroot with a real registry: each policy, each reason to skip, what is noted and
//! what `status` tells of it.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::desktop::{Bus, Metered};
use crate::support::layer::Layer;
use crate::support::machine::Machine;
use crate::support::relay::Relay;
use crate::support::write;
use apt_ostree::deployment::sysroot::{Host, Patience};
use apt_ostree::report::Silent;
use ostree_ext::glib;
use serde_json::Value;
use std::path::PathBuf;

const TRIGGER: [&str; 2] = ["upgrade", "--trigger-automatic-update-policy"];

/// Sets the policy and more keys of `[automatic-updates]` in the `/etc` of the deployment that boots next.
fn set(machine: &Machine, text: &str) {
    let file = machine.root(0).join("etc/apt-ostree/config.d/50-test.toml");
    write(file, format!("[automatic-updates]\n{text}\n"));
}

fn file(machine: &Machine) -> PathBuf {
    machine
        .sysroot
        .path()
        .join("ostree/deploy/default/var/lib/apt-ostree/automatic.json")
}

fn notes(machine: &Machine) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file(machine)).unwrap()).unwrap()
}

/// Returns a window that is closed for more than a day before and after now, whatever the time zone.
fn closed_window() -> String {
    let today = glib::DateTime::now_utc().unwrap().day_of_week();
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    format!(
        "[\"{} 10:00-11:00\"]",
        days[usize::try_from(today + 2).unwrap() % 7]
    )
}

#[test]
fn none_does_nothing_and_says_so() {
    let mut machine = Machine::deployed();
    machine.publish("2", []);
    machine.registry.stop();
    let out = machine.ok(&TRIGGER);
    assert!(out.contains("Automatic updates are off"), "{out}");
    assert!(!file(&machine).exists());
    assert_eq!(machine.status()["automatic-updates"]["policy"], "none");
    assert!(!machine.ok(&["status"]).contains("AutomaticUpdates"));
    assert!(
        machine
            .ok(&["status", "-v"])
            .contains("\nAutomaticUpdates: disabled\n")
    );
}

#[test]
fn check_asks_for_the_manifest_and_notes_what_there_is() {
    let machine = Machine::deployed();
    let relay = Relay::start(machine.registry.port());
    machine
        .home
        .insecure(&[&machine.registry.location(), &relay.location()]);
    machine.ok(&["rebase", &relay.reference("os:stable")]);
    set(&machine, "policy = \"check\"");
    let out = machine.ok(&TRIGGER);
    assert!(out.contains("No upgrade available."), "{out}");
    assert_eq!(notes(&machine)["last-run"]["result"], "nothing-new");
    assert!(machine.status()["cached-update"].is_null());

    let new = machine.publish("2", [Layer::new().noise("usr/share/noise", 4096)]);
    let before = machine.state();
    relay.take_requests();
    let out = machine.ok(&TRIGGER);
    assert!(
        out.contains("An update is available: version 2, sha256:"),
        "{out}"
    );
    let requests = relay.take_requests();
    let blobs: Vec<&String> = requests.iter().filter(|line| line.contains("/blobs/")).collect();
    assert!(
        blobs.len() <= 1,
        "only the configuration is fetched: {requests:?}"
    );
    assert_eq!(machine.state(), before, "nothing is deployed or stored");

    let noted = notes(&machine);
    assert_eq!(noted["last-run"]["result"], "available");
    assert_eq!(noted["last-run"]["policy"], "check");
    let update = &machine.status()["cached-update"];
    assert_eq!(*update, noted["cached-update"]);
    assert_eq!(
        update["container-image-reference-digest"],
        new.manifest_digest.as_str()
    );
    assert_eq!(
        (update["osname"].as_str(), update["version"].as_str()),
        (Some("default"), Some("2"))
    );
    assert_eq!(update["manifest-diff"]["n-added"], 2);
    let text = machine.ok(&["status"]);
    assert!(text.contains("\nAutomaticUpdates: check\n  LastRun: "), "{text}");
    assert!(text.contains(": an update is available\n"), "{text}");
    assert!(
        text.contains("\n\nAvailableUpdate:\n                    Image: ostree-unverified-registry:")
            && text.contains("                  Version: 2 (2026-01-02T00:00:00Z)\n")
            && text.contains("             Added layers: 2 ("),
        "{text}"
    );

    // Once it is deployed, it is no news.
    machine.ok(&["upgrade"]);
    assert!(machine.status()["cached-update"].is_null());
    assert!(!machine.ok(&["status"]).contains("AvailableUpdate"));
}

#[test]
fn an_older_image_is_no_update() {
    let machine = Machine::new();
    machine.publish("5", []);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    set(&machine, "policy = \"stage\"");
    machine.publish("3", []);
    machine.ok(&TRIGGER);
    assert_eq!(notes(&machine)["last-run"]["result"], "nothing-new");
    assert_eq!(machine.versions(), ["5"]);
}

#[test]
fn stage_deploys_once_and_downloads_nothing_twice() {
    let machine = Machine::deployed();
    let relay = Relay::start(machine.registry.port());
    machine
        .home
        .insecure(&[&machine.registry.location(), &relay.location()]);
    machine.ok(&["rebase", &relay.reference("os:stable")]);
    set(&machine, "policy = \"stage\"");
    let new = machine.publish("2", [Layer::new().noise("usr/share/noise", 4096)]);
    let out = machine.ok(&TRIGGER);
    assert!(
        out.contains("Queued for next boot: ") && out.contains("Version: 2"),
        "{out}"
    );
    assert_eq!(machine.versions()[0], "2");
    let noted = notes(&machine);
    assert_eq!(noted["last-run"]["result"], "staged");
    assert!(noted["last-run"].get("waits").is_none());
    assert_eq!(noted["staged"], new.manifest_digest.as_str());
    assert!(machine.status()["cached-update"].is_null(), "it is deployed");

    relay.take_requests();
    let before = machine.state();
    machine.ok(&TRIGGER);
    assert_eq!(machine.state(), before);
    let requests = relay.take_requests();
    assert!(
        requests.iter().any(|line| line.contains("/manifests/")),
        "{requests:?}"
    );
    let blobs = requests.iter().filter(|line| line.contains("/blobs/")).count();
    assert!(blobs <= 1, "at most the configuration is fetched: {requests:?}");
    assert_eq!(notes(&machine)["last-run"]["result"], "nothing-new");
    assert_eq!(notes(&machine)["staged"], new.manifest_digest.as_str());
    machine.assert_sound();
}

#[test]
fn apply_reboots_no_machine_that_did_not_boot_from_the_sysroot() {
    let machine = Machine::deployed();
    set(
        &machine,
        "policy = \"apply\"\nmaintenance-window = [\"00:00-24:00\"]",
    );
    machine.publish("2", []);
    let output = machine.run(&TRIGGER);
    assert!(output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("No reboot yet: this machine did not boot from this sysroot."),
        "{errors}"
    );
    assert_eq!(machine.versions()[0], "2");
    assert_eq!(notes(&machine)["last-run"]["result"], "staged");
    assert!(
        machine
            .ok(&["status"])
            .contains(": staged; this machine did not boot from this sysroot\n")
    );
}

#[test]
fn downloads_wait_for_their_window_and_checks_do_not() {
    let machine = Machine::deployed();
    let window = closed_window();
    set(
        &machine,
        &format!("policy = \"stage\"\ndownload-window = {window}"),
    );
    machine.publish("2", []);
    let out = machine.ok(&TRIGGER);
    assert!(
        out.contains("Skipped: the download window opens ") && out.contains(" 10:00."),
        "{out}"
    );
    assert_eq!(machine.versions(), ["1"]);
    let noted = notes(&machine);
    assert_eq!(noted["last-run"]["result"], "skipped");
    assert!(
        noted["last-run"]["why"]
            .as_str()
            .unwrap()
            .starts_with("the download window opens ")
    );
    assert_eq!(
        noted["cached-update"]["version"], "2",
        "that there is an update is known all the same"
    );
    assert!(
        machine
            .ok(&["status"])
            .contains(": skipped: the download window opens ")
    );
    set(
        &machine,
        &format!("policy = \"check\"\ndownload-window = {window}"),
    );
    machine.ok(&TRIGGER);
    assert_eq!(notes(&machine)["last-run"]["result"], "available");
}

#[test]
fn a_fixed_digest_is_left_alone() {
    let machine = Machine::new();
    let first = machine.publish("1", []);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    machine.publish("2", []);
    machine.ok(&["upgrade"]);
    machine.ok(&["deploy", &first.manifest_digest]);
    set(&machine, "policy = \"stage\"");
    let before = machine.state();
    let out = machine.ok(&TRIGGER);
    assert!(
        out.contains(&format!(
            "Skipped: `deploy` fixed the image {}",
            first.manifest_digest
        )),
        "{out}"
    );
    assert_eq!(machine.state(), before);
}

#[test]
fn another_writer_is_not_waited_for() {
    let machine = Machine::deployed();
    set(&machine, "policy = \"stage\"");
    machine.publish("2", []);
    let host = Host::open(Some(machine.sysroot.path()), "test", true).unwrap();
    let lock = host.lock("test", Patience::Fail, &Silent).unwrap();
    let out = machine.ok(&TRIGGER);
    assert!(
        out.contains("Skipped: ") && out.contains(" is locked by "),
        "{out}"
    );
    assert_eq!(notes(&machine)["last-run"]["result"], "skipped");
    drop(lock);
    machine.ok(&TRIGGER);
    assert_eq!(machine.versions()[0], "2");
}

#[test]
fn a_metered_connection_is_spared() {
    let machine = Machine::deployed();
    set(&machine, "policy = \"stage\"");
    machine.publish("2", []);
    let bus = Bus::start();
    let run = |metered: Option<Metered>| {
        let _network_manager = metered.map(|metered| bus.network_manager(metered));
        let command = machine.command(&TRIGGER);
        let output = command
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    for metered in [Metered::Yes, Metered::GuessYes] {
        let out = run(Some(metered));
        assert!(
            out.contains("Skipped: the connection is metered."),
            "{metered:?}: {out}"
        );
        assert_eq!(notes(&machine)["last-run"]["why"], "the connection is metered");
        assert_eq!(machine.versions(), ["1"]);
    }
    set(&machine, "policy = \"check\"");
    for metered in [
        Some(Metered::No),
        Some(Metered::GuessNo),
        Some(Metered::Unknown),
        None,
    ] {
        let out = run(metered);
        assert!(out.contains("An update is available"), "{metered:?}: {out}");
    }
    set(&machine, "policy = \"stage\"\nmetered = \"allow\"");
    let out = run(Some(Metered::Yes));
    assert!(out.contains("Queued for next boot"), "{out}");
}

#[test]
fn users_are_those_with_a_session_of_their_own() {
    let desktop = Bus::start();
    let _logind = desktop.logind(&[
        ("1", "ada", "user", "active"),
        ("2", "ada", "user", "online"),
        ("3", "gdm", "greeter", "active"),
        ("4", "bob", "user", "closing"),
        ("5", "eve", "manager", "active"),
        ("6", "zoe", "user", "online"),
    ]);
    let bus = apt_ostree::host::bus::Bus {
        address: Some(desktop.address().to_owned()),
    };
    assert_eq!(bus.users_logged_in().unwrap(), ["ada", "zoe"]);
    assert!(!bus.is_metered().unwrap(), "there is no NetworkManager");
    let empty = apt_ostree::host::bus::Bus {
        address: Some(Bus::start().address().to_owned()),
    };
    assert!(
        empty.users_logged_in().unwrap().is_empty(),
        "there is no bus any more"
    );
}

#[test]
fn a_failure_is_noted_and_told() {
    let mut machine = Machine::deployed();
    set(&machine, "policy = \"check\"");
    machine.registry.stop();
    let errors = machine.fails(1, &TRIGGER);
    let noted = notes(&machine);
    assert_eq!(noted["last-run"]["result"], "failed");
    let message = noted["last-run"]["message"].as_str().unwrap();
    assert!(
        errors.contains(message.split(':').next().unwrap()),
        "{errors}\n{message}"
    );
    assert!(machine.ok(&["status"]).contains(": failed: "));
}

#[test]
fn the_delay_is_waited_for_under_the_timer_only() {
    let machine = Machine::deployed();
    set(&machine, "policy = \"check\"\nrandom-delay = \"0s\"");
    let early = machine.fails(
        1,
        &["upgrade", "--trigger-automatic-update-policy", "--random-delay"],
    );
    assert!(early.contains("etc/machine-id"), "{early}");
    write(
        machine.root(0).join("etc/machine-id"),
        "0123456789abcdef0123456789abcdef\n",
    );
    let output = machine.run(&["upgrade", "--trigger-automatic-update-policy", "--random-delay"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && errors.contains("Waiting 0 seconds."),
        "{errors}"
    );
    machine.fails(2, &["upgrade", "--random-delay"]);
    machine.fails(2, &["upgrade", "--trigger-automatic-update-policy", "--reboot"]);
    machine.fails(
        2,
        &["upgrade", "--trigger-automatic-update-policy", "--install=htop"],
    );
}

#[test]
fn a_check_by_hand_is_noted_too() {
    let machine = Machine::deployed();
    let packages = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.2-1\n";
    machine.publish(
        "2",
        [Layer::new().file("usr/lib/sysimage/dpkg/status", 0o644, packages)],
    );
    machine.ok(&["upgrade", "--check"]);
    let status = machine.status();
    assert_eq!(status["cached-update"]["version"], "2");
    assert!(status["cached-update"].get("package-diff").is_none());
    assert!(status["automatic-updates"]["last-run"].is_null());
    machine.ok(&["upgrade", "--preview"]);
    assert_eq!(
        machine.status()["cached-update"]["package-diff"]["added"][0]["name"],
        "a"
    );
    // The tag names the old image again: there is no update any more.
    machine.publish("1", []);
    machine.run(&["upgrade", "--check"]);
    assert!(machine.status()["cached-update"].is_null());
}
