//! Update drivers: registered until the next boot, told by `status`, and not disturbed while they work.

use crate::support::machine::{Machine, changed_file};
use crate::support::write;
use apt_ostree::host::mounts;
use apt_ostree::ops::Outcome;
use apt_ostree::ops::deploy;
use apt_ostree::ops::request::{Initiator, Request, perform};
use apt_ostree::report::Silent;
use std::os::unix::fs::PermissionsExt;

const UNIT: &str = "agent.service";

/// Registers as the daemon does for a caller that runs in `unit`.
fn register(machine: &Machine, revision: &str, unit: Option<&str>) -> anyhow::Result<Outcome> {
    mounts::enter_private().expect("a mount namespace; these tests need root");
    let request = Request::Deploy(deploy::Options {
        revision: revision.to_owned(),
        register_driver: Some("Agent".to_owned()),
        ..deploy::Options::default()
    });
    let initiator = Initiator {
        unit: unit.map(str::to_owned),
        ..Initiator::default()
    };
    perform(&request, &initiator, Some(machine.sysroot.path()), &Silent)
}

/// Makes `systemctl show` tell this state of the unit; there is no systemd where tests run.
fn systemd_says(machine: &Machine, state: &str) {
    let program = machine.home.path().join("bin/systemctl");
    let text = format!("#!/bin/sh\n[ \"$1 $5\" = 'show {UNIT}' ] && printf '{state}'\n");
    write(&program, text);
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("mode");
}

/// Runs a verb that sees that systemd, and returns its status, output and errors.
fn run(machine: &Machine, arguments: &[&str]) -> (Option<i32>, String, String) {
    let path = format!(
        "{}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        machine.home.path().display()
    );
    let command = machine.command(arguments).env("PATH", path);
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_driver_that_works_is_not_disturbed() {
    let machine = Machine::deployed();
    assert!(machine.status()["update-driver"].is_null());
    let before = machine.state();
    let Outcome::Changed(told) = register(&machine, "", Some(UNIT)).expect("registered") else {
        panic!("nothing was registered");
    };
    assert_eq!(told, "Registered as update driver: Agent (agent.service)");
    assert!(matches!(
        register(&machine, "", Some(UNIT)),
        Ok(Outcome::Unchanged(_))
    ));
    assert_eq!(machine.state(), before, "nothing is deployed");
    assert_eq!(
        machine.status()["update-driver"],
        serde_json::json!({ "driver-name": "Agent", "driver-sd-unit": UNIT })
    );

    machine.publish("2", [changed_file("usr/bin/tool", "2\n")]);
    systemd_says(
        &machine,
        "ActiveState=active\\nStatusText=waiting for the window\\n",
    );
    let (_, shown, _) = run(&machine, &["status"]);
    assert!(
        shown.contains("\nAutomaticUpdatesDriver: Agent\n  DriverState: active; waiting for the window\n"),
        "{shown}"
    );
    let (_, shown, _) = run(&machine, &["status", "--verbose"]);
    assert!(
        shown.contains("AutomaticUpdatesDriver: Agent (agent.service)\n"),
        "{shown}"
    );
    let rebase = ["rebase", &machine.reference("os:2")];
    for arguments in [&["upgrade"][..], &["deploy", "2"], &rebase] {
        let (status, _, errors) = run(&machine, arguments);
        assert_eq!(status, Some(1), "{errors}");
        assert!(
            errors.contains("driven by Agent (agent.service)") && errors.contains("--bypass-driver"),
            "{errors}"
        );
    }
    assert_eq!(machine.versions(), ["1"]);
    let (status, _, errors) = run(&machine, &["kargs", "--append=mine=1"]);
    assert_eq!(status, Some(0), "other changes are nobody else's: {errors}");
    let (status, _, errors) = run(&machine, &["upgrade", "--bypass-driver"]);
    assert_eq!(
        (status, machine.versions()[0].as_str()),
        (Some(0), "2"),
        "{errors}"
    );

    systemd_says(&machine, "ActiveState=inactive\\nStatusText=\\n");
    let (_, shown, _) = run(&machine, &["status"]);
    assert!(shown.contains("DriverState: inactive\n"), "{shown}");
    let (status, _, errors) = run(&machine, &["deploy", "1"]);
    assert_eq!(status, Some(0), "{errors}");
}

#[test]
fn a_driver_registers_from_its_unit_and_may_deploy_at_once() {
    let machine = Machine::deployed();
    let error = register(&machine, "", None).expect_err("no unit");
    assert!(
        format!("{error:#}").contains("runs in no systemd unit"),
        "{error:#}"
    );
    assert!(machine.status()["update-driver"].is_null());
    machine.publish("2", [changed_file("usr/bin/tool", "2\n")]);
    machine.ok(&["upgrade"]);
    register(&machine, "version=1", Some(UNIT)).expect("deployed");
    assert_eq!(machine.versions()[0], "1");
    assert_eq!(machine.status()["update-driver"]["driver-name"], "Agent");
    // What cannot be read is told, and the rest is shown.
    let file = machine.sysroot.path().join("run/apt-ostree/update-driver.json");
    write(file, "garbage");
    let shown = machine.ok(&["status"]);
    assert!(
        shown.contains("Problem: Reading") && shown.contains("Version: 1"),
        "{shown}"
    );
}
