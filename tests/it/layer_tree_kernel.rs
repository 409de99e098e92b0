//! Kernels, modules and the initramfs of a layer.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::debian::Debian;
use crate::support::layered::{Checkout, Layering};
use crate::support::package::Package;
use apt_ostree::compose::initramfs;
use apt_ostree::layer::translate::TranslateOptions;

const NEW: &str = "9.9-test";

/// Returns the release of the image's kernel.
fn kernel_of(tree: &Checkout) -> String {
    let mut names = std::fs::read_dir(tree.path("usr/lib/modules")).unwrap();
    let name = names.next().unwrap().unwrap().file_name();
    assert!(names.next().is_none());
    name.into_string().unwrap()
}

/// Returns the path of one of its modules below its folder, and the content.
fn module_of(tree: &Checkout, kernel: &str) -> (String, Vec<u8>) {
    let dependencies = tree.text(&format!("usr/lib/modules/{kernel}/modules.dep"));
    let alone = dependencies
        .lines()
        .find_map(|line| line.strip_suffix(':'))
        .expect("a module");
    let content = std::fs::read(tree.path(&format!("usr/lib/modules/{kernel}/{alone}"))).unwrap();
    (alone.to_owned(), content)
}

/// A kernel package as Debian's are: the kernel in /boot, links at the top, modules without an index.
fn kernel_package(base: &Checkout) -> Package {
    let old = kernel_of(base);
    let read = |name: &str| std::fs::read(base.path(&format!("usr/lib/modules/{old}/{name}"))).unwrap();
    let (module, content) = module_of(base, &old);
    let modules = format!("usr/lib/modules/{NEW}");
    Package::new(&format!("linux-image-{NEW}"), "9.9")
        .file(&format!("boot/vmlinuz-{NEW}"), 0o644, read("vmlinuz"))
        .file(&format!("boot/config-{NEW}"), 0o644, "CONFIG_BLK_DEV_INITRD=y\n")
        .file(&format!("{modules}/modules.builtin"), 0o644, "")
        .file(&format!("{modules}/modules.order"), 0o644, format!("{module}\n"))
        .file(&format!("{modules}/{module}"), 0o644, content)
        .script(
            "postinst",
            &format!("#!/bin/sh\nln -s boot/vmlinuz-{NEW} /vmlinuz\nln -s boot/vmlinuz-{NEW} /vmlinuz.old\n"),
        )
}

#[test]
fn two_kernels_are_an_error_that_names_both_and_the_way_out() {
    let debian = Debian::new();
    let base = Checkout::of(&debian, &debian.commit);
    let old = kernel_of(&base);
    let error = Layering::new(&debian, &[kernel_package(&base)])
        .try_run()
        .err()
        .expect("an error");
    let said = format!("{error:#}");
    assert!(
        said.contains("2 kernels") && said.contains(&old) && said.contains(NEW),
        "{said}"
    );
    let hint = apt_ostree::fault::Fault::find(&error)
        .and_then(|fault| fault.hint.clone())
        .unwrap();
    assert!(
        hint.contains(&format!("override remove linux-image-{old}`")),
        "{hint}"
    );
    assert!(hint.contains(&format!("uninstall linux-image-{NEW}`")), "{hint}");
    assert_eq!(debian.leftovers(), Vec::<String>::new());
}

#[test]
fn a_replaced_kernel_is_beside_its_modules_with_one_initramfs() {
    let debian = Debian::new();
    let base = Checkout::of(&debian, &debian.commit);
    let old = kernel_of(&base);
    let layered = Layering::new(&debian, &[kernel_package(&base)])
        .remove("linux-image-cloud-amd64")
        .remove(&format!("linux-image-{old}"))
        .run();
    assert_eq!(layered.translated.kernel, NEW);
    assert!(layered.translated.initramfs_made);
    let tree = Checkout::of(&debian, &layered.commit);
    assert_eq!(kernel_of(&tree), NEW);
    let modules = format!("usr/lib/modules/{NEW}");
    assert_eq!(
        std::fs::read(tree.path(&format!("{modules}/vmlinuz"))).unwrap(),
        std::fs::read(base.path(&format!("usr/lib/modules/{old}/vmlinuz"))).unwrap()
    );
    assert_eq!(
        tree.text(&format!("{modules}/config")),
        "CONFIG_BLK_DEV_INITRD=y\n"
    );
    let index = tree.text(&format!("{modules}/modules.dep"));
    assert_eq!(index, format!("{}:\n", module_of(&base, &old).0));
    let entries = initramfs::entries(&std::fs::read(tree.path(&format!("{modules}/initramfs.img"))).unwrap());
    assert!(
        entries
            .unwrap()
            .iter()
            .any(|entry| entry.path.ends_with("/ostree-prepare-root"))
    );
    assert!(!tree.has("vmlinuz") && !tree.has("vmlinuz.old"));
    assert_eq!(std::fs::read_dir(tree.path("boot")).unwrap().count(), 0);
    debian.assert_sound();
}

