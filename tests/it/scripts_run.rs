//! Maintainer scripts as they run in a layer: interpreter, order, surroundings, triggers, files they change.

use crate::support::debian::Debian;
use crate::support::installation::{Installation, read};
use crate::support::package::Package;
use apt_ostree::layer::plan::{PackageId, Step};
use apt_ostree::layer::run::RunOptions;
use apt_ostree::report::{Event, Report, Unit, Work};
use std::sync::Mutex;

fn sh(body: &str) -> String {
    format!("#!/bin/sh\nset -e\n{body}\n")
}

#[test]
fn files_arrive_and_dpkg_finds_everything_in_order() {
    let debian = Debian::new();
    let installation = Installation::of(&[Package::new("plain", "1:2~rc1-3")
        .file("usr/share/plain/file", 0o644, "content")
        .conffile("etc/plain.conf", "default\n")
        .script("postinst", &sh("echo configured >/usr/share/plain/note"))]);
    installation.ok(&debian, |stage, ran| {
        assert_eq!(read(stage, "usr/share/plain/note"), "configured\n");
        assert_eq!(read(stage, "usr/etc/plain.conf"), "default\n");
        assert!(ran.warnings.is_empty() && !ran.initramfs_wanted && ran.skipped_scripts.is_empty());
        let status = read(stage, "usr/lib/sysimage/dpkg/status");
        let packages = apt_ostree::layer::packages::parse(&status);
        assert_eq!(packages[&("plain".to_owned(), "all".to_owned())], "1:2~rc1-3");
    });
    assert!(debian.leftovers().is_empty());
    debian.assert_sound();
}

#[test]
fn another_interpreter_runs_and_the_package_database_answers() {
    let debian = Debian::new();
    let installation = Installation::of(&[Package::new("perly", "1").script(
        "postinst",
        "#!/usr/bin/perl\nopen(my $f, '>', '/usr/share/perly'); print $f `dpkg-query -W -f '\\${Version}' perly`;\n",
    )]);
    installation.ok(&debian, |stage, _| {
        assert_eq!(read(stage, "usr/share/perly"), "1");
    });
}

#[test]
fn scripts_run_in_the_order_of_dependencies() {
    let debian = Debian::new();
    let note = |name: &str| sh(&format!("echo {name} >>/usr/share/order"));
    let mut installation = Installation::of(&[
        Package::new("app", "1")
            .depends("lib-first")
            .script("postinst", &note("app")),
        Package::new("lib-first", "1").script("postinst", &note("lib-first")),
    ]);
    installation.plan.steps.pop();
    installation.ok(&debian, |stage, _| {
        assert_eq!(read(stage, "usr/share/order"), "lib-first\napp\n");
    });
}

#[test]
fn a_package_may_be_configured_before_another_is_unpacked() {
    let debian = Debian::new();
    let mut installation = Installation::of(&[
        Package::new("base-tool", "1").script("postinst", &sh("touch /usr/share/base-tool-ready")),
        Package::new("user-tool", "1")
            .field("Pre-Depends", "base-tool")
            .script("preinst", &sh("test -e /usr/share/base-tool-ready")),
    ]);
    let ids: Vec<PackageId> = installation
        .fetched
        .iter()
        .map(|package| package.id.clone())
        .collect();
    installation.plan.steps = vec![
        Step::Unpack(ids[..1].to_vec()),
        Step::Configure(ids[..1].to_vec()),
        Step::Unpack(ids[1..].to_vec()),
        Step::Configure(ids[1..].to_vec()),
    ];
    installation.ok(&debian, |_, _| {});
}

#[test]
fn surroundings_are_clean_and_always_the_same() {
    let debian = Debian::new();
    let installation = Installation::of(&[Package::new("curious", "1").script(
        "postinst",
        &sh("env >/usr/share/environment; hostname >/usr/share/name; cat /etc/hosts >/usr/share/hosts"),
    )]);
    installation.ok(&debian, |stage, _| {
        let environment = read(stage, "usr/share/environment");
        for line in [
            "SYSTEMD_OFFLINE=1",
            "DEBIAN_FRONTEND=noninteractive",
            "LC_ALL=C.UTF-8",
            "SOURCE_DATE_EPOCH=0",
        ] {
            assert!(environment.lines().any(|found| found == line), "{environment}");
        }
        for name in ["CARGO", "APT_OSTREE", "SSH", "XDG", "USER"] {
            assert!(
                !environment.lines().any(|line| line.starts_with(name)),
                "{environment}"
            );
        }
        assert_eq!(read(stage, "usr/share/name"), "localhost\n");
        assert_eq!(
            read(stage, "usr/share/hosts"),
            "127.0.0.1 localhost\n::1 localhost\n"
        );
    });
}

