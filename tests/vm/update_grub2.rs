//! A host whose boot menu libostree's own backend writes.

use crate::disk::Disk;
use crate::guest::{check_health, deployments, step};
use crate::machine::Machine;
use crate::shelf::Shelf;

#[test]
fn grub2_host_is_rebased_and_rolled_back() {
    if crate::disk::release() == "bookworm" {
        crate::tell("Debian 12 needs a /boot of its own for this, and provisioning refuses it");
        return;
    }
    let disk = Disk::with("grub2", &["--bootloader", "grub2"]);
    let shelf = Shelf::new();
    shelf.put("stable", "grub2-two");
    let mut machine = Machine::booted("grub2", &disk);
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "one");
    shelf.announce(&mut machine);
    machine.run(&format!("apt-ostree rebase {}", shelf.reference("stable")));

    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "two");
    machine.run("test $(readlink /boot/grub/grub.cfg) = ../loader/grub.cfg");
    machine.run("test $(grep -c ' ostree=' /boot/loader/grub.cfg) = 2");

    // Written at once, while the host runs; the menu is checked then.
    machine.run("apt-ostree rollback");
    assert_eq!(deployments(&mut machine).len(), 2);
    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "one");
}
