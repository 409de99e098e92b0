//! A host's life: rebase, upgrade, roll back, kernel arguments, with a reboot after each; all of it asked for by a user
//! without root, whom polkit allows it, through the service.

use crate::disk::Disk;
use crate::guest::{check_health, check_repository, deployments, operator, step};
use crate::machine::Machine;
use crate::shelf::Shelf;

#[test]
fn host_is_rebased_upgraded_and_rolled_back() {
    let disk = Disk::with("one", &[]);
    let shelf = Shelf::new();
    shelf.put("stable", "two");
    let mut machine = Machine::booted("update", &disk);
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "one");
    assert_eq!(deployments(&mut machine), ["one booted"]);
    shelf.announce(&mut machine);

    // Files that an update must keep, and one that it must replace because nobody touched it.
    machine.run(
        "echo mine >/etc/vmtest/edited.conf; echo local >/etc/vmtest/local.conf; mkdir -p /var/lib/vmtest; echo data >/var/lib/vmtest/data",
    );
    operator(
        &mut machine,
        &format!("apt-ostree rebase {}", shelf.reference("stable")),
    );
    assert_eq!(deployments(&mut machine), ["two staged", "one booted"]);
    assert_eq!(step(&mut machine), "one", "nothing changes before the reboot");

    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "two");
    check_etc_and_var(&mut machine, "two");
    machine.run("grep -qw vmtest.step=two /proc/cmdline && ! grep -qw vmtest.step=one /proc/cmdline");
    machine.run("grep -qw console=ttyS0 /proc/cmdline && grep -q root=UUID= /proc/cmdline");
    assert_eq!(deployments(&mut machine), ["two booted", "one"]);
    let status = machine.run("apt-ostree status");
    assert!(status.contains(&shelf.reference("stable")), "{status}");

    // An upgrade with nothing new, then one with a new image and a kernel argument on top of it.
    operator(
        &mut machine,
        "sh -c 'apt-ostree upgrade --unchanged-exit-77; test $? = 77'",
    );
    shelf.put("stable", "three");
    operator(&mut machine, "apt-ostree upgrade");
    operator(&mut machine, "apt-ostree kargs --append=vmtest.mine=1");
    assert_eq!(deployments(&mut machine), ["three staged", "two booted", "one"]);

    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "three");
    check_etc_and_var(&mut machine, "three");
    machine.run("grep -qw vmtest.mine=1 /proc/cmdline && grep -qw vmtest.step=three /proc/cmdline");
    assert_eq!(deployments(&mut machine), ["three booted", "two"]);

    operator(&mut machine, "apt-ostree rollback");
    assert_eq!(deployments(&mut machine), ["two", "three booted"]);
    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "two");
    machine.run("test $(cat /var/lib/vmtest/data) = data && ! grep -q vmtest.mine /proc/cmdline");
    assert_eq!(deployments(&mut machine), ["two booted", "three"]);

    operator(
        &mut machine,
        "apt-ostree kargs --append=vmtest.again=1 --delete=vmtest.step=two",
    );
    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "two");
    machine.run("grep -qw vmtest.again=1 /proc/cmdline && ! grep -q vmtest.step /proc/cmdline");
    check_repository(&mut machine);
}

/// Checks that the merge kept what was changed here and took what only the image changed.
fn check_etc_and_var(machine: &mut Machine, step: &str) {
    let text = machine.run("cd /etc/vmtest; cat edited.conf local.conf default.conf /var/lib/vmtest/data");
    assert_eq!(text, format!("mine\nlocal\ndefault of {step}\ndata\n"));
}
