//! What dpkg and its tools keep, and what must not get into a commit.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::debian::Debian;
use crate::support::layered::{Checkout, Layering, inside};
use crate::support::package::Package;
use crate::support::run;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn tree_of(debian: &Debian, commit: &str) -> String {
    debian.ostree(&["ls", "-d", "-C", commit, "/"])
}

/// Asks the dpkg tools of a commit's tree, with `/etc` in place.
fn ask(debian: &Debian, commit: &str, program: &str, words: &[&str]) -> String {
    let folder = tempfile::Builder::new()
        .prefix("ask-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap();
    let root = folder.path().join("root");
    let path = root.to_str().unwrap();
    debian.ostree(&["checkout", "-C", "--fsync=false", commit, path]);
    run("cp", ["-a", &format!("{path}/usr/etc"), &format!("{path}/etc")]);
    let output = inside(&root, Path::new("/usr/share"), program)
        .args(words)
        .run_text();
    output.unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn dpkgs_own_state_is_in_the_commit() {
    let debian = Debian::new();
    let tool = Package::new("tool", "1")
        .file("usr/bin/tool-new", 0o755, "#!/bin/sh\n")
        .file("usr/bin/diverted-tool", 0o755, "#!/bin/sh\n")
        .conffile("etc/tool.conf", "shipped\n")
        .triggers("interest-noawait /usr/share/tool-inputs\n")
        .script(
            "postinst",
            "#!/bin/sh\nset -e\n\
             if [ \"$1\" = triggered ]; then echo \"$2\" > /usr/share/tool-triggered; exit 0; fi\n\
             update-alternatives --install /usr/bin/editor-of-tool editor-of-tool /usr/bin/tool-new 50\n\
             dpkg-statoverride --update --add root mail 2755 /usr/bin/tool-new\n\
             mkdir -p /var/lib/ucf && echo 'digest  /etc/tool.ucf' > /var/lib/ucf/hashfile\n",
        )
        .script(
            "preinst",
            "#!/bin/sh\nset -e\n\
             dpkg-divert --package tool --rename --divert /usr/bin/true.real --add /usr/bin/true\n",
        );
    let input = Package::new("input", "1").file("usr/share/tool-inputs/one", 0o644, "1");
    let first = Layering::new(&debian, &[tool]).run();
    let layered = Layering::new(&debian, &[input]).over(&first.commit).run();
    let tree = Checkout::of(&debian, &layered.commit);
    assert_eq!(
        tree.link("usr/bin/editor-of-tool"),
        "/etc/alternatives/editor-of-tool"
    );
    assert_eq!(
        tree.link("usr/etc/alternatives/editor-of-tool"),
        "/usr/bin/tool-new"
    );
    assert!(tree.has("usr/lib/sysimage/dpkg/alternatives/editor-of-tool"));
    assert_eq!(tree.owner("usr/bin/tool-new"), (0o2755, 0, 8));
    assert!(
        tree.text("usr/lib/sysimage/dpkg/statoverride")
            .contains("/usr/bin/tool-new")
    );
    assert!(!tree.has("usr/bin/true") && tree.has("usr/bin/true.real"));
    assert!(
        tree.text("usr/lib/sysimage/dpkg/diversions")
            .contains("/usr/bin/true.real")
    );
    assert_eq!(tree.text("usr/share/tool-triggered"), "/usr/share/tool-inputs\n");
    assert_eq!(tree.text("usr/etc/tool.conf"), "shipped\n");
    assert!(
        tree.text("usr/lib/sysimage/ucf/hashfile")
            .contains("/etc/tool.ucf")
    );
    let status = ask(&debian, &layered.commit, "dpkg-query", &["-s", "tool"]);
    assert!(
        status.contains("install ok installed") && status.contains("/etc/tool.conf "),
        "{status}"
    );
    let diverted = ask(
        &debian,
        &layered.commit,
        "dpkg-divert",
        &["--list", "/usr/bin/true"],
    );
    assert!(diverted.contains("by tool"), "{diverted}");
    let choice = ask(
        &debian,
        &layered.commit,
        "update-alternatives",
        &["--query", "editor-of-tool"],
    );
    assert!(choice.contains("Value: /usr/bin/tool-new"), "{choice}");
    assert_eq!(ask(&debian, &layered.commit, "dpkg", &["--audit"]), "");
    for gone in [
        "lock",
        "lock-frontend",
        "status-old",
        "diversions-old",
        "triggers/Lock",
    ] {
        assert!(!tree.has(&format!("usr/lib/sysimage/dpkg/{gone}")), "{gone}");
    }
    debian.assert_sound();
}

#[test]
fn the_same_request_twice_is_the_same_tree() {
    let debian = Debian::new();
    let package = || {
        Package::new("many", "1")
            .file("usr/lib/many/lib.so", 0o644, vec![7; 100_000])
            .file("var/lib/many/file", 0o644, "1")
            .script(
                "postinst",
                "#!/bin/sh\nset -e\nldconfig\n\
                 adduser --system --group --quiet --no-create-home --home /nonexistent many\n\
                 install -o many -g many /dev/null /usr/lib/many/owned\n",
            )
    };
    let first = Layering::new(&debian, &[package()]).run();
    let second = Layering::new(&debian, &[package()]).run();
    assert_eq!(tree_of(&debian, &first.commit), tree_of(&debian, &second.commit));
    // Equal trees of an equal base, and the base's time: one and the same commit.
    assert_eq!(first.commit, second.commit);
    let shown = debian.ostree(&["show", "--print-metadata-key=bootc.derived", &first.commit]);
    assert_eq!(shown.trim().trim_matches('\''), debian.commit);
    let time = |commit: &str| {
        let shown = debian.ostree(&["show", commit]);
        shown
            .lines()
            .find(|line| line.starts_with("Date:"))
            .unwrap()
            .to_owned()
    };
    assert_eq!(time(&first.commit), time(&debian.commit));
    for key in [
        "ostree.manifest-digest",
        "ostree.manifest",
        "ostree.container.image-config",
        "version",
    ] {
        let read = |commit: &str| debian.ostree(&["show", &format!("--print-metadata-key={key}"), commit]);
        assert_eq!(read(&first.commit), read(&debian.commit), "{key}");
    }
}

#[test]
fn a_package_of_the_base_can_go_with_all_its_files() {
    let debian = Debian::new();
    let base = Checkout::of(&debian, &debian.commit);
    assert!(base.has("usr/sbin/mkfs.fat") && base.has("usr/share/doc/dosfstools"));
    let layered = Layering::new(&debian, &[]).remove("dosfstools").run();
    let tree = Checkout::of(&debian, &layered.commit);
    assert!(!tree.has("usr/sbin/mkfs.fat") && !tree.has("usr/share/doc/dosfstools"));
    assert!(tree.has("usr/sbin/mkfs.ext4") && tree.has("usr/share/doc/e2fsprogs"));
    let whiteouts = run("find", [tree.path("").to_str().unwrap(), "-name", ".wh.*"]);
    assert_eq!(whiteouts, "");
    let installed = ask(
        &debian,
        &layered.commit,
        "dpkg-query",
        &["-W", "-f", "${Package} "],
    );
    assert!(
        installed.contains("e2fsprogs ") && !installed.contains("dosfstools "),
        "{installed}"
    );
    debian.assert_sound();
}

#[test]
fn secrets_never_enter_a_commit() {
    let debian = Debian::new();
    let postinst = "#!/bin/sh\nset -e\n\
        mkdir -p /etc/bind /etc/own /var/lib/own /var/lib/rabbitmq /var/lib/dkms /etc/ldap/slapd.d\n\
        echo secret > /etc/bind/rndc.key\n\
        printf '%s\\n' '-----BEGIN RSA PRIVATE KEY-----' MII '-----END RSA PRIVATE KEY-----' > /etc/own/made.pem\n\
        cp /etc/own/made.pem /var/lib/own/made.key\n\
        echo cookie > /var/lib/rabbitmq/.erlang.cookie\n\
        cp /etc/own/made.pem /var/lib/dkms/mok.key\n\
        printf '%s\\n' 'dn: x' 'olcRootPW:: e1NTSEF9' > /etc/ldap/slapd.d/config.ldif\n\
        echo 0123456789abcdef0123456789abcdef > /etc/machine-id\n\
        echo name > /etc/hostname\n\
        touch /etc/ssh/ssh_host_rsa_key\n";
    let package = Package::new("secretive", "1")
        .file("usr/sbin/rndc-confgen", 0o755, "#!/bin/sh\n")
        .conffile("etc/own/shipped.pem", "-----BEGIN PRIVATE KEY-----\nan example\n")
        .script("postinst", postinst);
    let layered = Layering::new(&debian, &[package]).run();
    let tree = Checkout::of(&debian, &layered.commit);
    for gone in [
        "usr/etc/bind/rndc.key",
        "usr/etc/own/made.pem",
        "usr/etc/ssh/ssh_host_rsa_key",
        "usr/etc/hostname",
        "usr/share/factory/var/lib/own/made.key",
        "usr/share/factory/var/lib/rabbitmq/.erlang.cookie",
        "usr/share/factory/var/lib/dkms/mok.key",
    ] {
        assert!(!tree.has(gone), "{gone}");
    }
    assert!(tree.has("usr/etc/own/shipped.pem"));
    assert_eq!(tree.text("usr/etc/machine-id"), "uninitialized\n");
    let warnings = layered.translated.warnings.join("\n");
    for told in [
        "/etc/own/made.pem",
        "/var/lib/own/made.key",
        "/etc/ldap/slapd.d/config.ldif",
    ] {
        assert!(warnings.contains(told), "{told} is not in {warnings}");
    }
    assert!(!warnings.contains("shipped.pem"));
    let units = "usr/lib/systemd/system";
    assert!(
        tree.text(&format!("{units}/apt-ostree-rndc-key.service"))
            .contains("rndc-confgen -a")
    );
    let drop_in = tree.text(&format!("{units}/named.service.d/10-apt-ostree-keys.conf"));
    assert!(drop_in.contains("Wants=apt-ostree-rndc-key.service"));
}

#[test]
fn what_no_commit_can_hold_is_refused_by_name() {
    let debian = Debian::new();
    let refused = |change: fn(&Path)| {
        let error = Layering::new(&debian, &[])
            .change(change)
            .try_run()
            .err()
            .expect("a refusal");
        format!("{error:#}")
    };
    let said = refused(|root| {
        std::fs::write(root.join("usr/share").join(OsStr::from_bytes(b"caf\xe9")), "").unwrap();
    });
    assert!(
        said.contains("usr/share/caf") && said.contains("not UTF-8"),
        "{said}"
    );
    let said = refused(|root| {
        run("mkfifo", [root.join("usr/share/pipe").to_str().unwrap()]);
    });
    assert!(
        said.contains("/usr/share/pipe") && said.contains("FIFO"),
        "{said}"
    );
    let said = refused(|root| std::fs::write(root.join("usr/share/.wh.thing"), "").unwrap());
    assert!(
        said.contains("/usr/share/.wh.thing") && said.contains("reserved"),
        "{said}"
    );
    let said = refused(|root| std::fs::write(root.join("etc/x.conf.dpkg-new"), "").unwrap());
    assert!(said.contains("dpkg left /etc/x.conf.dpkg-new"), "{said}");
    assert_eq!(debian.leftovers(), Vec::<String>::new());
    debian.assert_sound();
}

#[test]
fn new_names_at_the_top_stay_and_are_told() {
    let debian = Debian::new();
    let package = Package::new("top", "1")
        .dir("snap", 0o711)
        .file("company/tool", 0o755, "1");
    let layered = Layering::new(&debian, &[package]).run();
    let tree = Checkout::of(&debian, &layered.commit);
    assert_eq!(tree.owner("snap"), (0o711, 0, 0));
    assert_eq!(tree.text("company/tool"), "1");
    let warnings = layered.translated.warnings.join("\n");
    assert!(
        warnings.contains("/snap is new") && warnings.contains("/company is new"),
        "{warnings}"
    );
    debian.assert_sound();
}

#[test]
fn large_files_and_many_threads_make_the_right_objects() {
    let debian = Debian::new();
    let layered = Layering::new(&debian, &[])
        .change(|root| {
            // A sparse file larger than any buffer, and enough small ones for every thread.
            let large = std::fs::File::create(root.join("usr/share/large")).unwrap();
            large.set_len(120 << 20).unwrap();
            std::fs::create_dir(root.join("usr/share/many")).unwrap();
            for number in 0..2000 {
                std::fs::write(root.join(format!("usr/share/many/{number}")), number.to_string()).unwrap();
            }
            std::fs::write(root.join("run/left"), "").unwrap();
            std::fs::write(root.join("tmp/left"), "").unwrap();
        })
        .run();
    let tree = Checkout::of(&debian, &layered.commit);
    assert_eq!(tree.path("usr/share/large").metadata().unwrap().len(), 120 << 20);
    for number in [0, 7, 999, 1999] {
        assert_eq!(tree.text(&format!("usr/share/many/{number}")), number.to_string());
    }
    assert!(!tree.has("run/left") && !tree.has("tmp/left"));
    debian.assert_sound();
}

#[test]
fn a_replaced_directory_hides_all_that_was_in_it() {
    let debian = Debian::new();
    let layered = Layering::new(&debian, &[])
        .change(|root| {
            std::fs::remove_dir_all(root.join("usr/share/bash-completion")).unwrap();
            std::fs::create_dir(root.join("usr/share/bash-completion")).unwrap();
            std::fs::write(root.join("usr/share/bash-completion/new"), "").unwrap();
            std::fs::remove_file(root.join("usr/bin/true")).unwrap();
            std::fs::create_dir(root.join("usr/bin/true")).unwrap();
            std::fs::write(root.join("usr/bin/true/inside"), "").unwrap();
        })
        .run();
    let tree = Checkout::of(&debian, &layered.commit);
    let names: Vec<_> = std::fs::read_dir(tree.path("usr/share/bash-completion"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["new"]);
    assert!(tree.has("usr/bin/true/inside"));
    debian.assert_sound();
}
