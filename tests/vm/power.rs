//! Power cuts while an image is imported and while it is staged.

use crate::disk::Disk;
use crate::guest::{check_health, check_repository, deployments, step};
use crate::machine::Machine;
use crate::shelf::Shelf;

/// In the middle of the import, and when libostree has staged the deployment and shut down has not yet applied it.
const CHECKPOINTS: [&str; 2] = ["import-layer-done", "publish-after"];

/// Waits until a thread of the program in the background has stopped at its checkpoint, which it tells by its name.
const WAIT_FOR_PAUSE: &str = "for i in $(seq 600); do grep -qsx checkpoint /proc/[0-9]*/task/*/comm && break; sleep 0.2; done\n\
                              grep -qsx checkpoint /proc/[0-9]*/task/*/comm || { cat /run/background.log; false; }";

#[test]
fn power_cut_leaves_the_old_system_and_a_rerun_completes() {
    let disk = Disk::with("one", &[]);
    let shelf = Shelf::new();
    shelf.put("stable", "two");
    let mut machine = Machine::booted("power", &disk);
    shelf.announce(&mut machine);
    machine.run("mkdir -p /var/lib/vmtest; echo data >/var/lib/vmtest/data; sync");
    // In the process that has the checkpoint in its environment; the service starts its own.
    let rebase = format!("apt-ostree --service never rebase {}", shelf.reference("stable"));

    for checkpoint in CHECKPOINTS {
        machine.start_script(&format!("APT_OSTREE_CHECKPOINT={checkpoint}:pause {rebase}"));
        machine.run(WAIT_FOR_PAUSE);
        machine.cut_power();
        check_health(&mut machine);
        assert_eq!(step(&mut machine), "one", "after a power cut at {checkpoint}");
        assert_eq!(
            deployments(&mut machine),
            ["one booted"],
            "after a power cut at {checkpoint}"
        );
        machine.run("test $(cat /var/lib/vmtest/data) = data");
    }

    machine.run(&rebase);
    // Once, for what both cuts and the rerun left: it reads every object, which takes a minute here.
    check_repository(&mut machine);
    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "two");
}
