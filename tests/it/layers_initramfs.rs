//! `initramfs`: made by dracut on the host with each deployment, with packages or without.

use crate::support::debian_machine::DebianMachine;
use crate::support::package::Package;

#[test]
fn an_initramfs_of_this_host_is_made_kept_and_given_up() {
    let host = DebianMachine::new(&[Package::new("one", "1").file("usr/share/one", 0o644, "one\n")]);
    assert_eq!(host.ok(&["initramfs"]), "Initramfs regeneration: disabled\n");
    host.fails(2, &["initramfs", "--arg=--debug"]);
    host.fails(2, &["initramfs", "--enable", "--disable"]);
    let path = {
        let modules = host.root(0).join("usr/lib/modules");
        let mut kernels = std::fs::read_dir(modules).expect("modules");
        let kernel = kernels.next().expect("a kernel").expect("an entry").file_name();
        format!("usr/lib/modules/{}/initramfs.img", kernel.to_string_lossy())
    };
    let content = || std::fs::read(host.root(0).join(&path)).expect("an initramfs");
    let of_image = content();
    host.ok(&[
        "initramfs",
        "--enable",
        "--arg=--include",
        "--arg=/etc/hostname",
        "--arg=/etc/own-hostname",
    ]);
    assert_eq!(
        host.ok(&["initramfs"]),
        "Initramfs regeneration: enabled\n  --include\n  /etc/hostname\n  /etc/own-hostname\n"
    );
    let own = content();
    assert_ne!(own, of_image);
    assert!(host.ok(&["status"]).contains("Initramfs: --include"));
    assert_eq!(host.status()["deployments"][0]["regenerate-initramfs"], true);
    host.ok(&["initramfs", "--disable"]);
    assert_eq!(content(), of_image);
    assert!(host.ok(&["initramfs", "--disable"]).contains("No changes."));
    host.assert_sound();
}
