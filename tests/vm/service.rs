//! The service on a real system bus, with the real polkitd and systemd: rights, cancelling, dying, updates by the timer.

use crate::disk::Disk;
use crate::guest::{check_health, check_repository, deployments, operator, step};
use crate::machine::Machine;
use crate::shelf::Shelf;

/// Settings under which the timer stages what it finds, at once.
const SETTINGS: &str = "[automatic-updates]\\npolicy = \"stage\"\\nrandom-delay = \"0s\"\\n";

/// The timer, due a few seconds after it was started.
const DUE: &str =
    "[Timer]\\nOnBootSec=\\nOnUnitInactiveSec=\\nOnActiveSec=3\\nRandomizedDelaySec=0\\nAccuracySec=1\\n";

/// Stops skopeo as soon as it runs, so that a pull lasts until somebody ends it.
const HOLD_PULL: &str = "for i in $(seq 1200); do pgrep -x skopeo >/dev/null && break; sleep 0.05; done\n\
                         pkill -STOP -x skopeo";

#[test]
fn the_service_asks_polkit_cancels_recovers_and_updates_by_itself() {
    let disk = Disk::with("one", &[]);
    let shelf = Shelf::new();
    shelf.put("stable", "two");
    let mut machine = Machine::booted("service", &disk);
    check_health(&mut machine);
    shelf.announce(&mut machine);
    let rebase = format!("apt-ostree rebase {}", shelf.reference("stable"));

    // Reading needs no right, writing does.
    let status = machine.run("runuser -u nobody -- apt-ostree status");
    assert!(status.contains("State: idle"), "{status}");
    let (code, text) = machine.try_run(&format!("runuser -u nobody -- {rebase} 2>&1"));
    assert_ne!(code, 0, "{text}");
    assert!(text.contains("org.aptostree.dev.rebase"), "{text}");

    // A pull that hangs, seen and cancelled by somebody else who may.
    machine.start_script(&format!("runuser -u operator -- {rebase}; echo ended $?"));
    machine.run(HOLD_PULL);
    let status = machine.run("runuser -u nobody -- apt-ostree status");
    assert!(
        status.contains("State: busy") && status.contains("rebase"),
        "{status}"
    );
    let (code, text) = machine.try_run("runuser -u nobody -- apt-ostree cancel 2>&1");
    assert_ne!(code, 0, "{text}");
    let text = operator(&mut machine, "apt-ostree cancel");
    assert!(text.contains("Cancelled."), "{text}");
    machine.run("for i in $(seq 300); do grep -q '^ended' /run/background.log && break; sleep 0.1; done; ! grep -q '^ended 0' /run/background.log; ! pgrep -x skopeo");
    assert_eq!(deployments(&mut machine), ["one booted"]);

    // The service and what it started are killed in the middle; the next one says so and nothing is lost.
    machine.start_script(&format!("runuser -u operator -- {rebase}; echo ended $?"));
    machine.run(HOLD_PULL);
    machine.run("systemctl kill --signal=KILL --kill-whom=all apt-ostreed.service");
    machine.run("for i in $(seq 300); do grep -q '^ended' /run/background.log && break; sleep 0.1; done; cat /run/background.log; ! grep -q '^ended 0' /run/background.log");
    machine.run(
        "systemctl reset-failed apt-ostreed.service; systemctl start apt-ostreed.service; ! pgrep -x skopeo",
    );
    let status = machine.run("apt-ostree status");
    assert!(status.to_lowercase().contains("interrupted"), "{status}");
    assert_eq!(deployments(&mut machine), ["one booted"]);
    operator(&mut machine, &rebase);
    assert_eq!(deployments(&mut machine), ["two staged", "one booted"]);
    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "two");

    // Nobody is there, and the next version is staged.
    shelf.put("stable", "three");
    machine.run(&format!(
        "mkdir -p /etc/apt-ostree/config.d /etc/systemd/system/apt-ostreed-automatic.timer.d\n\
         printf '{SETTINGS}' >/etc/apt-ostree/config.d/50-test.toml\n\
         printf '{DUE}' >/etc/systemd/system/apt-ostreed-automatic.timer.d/test.conf\n\
         systemctl daemon-reload; apt-ostree reload; systemctl start apt-ostreed-automatic.timer"
    ));
    machine.run(
        "for i in $(seq 100); do test -e /run/ostree/staged-deployment && break; sleep 0.5; done; test -e /run/ostree/staged-deployment",
    );
    machine.run("for i in $(seq 100); do systemctl is-active -q apt-ostreed-automatic.service || break; sleep 0.5; done");
    assert_eq!(deployments(&mut machine), ["three staged", "two booted", "one"]);
    let status = machine.run("apt-ostree status");
    assert!(status.contains("AutomaticUpdates: stage"), "{status}");
    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "three");

    // Who did what, and that it was booted.
    let log = machine.run("apt-ostree log");
    assert!(log.contains("rebase") && log.contains("operator"), "{log}");
    // What scripts and transactions write is in the journal, with fields.
    machine.run("journalctl --quiet --no-pager APT_OSTREE_VERB=rebase | grep -q .");
    check_repository(&mut machine);
}