#[test]
fn modules_are_indexed_and_the_initramfs_is_made_only_for_a_reason() {
    let debian = Debian::new();
    let base = Checkout::of(&debian, &debian.commit);
    let kernel = kernel_of(&base);
    let image = format!("usr/lib/modules/{kernel}/initramfs.img");
    let wanted = TranslateOptions {
        initramfs_wanted: true,
        ..TranslateOptions::default()
    };
    // A package asks, and nothing that goes into it changed.
    let tool = Package::new("tool", "1").file("usr/share/tool", 0o644, "1");
    let same = Layering::new(&debian, &[tool]).options(wanted).run();
    assert!(!same.translated.initramfs_made);
    let tree = Checkout::of(&debian, &same.commit);
    let same = std::fs::read(tree.path(&image)).unwrap() == std::fs::read(base.path(&image)).unwrap();
    assert!(same, "the initramfs changed");

    // A module beside those of the kernel, as dkms makes them.
    let (_, content) = module_of(&base, &kernel);
    let path = format!("usr/lib/modules/{kernel}/updates/dkms/extra.ko.xz");
    let module = Package::new("module", "1").file(&path, 0o644, content).file(
        "usr/src/other-1.0/dkms.conf",
        0o644,
        "PACKAGE_NAME=\"other\"\nPACKAGE_VERSION=\"1.0\"\n",
    );
    let more = Layering::new(&debian, &[module]).run();
    assert!(more.translated.initramfs_made);
    let warnings = more.translated.warnings.join("\n");
    assert!(
        warnings.contains("other 1.0") && warnings.contains(&format!("linux-headers-{kernel}")),
        "{warnings}"
    );
    let tree = Checkout::of(&debian, &more.commit);
    let index = tree.text(&format!("usr/lib/modules/{kernel}/modules.dep"));
    assert!(index.contains("updates/dkms/extra.ko.xz:"));
    debian.assert_sound();
}

#[test]
fn an_initramfs_of_the_hosts_own_takes_its_settings_and_arguments() {
    let debian = Debian::new();
    let kernel = kernel_of(&Checkout::of(&debian, &debian.commit));
    let base = Checkout::of(&debian, &debian.commit);
    let etc = tempfile::tempdir().unwrap();
    let to = etc.path().to_str().unwrap();
    crate::support::run("cp", ["-a", base.path("usr/etc/.").to_str().unwrap(), to]);
    crate::support::write(etc.path().join("of-this-host"), "1");
    crate::support::write(
        etc.path().join("dracut.conf.d/host.conf"),
        "install_items+=\" /etc/of-this-host \"\n",
    );
    let options = TranslateOptions {
        initramfs_wanted: false,
        initramfs: Some(vec![
            "--omit".to_owned(),
            "lvm".to_owned(),
            "-I".to_owned(),
            "/etc/fstab".to_owned(),
        ]),
        etc: Some(etc.path().to_owned()),
    };
    let layered = Layering::new(&debian, &[]).options(options).run();
    assert!(layered.translated.initramfs_made);
    let tree = Checkout::of(&debian, &layered.commit);
    let image = std::fs::read(tree.path(&format!("usr/lib/modules/{kernel}/initramfs.img"))).unwrap();
    let entries = initramfs::entries(&image).unwrap();
    assert!(entries.iter().any(|entry| entry.path == "etc/of-this-host"));
    assert!(
        !tree.has("usr/etc/of-this-host"),
        "the host's files stay the host's"
    );
}
