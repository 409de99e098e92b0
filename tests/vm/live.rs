//! Changes to the running system, and files of `/etc` in the initramfs.

use crate::disk::Disk;
use crate::guest::{check_health, step};
use crate::machine::Machine;
use crate::shelf::Shelf;

/// A unit that only ever runs in the initramfs, where it gets by being tracked.
const UNIT: &str = "[Unit]\\nConditionPathExists=/etc/initrd-release\\nDefaultDependencies=no\\n\
                    [Service]\\nType=oneshot\\nExecStart=/bin/sh -c \": >/run/vmtest-initrd\"\\n";

#[test]
fn the_running_system_changes_and_goes_back_and_the_initramfs_gets_files() {
    let disk = Disk::with("one", &[]);
    let shelf = Shelf::new();
    shelf.put("stable", "two");
    let mut machine = Machine::booted("live", &disk);
    shelf.announce(&mut machine);
    machine.run("echo mine >/etc/vmtest/edited.conf");
    machine.run(&format!("apt-ostree rebase {}", shelf.reference("stable")));

    // The images differ in files and in no package.
    machine.run("apt-ostree apply-live");
    assert_eq!(step(&mut machine), "two");
    let etc = "cat /etc/vmtest/default.conf /etc/vmtest/edited.conf";
    assert_eq!(machine.run(etc), "default of two\nmine\n");
    machine.run("test -e /usr/share/vmtest/only-two && ! touch /usr/vmtest-probe");
    let status = machine.run("apt-ostree status --booted");
    assert!(
        status.contains("LiveCommit: ") && status.contains("Unlocked: transient"),
        "{status}"
    );
    // A unit that starts now sees the same.
    machine.run("test $(systemd-run --quiet --pipe --wait cat /usr/share/vmtest/step) = two");
    machine.run("apt-ostree apply-live --reset");
    assert_eq!(step(&mut machine), "one");
    assert_eq!(machine.run(etc), "default of one\nmine\n");
    machine.run("! test -e /usr/share/vmtest/only-two");
    machine.run("apt-ostree apply-live");
    assert_eq!(step(&mut machine), "two");

    machine.run(&format!(
        "cd /etc/systemd/system && printf '{UNIT}' >vmtest-initrd.service && mkdir initrd.target.wants\n\
         ln -s ../vmtest-initrd.service initrd.target.wants/\n\
         apt-ostree initramfs-etc --track=/etc/systemd/system/vmtest-initrd.service \
         --track=/etc/systemd/system/initrd.target.wants/vmtest-initrd.service"
    ));
    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "two");
    machine.run("test -e /run/vmtest-initrd");
    let status = machine.run("apt-ostree status --booted");
    assert!(!status.contains("LiveCommit"), "{status}");

    machine.run("apt-ostree usroverlay");
    machine.run("touch /usr/vmtest-probe && ! apt-ostree usroverlay");
    let status = machine.run("apt-ostree status --booted");
    assert!(status.contains("Unlocked: development"), "{status}");
}
