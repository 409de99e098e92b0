//! From installed packages to a derived commit: what gets into it, in which form, and what does not.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::debian::Debian;
use crate::support::layered::{Checkout, Layering};
use crate::support::package::Package;
use std::os::unix::fs::MetadataExt;

fn tree_of(debian: &Debian, commit: &str) -> String {
    let shown = debian.ostree(&["ls", "-d", "-C", commit, "/"]);
    shown.split_whitespace().nth(4).expect("a checksum").to_owned()
}

#[test]
fn nothing_layered_is_the_tree_of_the_base() {
    let debian = Debian::new();
    let layered = Layering::new(&debian, &[]).run();
    let differences = debian.ostree(&["diff", &debian.commit, &layered.commit]);
    assert_eq!(differences, "");
    assert_eq!(
        tree_of(&debian, &layered.commit),
        tree_of(&debian, &debian.commit)
    );
    debian.assert_sound();
}

#[test]
fn owners_modes_capabilities_and_hard_links_are_kept() {
    let debian = Debian::new();
    let postinst = "#!/bin/sh\nset -e\n\
        adduser --system --group --quiet --home /var/lib/demo demo\n\
        chown root:demo /usr/bin/demo-setgid && chmod 2755 /usr/bin/demo-setgid\n\
        chown demo:demo /usr/bin/demo-setuid && chmod 4750 /usr/bin/demo-setuid\n\
        chgrp demo /usr/bin/demo-capable\n\
        setcap cap_net_raw=ep /usr/bin/demo-capable\n\
        install -d -o demo -g demo -m 0750 /etc/demo\n\
        chown demo:demo '/etc/demo.conf'\n";
    let package = Package::new("demo", "1")
        .file("usr/bin/demo-setgid", 0o755, "1")
        .file("usr/bin/demo-setuid", 0o755, "2")
        .file("usr/bin/demo-capable", 0o755, "3")
        .file("usr/share/demo/a b'\"", 0o640, "4")
        .conffile("etc/demo.conf", "setting")
        .script("postinst", postinst);
    let layered = Layering::new(&debian, &[package])
        .change(|root| {
            std::fs::hard_link(root.join("usr/bin/demo-setgid"), root.join("usr/bin/demo-same")).unwrap();
        })
        .run();
    let tree = Checkout::of(&debian, &layered.commit);
    let (user, group) = (500, 500);
    assert_eq!(tree.owner("usr/bin/demo-setgid"), (0o2755, 0, group));
    assert_eq!(tree.owner("usr/bin/demo-setuid"), (0o4750, user, group));
    assert_eq!(tree.owner("usr/bin/demo-capable"), (0o755, 0, group));
    assert!(
        tree.attribute("usr/bin/demo-capable", "security.capability")
            .is_some()
    );
    assert_eq!(tree.owner("usr/etc/demo"), (0o750, user, group));
    assert_eq!(tree.owner("usr/etc/demo.conf"), (0o644, user, group));
    assert_eq!(tree.owner("usr/share/demo/a b'\""), (0o640, 0, 0));
    assert_eq!(tree.owner("usr/etc/shadow"), (0o640, 0, 42));
    assert_eq!(
        tree.path("usr/bin/demo-same").metadata().unwrap().ino(),
        tree.path("usr/bin/demo-setgid").metadata().unwrap().ino()
    );
    let passwd = tree.line("usr/etc/passwd", "demo:").unwrap();
    assert!(passwd.starts_with("demo:x:500:500:"), "{passwd}");
    assert_eq!(tree.line("usr/etc/group", "demo:").unwrap(), "demo:x:500:");
    let declared = tree.text("usr/lib/sysusers.d/00-apt-ostree-image.conf");
    assert!(
        declared.contains("g demo 500\n") && declared.contains("u demo 500:500 "),
        "{declared}"
    );
    assert!(!tree.has("etc") && !tree.has("usr/etc/passwd-") && !tree.has("usr/etc/.pwd.lock"));
    debian.assert_sound();
}
