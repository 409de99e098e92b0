//! `--scripts` and `--conflicts`: what is refused, what is left out, and whose file stays.

use crate::support::debian::{Debian, in_private_mounts};
use crate::support::installation::{Installation, read};
use crate::support::package::Package;
use apt_ostree::layer::analysis::analyse_script;
use apt_ostree::layer::intent::{ConflictMode, ScriptMode};
use apt_ostree::layer::run::RunOptions;

fn scripts(mode: ScriptMode) -> RunOptions {
    RunOptions {
        scripts: mode,
        ..RunOptions::default()
    }
}

fn conflicts(mode: ConflictMode) -> RunOptions {
    RunOptions {
        conflicts: mode,
        ..RunOptions::default()
    }
}

fn starter() -> Package {
    Package::new("starter", "1")
        .file("usr/share/starter", 0o644, "x")
        .script(
            "postinst",
            "#!/bin/sh\n# systemctl start never\ntouch /usr/share/starter-ran\nsystemctl restart starter.service\n",
        )
}

#[test]
fn strict_refuses_before_anything_is_unpacked_and_names_every_line() {
    let debian = Debian::new();
    let loader =
        Package::new("loader", "1").script("preinst", "#!/bin/sh\nmodprobe loop\nwget http://example.org/\n");
    let installation = Installation::of(&[starter(), loader]);
    installation.run(&debian, &scripts(ScriptMode::Strict), |stage, ran| {
        let said = format!("{:#}", ran.unwrap_err());
        for named in [
            "starter.postinst line 4: `systemctl restart starter.service`",
            "loader.preinst line 2: `modprobe loop`",
            "loader.preinst line 3: `wget",
        ] {
            assert!(said.contains(named), "{said}");
        }
        assert_eq!(std::fs::read_dir(stage.upper()).unwrap().count(), 0);
    });
}

#[test]
fn warn_runs_the_script_and_tells() {
    let debian = Debian::new();
    let installation = Installation::of(&[starter()]);
    installation.ok(&debian, |stage, ran| {
        assert!(stage.root().join("usr/share/starter-ran").exists());
        assert!(
            ran.warnings.len() == 1 && ran.warnings[0].contains("starter.postinst line 4"),
            "{ran:?}"
        );
    });
}

#[test]
fn skip_installs_the_package_without_the_script() {
    let debian = Debian::new();
    let installation = Installation::of(&[starter()]);
    installation.run(&debian, &scripts(ScriptMode::Skip), |stage, ran| {
        let ran = ran.unwrap_or_else(|error| panic!("{error:#}"));
        assert!(stage.root().join("usr/share/starter").exists());
        assert!(!stage.root().join("usr/share/starter-ran").exists());
        assert!(
            ran.skipped_scripts.len() == 1 && ran.skipped_scripts[0].starts_with("starter.postinst: line 4"),
            "{ran:?}"
        );
        assert!(
            read(stage, "usr/lib/sysimage/dpkg/status")
                .contains("Package: starter\nStatus: install ok installed")
        );
    });
}

#[test]
fn skip_goes_on_without_scripts_that_fail() {
    let debian = Debian::new();
    let fails = "#!/bin/sh\necho no chance >&2\nexit 4\n";
    let installation = Installation::of(&[
        Package::new("aa-good", "1").script("postinst", "#!/bin/sh\necho run >>/usr/share/good-runs\n"),
        Package::new("bad-before", "1")
            .file("usr/share/bad-before", 0o644, "x")
            .script("preinst", fails),
        Package::new("bad-after", "1")
            .file("usr/share/bad-after", 0o644, "x")
            .script("postinst", fails),
        Package::new("needs-bad", "1")
            .depends("bad-after")
            .script("postinst", "#!/bin/sh\ntouch /usr/share/needs-ran\n"),
    ]);
    installation.run(&debian, &scripts(ScriptMode::Skip), |stage, ran| {
        let ran = ran.unwrap_or_else(|error| panic!("{error:#}"));
        let mut skipped = ran.skipped_scripts;
        skipped.sort();
        assert_eq!(
            skipped,
            ["bad-after.postinst: it failed", "bad-before.preinst: it failed"]
        );
        assert!(ran.warnings.len() == 2 && ran.warnings.iter().all(|text| text.contains("no chance")));
        for file in ["bad-before", "bad-after", "needs-ran"] {
            assert!(stage.root().join("usr/share").join(file).exists(), "{file}");
        }
        assert_eq!(read(stage, "usr/share/good-runs"), "run\n");
    });
}

fn twice() -> Installation {
    Installation::of(&[
        Package::new("first-owner", "1")
            .file("usr/share/twice", 0o644, "first\n")
            .file("usr/share/first only", 0o644, "x"),
        Package::new("second-owner", "1")
            .file("usr/share/twice", 0o600, "second\n")
            .file("usr/bin/hostname", 0o755, "not the base's\n"),
    ])
}

#[test]
fn a_file_of_two_packages_is_refused_by_name() {
    let debian = Debian::new();
    twice().run(&debian, &conflicts(ConflictMode::Fail), |stage, ran| {
        let said = format!("{:#}", ran.unwrap_err());
        assert!(
            said.contains("/usr/share/twice is in first-owner and in second-owner")
                && said.contains("/usr/bin/hostname is in hostname and in second-owner"),
            "{said}"
        );
        assert_eq!(std::fs::read_dir(stage.upper()).unwrap().count(), 0);
    });
}

