//! The command line as a client of the service.

use crate::support::bus::wait_until;
use crate::support::service::Service;
use apt_ostree::host::runner::Cmd;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

/// The command line on the service's bus and for its host.
fn command(service: &Service, arguments: &[&str]) -> Cmd {
    service
        .machine
        .command(arguments)
        .env("DBUS_SYSTEM_BUS_ADDRESS", service.bus.address())
}

/// Runs a verb through the service.
fn run(service: &Service, arguments: &[&str]) -> Output {
    let through: Vec<&str> = ["--service", "always"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    command(service, &through).output().expect("the program starts")
}

#[track_caller]
fn ok(service: &Service, arguments: &[&str]) -> String {
    let output = run(service, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn fails(service: &Service, status: i32, arguments: &[&str]) -> String {
    let output = run(service, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {errors}");
    errors
}

#[test]
fn what_is_printed_is_the_same_through_the_service() {
    let service = Service::start();
    let text = ok(&service, &["kargs", "--append=quiet"]);
    assert!(text.contains("quiet"), "{text}");
    let shown = service.machine.ok(&["kargs"]);
    assert!(shown.contains("quiet"), "{shown}");
    ok(&service, &["kargs", "--delete=quiet"]);

    // An update with its steps, one without news, one that is refused.
    service.machine.publish("2", []);
    let output = run(&service, &["--progress", "json", "upgrade"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("Queued for next boot") && text.contains("Version: 2"),
        "{text}{errors}"
    );
    let events: Vec<serde_json::Value> = errors
        .lines()
        .map(|line| serde_json::from_str(line).expect("an event"))
        .collect();
    assert!(events.iter().any(|event| event["type"] == "step"), "{errors}");
    let nothing = run(&service, &["upgrade", "--unchanged-exit-77"]);
    assert_eq!(nothing.status.code(), Some(77));
    assert_eq!(
        String::from_utf8_lossy(&nothing.stdout),
        "No upgrade available.\n"
    );
    let here = service.machine.fails(1, &["deploy", "version=9"]);
    assert_eq!(fails(&service, 1, &["deploy", "version=9"]), here);
    ok(&service, &["pin", "0"]);
    assert_eq!(service.machine.status()["deployments"][0]["pinned"], true);
}

#[test]
fn the_service_works_on_one_sysroot() {
    let service = Service::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    let output = Cmd::new(env!("CARGO_BIN_EXE_apt-ostree"))
        .args(["--service", "always", "--sysroot", path, "rollback"])
        .env("DBUS_SYSTEM_BUS_ADDRESS", service.bus.address())
        .output()
        .expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains(path), "{errors}");
}

#[test]
fn without_the_service_the_reason_is_told() {
    let mut service = Service::start();
    service.stop();
    let errors = fails(&service, 1, &["kargs", "--append=quiet"]);
    assert!(
        errors.contains("org.aptostree.dev") && errors.contains("--service never"),
        "{errors}"
    );
    // Off a booted host this process does the work, whatever the bus does.
    let output = command(&service, &["kargs", "--append=quiet"])
        .output()
        .expect("starts");
    assert!(output.status.success());
}

#[test]
fn a_transaction_is_cancelled_by_another_command_and_by_its_own_terminal() {
    let service = Service::start();
    assert_eq!(ok(&service, &["cancel"]), "No active transaction.\n");
    let before = service.machine.state();
    let held = service.hold_lock();
    let client = std::thread::scope(|scope| {
        let client = scope.spawn(|| run(&service, &["kargs", "--append=a=1"]));
        wait_until("a transaction waits", || service.workers().len() == 1);
        let status = ok(&service, &["status"]);
        assert!(
            status.contains("State: busy") && status.contains("  Initiator: client(id:cli dbus:"),
            "{status}"
        );
        let text = ok(&service, &["cancel"]);
        assert!(
            text.contains("Cancelling transaction: ") && text.contains("kargs --append=a=1"),
            "{text}"
        );
        assert!(text.ends_with("Cancelled.\n"), "{text}");
        client.join().expect("the client")
    });
    assert_eq!(client.status.code(), Some(1), "{client:?}");

    // A signal to the client cancels too, and it ends as a shell expects.
    let interrupted = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let script = "trap - INT; exec \"$@\"";
            let words = ["--service", "always", "kargs", "--append=b=1"];
            let sysroot = service.machine.sysroot.path().to_str().expect("UTF-8").to_owned();
            Cmd::new("timeout")
                .args(["--foreground", "--signal=INT", "5", "sh", "-c", script, "sh"])
                .arg(env!("CARGO_BIN_EXE_apt-ostree"))
                .args(["--sysroot", &sysroot])
                .args(words)
                .env("DBUS_SYSTEM_BUS_ADDRESS", service.bus.address())
                .output()
                .expect("the program starts")
        });
        client.join().expect("the client")
    });
    // timeout's own status for a command that it had to signal.
    assert_eq!(interrupted.status.code(), Some(124), "{interrupted:?}");
    assert_eq!(interrupted.status.signal(), None);
    let errors = String::from_utf8_lossy(&interrupted.stderr);
    assert!(errors.contains("cancelled"), "{errors}");
    wait_until("the process is gone", || service.workers().is_empty());
    drop(held);
    assert_eq!(service.machine.state(), before);
}

#[test]
fn settings_are_read_again() {
    let service = Service::start();
    assert_eq!(ok(&service, &["reload"]), "");
}
