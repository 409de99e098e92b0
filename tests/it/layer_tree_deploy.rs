//! A derived commit as a deployment: what it needs is kept, and a host's first boot with it makes its users.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::debian::Debian;
use crate::support::layered::Layering;
use crate::support::package::Package;
use apt_ostree::deployment::prune;
use apt_ostree::deployment::sysroot::{Host, Patience};
use apt_ostree::image::gc::Scope;
use apt_ostree::image::store;
use apt_ostree::report::Silent;
use std::path::PathBuf;

fn deploy(debian: &Debian, commit: &str) -> PathBuf {
    debian.sysroot.admin("deploy", &["--os=default", commit]);
    let folder = debian
        .sysroot
        .path()
        .join("ostree/deploy/default/deploy")
        .join(format!("{commit}.0"));
    assert!(folder.is_dir());
    folder
}

#[test]
fn what_says_that_etc_is_up_to_date_does_not_reach_the_next_deployment() {
    // systemd-sysusers.service has ConditionNeedsUpdate=/etc. Were the note carried over, the users of a layer would
    // never be made; libostree removes it, so no unit has to be changed.
    let debian = Debian::new();
    let first = deploy(&debian, &debian.commit);
    let var = debian.sysroot.path().join("ostree/deploy/default/var");
    std::fs::write(first.join("etc/.updated"), "").unwrap();
    std::fs::write(first.join("etc/changed"), "by the host").unwrap();
    std::fs::write(var.join(".updated"), "").unwrap();
    let package = Package::new("tool", "1").file("usr/bin/tool", 0o755, "1");
    let layered = Layering::new(&debian, &[package]).run();
    let second = deploy(&debian, &layered.commit);
    assert_eq!(
        std::fs::read_to_string(second.join("etc/changed")).unwrap(),
        "by the host"
    );
    assert!(!second.join("etc/.updated").exists() && !var.join(".updated").exists());
}

#[test]
fn the_image_below_a_layer_outlives_every_collection() {
    let debian = Debian::new();
    let package = Package::new("tool", "1").file("usr/bin/tool", 0o755, "1");
    let layered = Layering::new(&debian, &[package]).run();
    deploy(&debian, &layered.commit);
    // The image's own ref has moved on.
    let names = debian.ostree(&["refs", "--list", "ostree/container/image"]);
    for name in names.lines() {
        debian.ostree(&["refs", "--delete", name]);
    }
    let host = Host::open(Some(debian.sysroot.path()), "cleanup", true).unwrap();
    let lock = host.lock("cleanup", Patience::Fail, &Silent).unwrap();
    prune::clean(&lock, Scope::Changes).unwrap();
    let held = debian.ostree(&["refs", "--list", "ostree/container/baseimage/apt-ostree"]);
    assert_eq!(held.lines().count(), 2, "{held}");
    let image = store::query_commit(&debian.repo(), &debian.commit).unwrap();
    let layers = |debian: &Debian| {
        debian
            .ostree(&["refs", "--list", "ostree/container/blob"])
            .lines()
            .count()
    };
    assert_eq!(layers(&debian), image.manifest.layers().len());
    debian.assert_sound();

    // What bootc and ostree-ext do after an update.
    let repo = debian.repo();
    ostree_ext::container::store::gc_image_layers(&repo).unwrap();
    repo.prune(
        ostree_ext::ostree::RepoPruneFlags::REFS_ONLY,
        0,
        ostree_ext::gio::Cancellable::NONE,
    )
    .unwrap();
    assert_eq!(layers(&debian), image.manifest.layers().len());
    assert_eq!(
        store::query_commit(&repo, &layered.commit)
            .unwrap()
            .manifest_digest,
        image.manifest_digest
    );
    debian.ostree(&["ls", &debian.commit, "/usr/bin/true"]);
    debian.assert_sound();
    drop(lock);

    // With the last deployment that needs it, the image goes too.
    let [deployment] = host.deployments().try_into().unwrap();
    assert_eq!(deployment.csum(), layered.commit.as_str());
    debian.sysroot.admin("undeploy", &["0"]);
    let host = Host::open(Some(debian.sysroot.path()), "cleanup", true).unwrap();
    let lock = host.lock("cleanup", Patience::Fail, &Silent).unwrap();
    prune::clean(&lock, Scope::Changes).unwrap();
    assert_eq!(layers(&debian), 0);
    assert_eq!(
        debian.ostree(&["refs", "--list", "ostree/container/baseimage/apt-ostree"]),
        ""
    );
}