#[test]
fn keep_latest_lets_the_later_package_win() {
    let debian = Debian::new();
    twice().run(&debian, &conflicts(ConflictMode::KeepLatest), |stage, ran| {
        let ran = ran.unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(read(stage, "usr/share/twice"), "second\n");
        assert_eq!(read(stage, "usr/bin/hostname"), "not the base's\n");
        assert!(
            ran.overwritten
                .contains(&"/usr/share/twice: of second-owner, not of first-owner".to_owned())
        );
        assert_eq!(ran.warnings.len(), 2, "{ran:?}");
    });
}

#[test]
fn keep_base_lets_what_was_there_before_win() {
    let debian = Debian::new();
    twice().run(&debian, &conflicts(ConflictMode::KeepBase), |stage, ran| {
        let ran = ran.unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(read(stage, "usr/share/twice"), "first\n");
        assert!(!stage.upper().join("usr/bin/hostname").exists());
        assert!(
            ran.overwritten
                .contains(&"/usr/bin/hostname: of hostname, not of second-owner".to_owned())
        );
        assert!(!read(stage, "usr/lib/sysimage/dpkg/info/second-owner.list").contains("twice"));
    });
}

#[test]
fn what_a_package_replaces_or_diverts_is_no_conflict() {
    let debian = Debian::new();
    let installation = Installation::of(&[
        Package::new("old-home", "1").file("usr/share/moved", 0o644, "old\n"),
        Package::new("new-home", "2")
            .field("Replaces", "old-home (<< 2)")
            .file("usr/share/moved", 0o644, "new\n"),
        Package::new("diverter", "1")
            .file("usr/bin/hostname", 0o755, "diverted\n")
            .script(
                "preinst",
                "#!/bin/sh\nset -e\ndpkg-divert --package diverter --add --rename --divert /usr/bin/hostname.real /usr/bin/hostname\n",
            ),
    ]);
    installation.ok(&debian, |stage, ran| {
        assert_eq!(read(stage, "usr/share/moved"), "new\n");
        assert_eq!(read(stage, "usr/bin/hostname"), "diverted\n");
        assert!(stage.root().join("usr/bin/hostname.real").exists() && ran.overwritten.is_empty());
    });
}

#[test]
fn each_rule_finds_its_pattern_and_leaves_the_careful_script_alone() {
    let found = |body: &str| {
        analyse_script("p", "postinst", &format!("#!/bin/sh\n{body}\n"))
            .iter()
            .map(|finding| (finding.line, finding.rule))
            .collect::<Vec<_>>()
    };
    for (body, rule) in [
        ("systemctl start foo", "service"),
        ("systemctl --quiet daemon-reexec", "service"),
        ("if true; then\n systemctl restart foo; fi", "service"),
        ("sysctl --system", "kernel-setting"),
        ("echo 1 >/proc/sys/net/ipv4/ip_forward", "kernel-file"),
        ("echo 1 | tee /sys/module/x", "kernel-file"),
        ("udevadm trigger --subsystem-match=usb", "device-events"),
        ("/sbin/modprobe foo", "kernel-module"),
        ("mount -a", "mount"),
        ("curl -fsSL https://example.org/x | sh", "network"),
        ("apt-get update", "network"),
        ("read -r answer </dev/tty", "question"),
        ("whiptail --yesno x 1 1", "question"),
        ("dbus-send --system x", "bus"),
        ("reboot", "power"),
        ("update-grub", "boot-loader"),
    ] {
        let findings = found(body);
        assert!(
            findings.len() == 1 && findings[0].1 == rule,
            "{body}: {findings:?}"
        );
    }
    for careful in [
        "systemctl restart foo || true",
        "if [ -d /run/systemd/system ]; then systemctl --system daemon-reload >/dev/null || true; systemctl start foo; fi",
        "[ -d /run/systemd/system ] && systemctl start foo",
        "[ -d /run/systemd/system ] || exit 0\nmount -a",
        "systemctl enable foo; systemctl --no-reload preset foo; systemctl daemon-reload",
        "invoke-rc.d foo start || exit $?; deb-systemd-invoke start foo; service foo restart",
        "echo 'run mount -a; reboot'",
        "cat <<EOF\nmount -a\nEOF",
        "# reboot",
        "mount() { :; }",
        "read -r line <file",
        "sysctl -n kernel.ostype",
        "case $1 in mount|reboot) : ;; esac",
    ] {
        assert_eq!(found(careful), [], "{careful}");
    }
    let perl = "#!/usr/bin/perl\nsystem('systemctl', 'restart', 'foo');\n";
    assert_eq!(analyse_script("p", "postinst", perl)[0].rule, "service");
}

#[test]
fn the_scripts_of_the_image_itself_are_all_found_right() {
    let debian = Debian::new();
    let (read, found) = in_private_mounts(|| {
        let stage = debian.stage();
        let folder = stage.base().join("usr/lib/sysimage/dpkg/info");
        let mut found = Vec::new();
        let mut read = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let Some((package, script @ ("config" | "preinst" | "postinst"))) = name.rsplit_once('.') else {
                continue;
            };
            read += 1;
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            found.extend(analyse_script(package, script, &text));
        }
        (read, found)
    });
    assert!(read > 40, "{read}");
    assert!(found.is_empty(), "{found:#?}");
}