#[test]
fn a_script_may_change_a_file_of_etc_and_the_base_keeps_its_own() {
    let debian = Debian::new();
    let installation = Installation::of(&[Package::new("changer", "1").script(
        "postinst",
        &sh("echo changed >>/etc/debian_version; mkdir -p /etc/changer.d; echo x >/etc/changer.d/x"),
    )]);
    installation.ok(&debian, |stage, _| {
        assert!(read(stage, "usr/etc/debian_version").ends_with("changed\n"));
        assert_eq!(
            std::fs::read_to_string(stage.upper().join("usr/etc/changer.d/x")).unwrap(),
            "x\n"
        );
        let base = std::fs::read_to_string(stage.base().join("usr/etc/debian_version")).unwrap();
        assert!(!base.contains("changed"));
    });
    debian.assert_sound();
}

#[test]
fn triggers_run_once_at_the_end() {
    let debian = Debian::new();
    let activator = |name: &str| {
        Package::new(name, "1")
            .file(&format!("usr/share/watched/{name}"), 0o644, name)
            .script("postinst", &sh("true"))
    };
    let handler = Package::new("handler", "1")
        .triggers("interest-noawait /usr/share/watched\n")
        .script("postinst", &sh("[ \"$1\" = triggered ] || exit 0\nls /usr/share/watched >>/usr/share/trigger-runs; echo run >>/usr/share/trigger-runs"));
    let mut installation = Installation::of(&[handler, activator("watched-a"), activator("watched-b")]);
    let ids: Vec<PackageId> = installation
        .fetched
        .iter()
        .map(|package| package.id.clone())
        .collect();
    installation.plan.steps = vec![
        Step::Unpack(vec![ids[0].clone()]),
        Step::Configure(vec![ids[0].clone()]),
        Step::Unpack(vec![ids[1].clone()]),
        Step::Configure(vec![ids[1].clone()]),
        Step::Unpack(vec![ids[2].clone()]),
        Step::Configure(vec![ids[2].clone()]),
    ];
    installation.ok(&debian, |stage, _| {
        assert_eq!(
            read(stage, "usr/share/trigger-runs"),
            "watched-a\nwatched-b\nrun\n"
        );
    });
}

#[test]
fn a_service_is_enabled_and_not_started() {
    let debian = Debian::new();
    let unit = "[Service]\nExecStart=/usr/bin/true\n[Install]\nWantedBy=multi-user.target\n";
    let body = "deb-systemd-helper unmask brave.service >/dev/null || true\n\
                if deb-systemd-helper --quiet was-enabled brave.service; then deb-systemd-helper enable brave.service >/dev/null || true; fi\n\
                deb-systemd-invoke start brave.service\ninvoke-rc.d brave start\nsystemctl daemon-reload\nupdate-initramfs -u\n";
    let installation = Installation::of(&[Package::new("brave", "1")
        .file("usr/lib/systemd/system/brave.service", 0o644, unit)
        .script("postinst", &sh(body))]);
    installation.ok(&debian, |stage, ran| {
        let link = stage
            .root()
            .join("usr/etc/systemd/system/multi-user.target.wants/brave.service");
        assert!(std::fs::symlink_metadata(link).is_ok());
        assert!(ran.initramfs_wanted);
        assert!(!stage.upper().join("run").exists());
    });
}

#[test]
fn debconf_answers_reach_the_config_script_and_no_argument() {
    let debian = Debian::new();
    let installation = Installation::of(&[Package::new("asker", "1")
        .depends("debconf")
        .templates("Template: asker/word\nType: string\nDefault: none\nDescription: a word\n")
        .config("#!/bin/sh\n. /usr/share/debconf/confmodule\ndb_input critical asker/word || true\ndb_go || true\n")
        .script(
            "postinst",
            "#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\ndb_get asker/word\necho \"$RET\" >/usr/share/asked\ncat /proc/[0-9]*/cmdline | tr '\\0' ' ' >/usr/share/arguments\n",
        )]);
    let options = RunOptions {
        debconf: Some(b"asker asker/word string hush-hush\n".to_vec()),
        ..RunOptions::default()
    };
    installation.run(&debian, &options, |stage, ran| {
        ran.unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(read(stage, "usr/share/asked"), "hush-hush\n");
        assert!(!read(stage, "usr/share/arguments").contains("hush-hush"));
    });
    let bad = RunOptions {
        debconf: Some(b"asker asker/word string fine\nhush-hush\n".to_vec()),
        ..RunOptions::default()
    };
    let said = installation.refused(&debian, &bad);
    assert!(said.contains("Line 2") && !said.contains("hush-hush"), "{said}");
}

