//! A tool and a service that a running host layers, uses at once, boots into and takes away.

use crate::disk::Disk;
use crate::guest::check_health;
use crate::machine::Machine;
use crate::services::{apply_live, archive, check_redis, use_archive};

#[test]
fn packages_are_layered_in_the_guest_applied_live_booted_and_uninstalled() {
    let disk = Disk::with("one", &[]);
    let archive = archive();
    let mut machine = Machine::booted("layers_live", &disk);
    use_archive(&mut machine, &archive);
    let checksum = "apt-ostree status --jsonpath '$.deployments[0].checksum'";
    let image = machine.run(checksum);

    apply_live(&mut machine);
    machine.reboot();
    check_health(&mut machine);
    machine.run("tree --version && systemctl is-active redis-server");
    check_redis(&mut machine);

    machine.run_long("apt-ostree uninstall --assumeyes --all");
    // What the next boot starts is the image's own commit.
    assert_eq!(machine.run(checksum), image);
    machine.run("tree --version");
}
