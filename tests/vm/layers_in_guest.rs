//! The whole story of [`crate::layers`] and [`crate::layers_live`] inside one guest.
//!
//! It takes the better part of an hour where instructions are translated, so it runs only when asked for.

use crate::disk::Disk;
use crate::guest::{check_health, check_repository, step};
use crate::machine::Machine;
use crate::services::{
    REQUESTS, apply_live, archive, check_gone, check_services, check_upgraded, ids, keep_data, use_archive,
};
use crate::shelf::Shelf;

#[test]
fn services_are_layered_upgraded_under_applied_live_and_uninstalled() {
    let disk = Disk::with("one", &[]);
    let shelf = Shelf::new();
    shelf.put("stable", "one");
    let archive = archive();
    let mut machine = Machine::booted("layers_in_guest", &disk);
    shelf.announce(&mut machine);
    use_archive(&mut machine, &archive);
    machine.run(&format!("apt-ostree rebase {}", shelf.reference("stable")));

    machine.run_long(&format!("apt-ostree install --assumeyes {REQUESTS}"));
    machine.run("test ! -e /usr/sbin/nginx && test ! -e /usr/bin/htop");
    machine.reboot();
    check_health(&mut machine);
    check_services(&mut machine);
    keep_data(&mut machine);
    let before = ids(&mut machine);

    apply_live(&mut machine);
    machine.run("nginx -v");

    // The next image has one of the packages itself.
    shelf.put("stable", "layers");
    machine.run_long("apt-ostree upgrade");
    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "two");
    check_services(&mut machine);
    check_upgraded(&mut machine);
    assert_eq!(ids(&mut machine), before, "ids stay the same over an upgrade");

    machine.run_long("apt-ostree uninstall --assumeyes --all");
    machine.reboot();
    check_health(&mut machine);
    check_gone(&mut machine);
    // Nothing is left to derive: the deployment is the image's own commit.
    let reference = shelf.reference("stable");
    let image = machine.run(&format!(
        "apt-ostree image inspect {reference} | sed -n 's/^  \"commit\": \"\\(.*\\)\",$/\\1/p'"
    ));
    let booted = machine.run("apt-ostree status --jsonpath '$.deployments[?@.booted == true].checksum'");
    assert!(
        image.trim().len() == 64 && booted.contains(image.trim()),
        "{image} {booted}"
    );
    check_repository(&mut machine);
}
