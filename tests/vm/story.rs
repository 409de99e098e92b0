//! The demonstration that `hack/demo --boot` shows: a host's life, told by what its administrator would see.

use crate::disk::Disk;
use crate::guest::step;
use crate::machine::Machine;
use crate::shelf::Shelf;

#[test]
fn demo_story() {
    crate::tell("== A disk with version one, booted through firmware, shim and GRUB");
    let disk = Disk::with("one", &[]);
    let shelf = Shelf::new();
    shelf.put("stable", "two");
    let mut machine = Machine::booted("story", &disk);
    shelf.announce(&mut machine);
    show(&mut machine, "apt-ostree status");

    crate::tell("== It follows the image in a registry from now on");
    show(
        &mut machine,
        &format!("apt-ostree rebase {}", shelf.reference("stable")),
    );
    show(&mut machine, "apt-ostree status");
    crate::tell("== Reboot");
    machine.reboot();
    show(&mut machine, "apt-ostree status");

    crate::tell("== Somebody pushes version three under the same tag");
    shelf.put("stable", "three");
    show(&mut machine, "apt-ostree upgrade");
    crate::tell("== Reboot");
    machine.reboot();
    show(&mut machine, "apt-ostree status");

    crate::tell("== Version three does not please");
    show(&mut machine, "apt-ostree rollback");
    crate::tell("== Reboot");
    machine.reboot();
    show(&mut machine, "apt-ostree status");
    assert_eq!(step(&mut machine), "two");
}

/// Shows a command as it would be typed, and what it prints.
fn show(machine: &mut Machine, command: &str) {
    crate::tell(&format!("# {command}"));
    let text = machine.run(command);
    crate::tell(text.trim_end());
}