#[test]
fn pulled_in_packages_are_marked_for_apt() {
    let debian = Debian::new();
    let mut installation = Installation::of(&[Package::new("wanted", "1"), Package::new("pulled-in", "1")]);
    installation.plan.packages[1].automatic = true;
    installation.ok(&debian, |stage, _| {
        let states = read(stage, "usr/lib/sysimage/dpkg/extended_states");
        assert!(
            states.ends_with("Package: pulled-in\nArchitecture: amd64\nAuto-Installed: 1\n\n"),
            "{states}"
        );
        assert!(!states.contains("Package: wanted"));
    });
}

#[test]
fn a_package_of_the_image_can_be_removed_and_foreign_architectures_added() {
    let debian = Debian::new();
    let mut installation = Installation::of(&[Package::new("other", "1")]);
    installation.plan.foreign_architectures = vec!["i386".to_owned()];
    let removed = PackageId {
        name: "dosfstools".to_owned(),
        architecture: "amd64".to_owned(),
        version: "4.2-1.2".to_owned(),
    };
    installation.plan.removals = vec![removed.clone()];
    installation.plan.steps.insert(0, Step::Remove(vec![removed]));
    installation.ok(&debian, |stage, _| {
        assert!(
            stage.base().join("usr/sbin/mkfs.fat").exists()
                && !stage.root().join("usr/sbin/mkfs.fat").exists()
        );
        assert!(read(stage, "usr/lib/sysimage/dpkg/arch").contains("i386"));
    });
}

#[test]
fn var_holds_what_scripts_expect() {
    let debian = Debian::new();
    let installation = Installation::of(&[Package::new("stateful", "1").script(
        "postinst",
        &sh("test -f /var/lib/dpkg/status; test -d /var/cache/debconf; test -d /var/log; test -d /var/tmp; echo s >/var/lib/stateful"),
    )]);
    installation.ok(&debian, |stage, _| {
        assert_eq!(
            std::fs::read_to_string(stage.upper().join("var/lib/stateful")).unwrap(),
            "s\n"
        );
    });
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Report for Recorder {
    fn event(&self, event: Event) {
        self.0.lock().expect("events").push(event);
    }
}

#[test]
fn progress_counts_packages_and_scripts() {
    let debian = Debian::new();
    let installation = Installation::of(&[
        Package::new("first-one", "1").script("preinst", &sh("true")),
        Package::new("second-one", "1").script("postinst", &sh("true")),
    ]);
    let recorder = Recorder::default();
    installation.run_reporting(&debian, &RunOptions::default(), &recorder, |_, ran| {
        ran.unwrap_or_else(|error| panic!("{error:#}"));
    });
    let told: Vec<String> = recorder
        .0
        .into_inner()
        .unwrap()
        .into_iter()
        .filter_map(|event| match event {
            Event::Step { text, work } if text == "Installing packages" => Some(format!("{work:?}")),
            Event::Doing { text } => Some(text),
            Event::Progress { unit, done, total } => Some(format!("{unit:?} {done}/{total}")),
            Event::Script { package, script, .. } => Some(format!("{script} of {package}")),
            Event::Done { text, .. } if text.starts_with("Installed") => Some(text),
            _ => None,
        })
        .collect();
    let work = [
        Work::new(Unit::Actions, 4),
        Work::new(Unit::Packages, 2),
        Work::new(Unit::Scripts, 2),
    ];
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    assert_eq!(
        told,
        [
            &format!("{work:?}"),
            "Unpacking first-one",
            "Actions 1/4",
            "Scripts 1/2",
            "Unpacking second-one",
            "Actions 2/4",
            "Scripts 1/2",
            "Setting up first-one",
            "Actions 3/4",
            "Scripts 1/2",
            "Packages 1/2",
            "Setting up second-one",
            "postinst of second-one",
            "Actions 4/4",
            "Scripts 2/2",
            "Packages 2/2",
            "Installed 2 packages, ran 2 scripts",
        ]
    );
}
