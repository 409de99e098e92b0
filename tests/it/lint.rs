//! `container lint`: one good root, and for each rule the damage that makes it fire.

use crate::support::write;
use apt_ostree::host::runner::Cmd;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

/// Returns an initramfs with the named files.
fn initramfs(names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names.iter().chain(&["TRAILER!!!"]) {
        let fields = [0, 0o100_644, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() + 1, 0];
        bytes.extend_from_slice(b"070701");
        for field in fields {
            bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Makes a root that no rule objects to.
fn good_root(root: &Path) {
    for folder in ["dev", "proc", "sys", "run", "tmp", "boot", "sysroot", "var/lib"] {
        fs::create_dir_all(root.join(folder)).expect("the root can be changed");
    }
    let modules = root.join("usr/lib/modules/6.12-amd64");
    write(modules.join("vmlinuz"), "kernel");
    write(
        modules.join("initramfs.img"),
        initramfs(&["usr/lib/ostree/ostree-prepare-root"]),
    );
    write(
        root.join("usr/lib/ostree/prepare-root.conf"),
        "[composefs]\nenabled = no\n",
    );
    write(
        root.join("usr/lib/os-release"),
        "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION=\"13 (trixie)\"\n",
    );
    write(root.join("usr/lib/sysimage/dpkg/status"), "Package: x\n");
    write(
        root.join("usr/lib/tmpfiles.d/all.conf"),
        "d /var/lib\nL /var/lib/dpkg - - - - x\nL /var/run\n",
    );
    write(root.join("usr/lib/sysusers.d/all.conf"), "u root 0\n");
    write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n");
    write(root.join("etc/group"), "root:x:0:\n");
    write(root.join("etc/machine-id"), "uninitialized\n");
    symlink("sysroot/ostree", root.join("ostree")).expect("the root can be changed");
    symlink("../../usr/lib/sysimage/dpkg", root.join("var/lib/dpkg")).expect("the root can be changed");
    symlink("/run", root.join("var/run")).expect("the root can be changed");
}

fn lint(root: &Path, args: &[&str]) -> Output {
    let command = Cmd::new(env!("CARGO_BIN_EXE_apt-ostree")).args(["container", "lint", "--rootfs"]);
    command
        .arg(root)
        .args(args)
        .output()
        .expect("the root can be changed")
}

/// Returns rule, level and path of each finding.
fn findings(root: &Path) -> Vec<(String, String, String)> {
    let output = lint(root, &["--format", "json"]);
    let found: Vec<serde_json::Value> =
        serde_json::from_slice(&output.stdout).expect("the root can be changed");
    let errors = found.iter().any(|finding| finding["level"] == "error");
    assert_eq!(output.status.code(), Some(i32::from(errors)));
    let field = |finding: &serde_json::Value, name: &str| {
        finding[name]
            .as_str()
            .expect("the root can be changed")
            .to_owned()
    };
    found
        .iter()
        .map(|finding| {
            assert!(!field(finding, "message").is_empty() && !field(finding, "remedy").is_empty());
            (
                field(finding, "rule"),
                field(finding, "level"),
                field(finding, "path"),
            )
        })
        .collect()
}

type Damage = fn(&Path);

/// Rule, level, path of the finding, and what brings it about.
const TABLE: &[(&str, &str, &str, Damage)] = &[
    ("api-base-directories", "error", "/proc", |root| {
        fs::remove_dir(root.join("proc")).expect("the root can be changed")
    }),
    ("baseimage-root", "error", "/sysroot", |root| {
        fs::remove_dir(root.join("sysroot")).expect("the root can be changed")
    }),
    ("baseimage-root", "error", "/ostree", |root| {
        fs::remove_file(root.join("ostree")).expect("the root can be changed");
        symlink("sysroot", root.join("ostree")).expect("the root can be changed");
    }),
    (
        "baseimage-composefs",
        "warning",
        "/usr/lib/ostree/prepare-root.conf",
        |root| {
            write(
                root.join("usr/lib/ostree/prepare-root.conf"),
                "[composefs]\nenabled = yes\n",
            );
        },
    ),
    (
        "baseimage-composefs",
        "warning",
        "/usr/lib/ostree/prepare-root.conf",
        |root| {
            write(
                root.join("usr/lib/x86_64-linux-gnu/libostree-1.so.1.0.0"),
                "...libcomposefs.so.1...",
            );
        },
    ),
    (
        "bootc-kargs",
        "error",
        "/usr/lib/bootc/kargs.d/10-x.toml",
        |root| {
            write(root.join("usr/lib/bootc/kargs.d/10-x.toml"), "kargs = \"quiet\"");
        },
    ),
    ("etc-usretc", "error", "/usr/etc", |root| {
        write(root.join("usr/etc/x"), "")
    }),
    ("kernel", "error", "/usr/lib/modules", |root| {
        fs::remove_dir_all(root.join("usr/lib/modules")).expect("the root can be changed")
    }),
    ("utf8", "error", "/usr/bad-\u{fffd}", |root| {
        let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"usr/bad-\xff");
        write(root.join(name), "");
    }),
    ("var-run", "error", "/var/run", |root| {
        fs::remove_file(root.join("var/run")).expect("the root can be changed");
        fs::create_dir(root.join("var/run")).expect("the root can be changed");
    }),
    ("buildah-injected", "warning", "/etc/hostname", |root| {
        write(root.join("etc/hostname"), "")
    }),
    ("nonempty-boot", "warning", "/boot/config", |root| {
        write(root.join("boot/config"), "")
    }),
    ("nonempty-run-tmp", "warning", "/tmp/x", |root| {
        write(root.join("tmp/x"), "")
    }),
    ("sysusers", "warning", "/etc/passwd", |root| {
        write(root.join("etc/passwd"), "web:x:33:0::/:/bin/sh\n")
    }),
    ("sysusers", "warning", "/etc/group", |root| {
        write(root.join("etc/group"), "web:x:33:\n")
    }),
    ("var-log", "warning", "/var/log/x.log", |root| {
        write(root.join("usr/lib/tmpfiles.d/log.conf"), "d /var/log\n");
        write(root.join("var/log/x.log"), "text");
    }),
    ("var-tmpfiles", "warning", "/var/lib/x", |root| {
        fs::create_dir(root.join("var/lib/x")).expect("the root can be changed")
    }),
    (
        "dpkg-database",
        "error",
        "/usr/lib/sysimage/dpkg/status",
        |root| {
            write(root.join("usr/lib/sysimage/dpkg/status"), "");
        },
    ),
    ("dpkg-database", "error", "/var/lib/dpkg", |root| {
        fs::remove_file(root.join("var/lib/dpkg")).expect("the root can be changed");
        symlink("/usr/lib/sysimage/dpkg", root.join("var/lib/dpkg")).expect("the root can be changed");
    }),
    (
        "initramfs",
        "error",
        "/usr/lib/modules/6.12-amd64/initramfs.img",
        |root| {
            write(
                root.join("usr/lib/modules/6.12-amd64/initramfs.img"),
                initramfs(&["usr/bin/sh"]),
            );
        },
    ),
    (
        "initramfs",
        "error",
        "/usr/lib/modules/6.12-amd64/initramfs.img",
        |root| {
            write(root.join("usr/lib/modules/6.12-amd64/initramfs.img"), "nonsense");
        },
    ),
    (
        "initramfs",
        "error",
        "/usr/lib/modules/6.12-amd64/initramfs.img",
        |root| {
            fs::remove_file(root.join("usr/lib/modules/6.12-amd64/initramfs.img"))
                .expect("the root can be changed");
        },
    ),
    ("host-identity", "error", "/etc/ssh/ssh_host_rsa_key", |root| {
        write(root.join("etc/ssh/ssh_host_rsa_key"), "x")
    }),
    ("host-identity", "error", "/etc/machine-id", |root| {
        write(root.join("etc/machine-id"), "")
    }),
    ("host-identity", "error", "/etc/machine-id", |root| {
        write(root.join("etc/machine-id"), "0123")
    }),
    (
        "host-identity",
        "error",
        "/usr/share/factory/var/lib/systemd/random-seed",
        |root| {
            write(
                root.join("usr/lib/tmpfiles.d/x.conf"),
                "C /var/lib/systemd/random-seed\n",
            );
            write(root.join("usr/share/factory/var/lib/systemd/random-seed"), "x");
        },
    ),
    (
        "apt-timers",
        "error",
        "/etc/systemd/system/timers.target.wants/apt-daily.timer",
        |root| {
            let folder = root.join("etc/systemd/system/timers.target.wants");
            fs::create_dir_all(&folder).expect("the root can be changed");
            symlink(
                "/usr/lib/systemd/system/apt-daily.timer",
                folder.join("apt-daily.timer"),
            )
            .expect("the root can be changed");
        },
    ),
    ("package-leftovers", "warning", "/etc/x.conf.dpkg-dist", |root| {
        write(root.join("etc/x.conf.dpkg-dist"), "")
    }),
    ("escaping-links", "error", "/usr/x", |root| {
        symlink("../../etc/shadow", root.join("usr/x")).expect("the root can be changed")
    }),
    ("escaping-links", "error", "/opt", |root| {
        symlink("/var/opt", root.join("opt")).expect("the root can be changed")
    }),
    ("escaping-links", "error", "/usr/x", |root| {
        symlink("/tmp/build/x", root.join("usr/x")).expect("the root can be changed")
    }),
    ("var-files", "error", "/var/lib/data", |root| {
        write(root.join("var/lib/data"), "x")
    }),
    ("var-files", "error", "/var/lib/data", |root| {
        write(root.join("usr/lib/tmpfiles.d/x.conf"), "C /var/lib/data\n");
        write(root.join("usr/share/factory/var/lib/data"), "old");
        write(root.join("var/lib/data"), "new");
    }),
    ("var-files", "error", "/usr/share/factory/var/lib/data", |root| {
        write(root.join("usr/share/factory/var/lib/data"), "forgotten");
    }),
    ("os-release", "error", "/usr/lib/os-release", |root| {
        write(root.join("usr/lib/os-release"), "PRETTY_NAME=\"My $OS\"\n");
    }),
    ("os-release", "error", "/usr/lib/os-release", |root| {
        write(root.join("usr/lib/os-release"), "NAME='It; is'\n");
    }),
];

#[test]
fn each_rule_fires_on_its_damage_and_no_other_does() {
    for (rule, level, path, damage) in TABLE {
        let folder = tempfile::tempdir().unwrap();
        good_root(folder.path());
        damage(folder.path());
        let found = findings(folder.path());
        let expected = ((*rule).to_owned(), (*level).to_owned(), (*path).to_owned());
        assert_eq!(found, [expected], "{rule} {path}");
        let skipped = lint(folder.path(), &["--fatal-warnings", "--skip", rule]);
        assert_eq!(skipped.status.code(), Some(0), "{rule} is not skipped");
    }
}

#[test]
fn every_rule_has_a_row_and_a_line_in_the_list() {
    let list = lint(Path::new("/"), &["--list"]);
    let list = String::from_utf8(list.stdout).unwrap();
    for rule in apt_ostree::compose::lint::RULES {
        assert!(
            TABLE.iter().any(|(name, ..)| *name == rule.name),
            "no row for {}",
            rule.name
        );
        assert!(
            list.lines().any(|line| line.starts_with(rule.name)),
            "{} is not listed",
            rule.name
        );
    }
    assert_eq!(list.lines().count(), apt_ostree::compose::lint::RULES.len());
}

#[test]
fn a_good_root_is_clean_and_two_kernels_are_named() {
    let folder = tempfile::tempdir().unwrap();
    good_root(folder.path());
    let output = lint(folder.path(), &["--fatal-warnings"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    fs::create_dir_all(folder.path().join("usr/lib/modules/6.1-amd64")).unwrap();
    for name in ["vmlinuz", "initramfs.img"] {
        let modules = folder.path().join("usr/lib/modules");
        fs::copy(
            modules.join("6.12-amd64").join(name),
            modules.join("6.1-amd64").join(name),
        )
        .unwrap();
    }
    let text = String::from_utf8(lint(folder.path(), &[]).stdout).unwrap();
    assert!(
        text.contains("2 kernels are there: 6.1-amd64, 6.12-amd64"),
        "{text}"
    );
    assert!(
        text.contains("remedy: ") && text.ends_with("Errors: 1, warnings: 0.\n"),
        "{text}"
    );
}

#[test]
fn warnings_fail_only_when_asked_and_unknown_rules_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    good_root(folder.path());
    write(folder.path().join("tmp/x"), "");
    assert_eq!(lint(folder.path(), &[]).status.code(), Some(0));
    assert_eq!(lint(folder.path(), &["--fatal-warnings"]).status.code(), Some(1));
    let unknown = lint(folder.path(), &["--skip", "no-such-rule"]);
    assert_eq!(unknown.status.code(), Some(2));
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("no-such-rule") && said.contains("--list"), "{said}");
    assert_eq!(lint(&folder.path().join("absent"), &[]).status.code(), Some(1));
}
