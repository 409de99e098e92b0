//! `fsck`: dpkg's database against the files, and a host with packages on top.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::checkup::{Checkup, assert_clean, mends, tells};
use crate::support::debian_machine::DebianMachine;
use crate::support::layer::Layer;
use crate::support::machine::Machine;
use crate::support::package::Package;

const DATABASE: &str = "usr/lib/sysimage/dpkg";

/// Returns an image's layer with one package of one file.
fn package(state: &str, list: &str, sum: &str) -> Layer {
    Layer::new()
        .file(
            &format!("{DATABASE}/status"),
            0o644,
            format!("Package: tool\nStatus: install ok {state}\nArchitecture: all\nVersion: 1\n"),
        )
        .file(&format!("{DATABASE}/info/tool.list"), 0o644, list)
        .file(
            &format!("{DATABASE}/info/tool.md5sums"),
            0o644,
            format!("{sum}  usr/bin/tool\n"),
        )
        .file("usr/bin/tool", 0o755, "tool\n")
}

fn deployed(layers: impl IntoIterator<Item = Layer>) -> Machine {
    let machine = Machine::new();
    machine.publish("1", layers);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    machine
}

#[test]
fn the_database_fits_the_files() {
    let sum = sum();
    let list = "/.\n/bin\n/bin/tool\n/etc\n/etc/tool.conf\n/usr\n/usr/bin\n/usr/bin/tool\n/var/lib/tool\n";
    assert_clean(&deployed([package("installed", list, &sum)]));
    for (state, list, sum, code, severity) in [
        (
            "half-configured",
            list,
            sum.as_str(),
            "package-unfinished",
            "warning",
        ),
        (
            "installed",
            "/usr/bin/tool\n/usr/bin/other\n",
            &sum,
            "package-file-missing",
            "note",
        ),
        ("installed", list, &"0".repeat(32), "package-file-differs", "note"),
    ] {
        let machine = deployed([package(state, list, sum)]);
        let checkup = Checkup::of(&machine, &[]);
        assert_eq!(checkup.left(), [code], "{:#}", checkup.value);
        assert_eq!(checkup.finding(code)["severity"], severity);
        assert_eq!(checkup.status, i32::from(severity != "note"));
    }
}

/// Returns the MD5 of the tool, by the program that packages are made with.
fn sum() -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tool");
    std::fs::write(&path, "tool\n").unwrap();
    let line = crate::support::run("md5sum", [&path]);
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn diversions_and_left_out_paths_are_no_findings() {
    let list = "/usr/bin/tool\n/usr/bin/diverted\n/usr/share/doc/tool/README\n";
    let layer = package("installed", list, &sum())
        .file(
            &format!("{DATABASE}/diversions"),
            0o644,
            "/usr/bin/diverted\n/usr/bin/diverted.distrib\nother\n",
        )
        .file("usr/bin/diverted.distrib", 0o755, "")
        .file(
            "etc/dpkg/dpkg.cfg.d/docs",
            0o644,
            "path-exclude=/usr/share/doc/*\n",
        );
    assert_clean(&deployed([layer]));
}

#[test]
fn a_database_that_cannot_be_read_is_named() {
    let status = format!("{DATABASE}/status");
    for (layer, code) in [
        (
            Layer::new().file(&status, 0o644, "Package: a\nnonsense"),
            "dpkg-status-unreadable",
        ),
        (Layer::new().dir(DATABASE, 0o755), "dpkg-status-unreadable"),
        (
            Layer::new().file(&status, 0o644, "Package: a\nStatus: install ok installed\n"),
            "package-list-missing",
        ),
    ] {
        let checkup = Checkup::of(&deployed([layer]), &[]);
        assert_eq!(checkup.left(), [code], "{:#}", checkup.value);
        assert_eq!(checkup.status, 1);
    }
}

#[test]
fn a_host_with_packages_on_top_is_sound_and_mended() {
    let package = Package::new("tool", "1").file("usr/bin/tool", 0o755, "tool\n");
    let local = Package::new("mine", "1").file("usr/share/mine", 0o644, "mine\n");
    let host = DebianMachine::new(&[package]);
    let file = host.file(&local);
    host.ok(&["install", "tool", &file]);
    assert_clean(&host);
    // Only the derived commit has this one; it comes back from the deployment.
    let repo = host.sysroot.repo();
    let commit = host.status()["deployments"][0]["checksum"]
        .as_str()
        .unwrap()
        .to_owned();
    let line = crate::support::repo::ostree(&repo, &["ls", "-C", &commit, "/usr/bin/tool"]);
    let name = line.split_whitespace().find(|word| word.len() == 64).unwrap();
    let object = repo.join(format!("objects/{}/{}.file", &name[..2], &name[2..]));
    mends(&host, &["object-missing"], || {
        std::fs::remove_file(&object).unwrap()
    });

    // Damaged, it is made again by the next upgrade.
    std::fs::write(&object, "x").unwrap();
    let checkup = Checkup::of(&host, &["--repair"]);
    assert_eq!(checkup.status, 1);
    let hint = checkup.finding("object-missing")["hint"].as_str().unwrap();
    assert!(hint.contains("apt-ostree upgrade"), "{hint}");
    host.ok(&["upgrade"]);
    host.assert_sound();
    assert_eq!(Checkup::of(&host, &["--repair"]).status, 0);
    assert_clean(&host);

    let stored = host
        .sysroot
        .path()
        .join("ostree/deploy/default/var/lib/apt-ostree/local");
    let stored = std::fs::read_dir(stored).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&stored).unwrap();
    tells(&host, &["local-package-corrupt"], || {
        std::fs::write(&stored, "x").unwrap()
    });
    std::fs::write(&stored, whole).unwrap();
    assert_clean(&host);
}
