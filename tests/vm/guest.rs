//! What the tests look at in a guest.

use crate::machine::Machine;

/// Returns the step that the booted image is.
pub(crate) fn step(machine: &mut Machine) -> String {
    machine.run("cat /usr/share/vmtest/step").trim().to_owned()
}

/// Waits until everything has started, and checks what holds on each healthy host, whatever image it boots.
#[track_caller]
pub(crate) fn check_health(machine: &mut Machine) {
    machine.run(
        "set -- $(cat /proc/cmdline); found=; for word; do case $word in ostree=/ostree/boot.[01]/debian/*) found=1;; esac; done\n\
         test \"$found\" && ! touch /usr/vmtest-probe 2>/dev/null",
    );
    // The agent answers long before the last service runs. `degraded` is a failure with names, which follow.
    machine.run("systemctl is-system-running --wait || true");
    let failed = machine.run("systemctl --failed --no-legend --plain --no-pager");
    assert_eq!(failed.trim(), "", "failed units");
}

/// Runs a command as the user `operator` of the test images, who is nobody but for what polkit allows.
#[track_caller]
pub(crate) fn operator(machine: &mut Machine, command: &str) -> String {
    machine.run(&format!("runuser -u operator -- {command}"))
}

/// Checks that the repository is whole.
#[track_caller]
pub(crate) fn check_repository(machine: &mut Machine) {
    machine.run("ostree fsck --quiet");
}

/// Returns `apt-ostree status --json` as text and the versions of the deployments in boot order, each with its marks.
pub(crate) fn deployments(machine: &mut Machine) -> Vec<String> {
    let text = machine.run("apt-ostree status --json");
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let deployments = status["deployments"].as_array().expect("deployments");
    deployments
        .iter()
        .map(|deployment| {
            let mut words = vec![deployment["version"].as_str().unwrap_or("?").to_owned()];
            for mark in ["booted", "staged", "pinned"] {
                if deployment[mark] == true {
                    words.push(mark.to_owned());
                }
            }
            words.join(" ")
        })
        .collect()
}
