//! Packages on top of an image, layered from outside: services that run, keep their users and data under an upgrade,
//! and go without a trace.

use crate::disk::{Disk, image};
use crate::guest::{check_health, check_repository, step};
use crate::machine::Machine;
use crate::services::{
    KEYRING, REQUESTS, archive, check_gone, check_services, check_upgraded, ids, keep_data,
};
use crate::support::write;
use std::os::unix::fs::symlink;
use std::path::Path;

#[test]
fn services_run_after_layering_and_upgrades_and_are_uninstalled() {
    let disk = Disk::with("one", &[]);
    let archive = archive();
    let images = tempfile::tempdir().expect("directory");
    let stable = images.path().join("stable");
    symlink(image("one"), &stable).expect("link");
    let reference = format!("ostree-unverified-image:oci:{}", stable.display());

    let mut machine = Machine::changed("layers", &disk, |host| {
        let etc = host.etc();
        forget_sources(&etc);
        write(etc.join(&KEYRING["/etc/".len()..]), archive.keyring());
        write(
            etc.join("apt/sources.list.d/test.sources"),
            archive.sources(KEYRING),
        );
        host.run(&format!("rebase {reference}"));
        host.run(&format!("install --assumeyes {REQUESTS}"));
    });
    check_health(&mut machine);
    check_services(&mut machine);
    keep_data(&mut machine);
    let before = ids(&mut machine);

    // The next image has one of the packages itself.
    std::fs::remove_file(&stable).expect("link");
    symlink(image("layers"), &stable).expect("link");
    machine.change_while_off(|host| {
        host.run("upgrade");
    });
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "two");
    check_services(&mut machine);
    check_upgraded(&mut machine);
    assert_eq!(ids(&mut machine), before, "ids stay the same over an upgrade");

    machine.change_while_off(|host| {
        host.run("uninstall --assumeyes --all");
        // Nothing is left to derive: the deployment is the image's own commit.
        let commit = |text: &str, pointer: &str| {
            let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
            value.pointer(pointer).expect(pointer).clone()
        };
        assert_eq!(
            commit(&host.run("status --json"), "/deployments/0/checksum"),
            commit(&host.run(&format!("image inspect {reference}")), "/commit"),
        );
    });
    check_health(&mut machine);
    check_gone(&mut machine);
    check_repository(&mut machine);
}

/// Takes the image's own package sources away: a test must not need the network.
fn forget_sources(etc: &Path) {
    let folder = etc.join("apt/sources.list.d");
    if folder.exists() {
        std::fs::remove_dir_all(folder).expect("sources");
    }
    let file = etc.join("apt/sources.list");
    if file.exists() {
        std::fs::remove_file(file).expect("sources");
    }
}
