//! The units in `dist/systemd`, held against systemd's own judgement and against the program they start.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::debian_machine::DebianMachine;
use crate::support::package::Package;
use crate::support::write;
use apt_ostree::host::runner::Cmd;
use std::path::{Path, PathBuf};

/// How exposed each service may be, by the measure of `systemd-analyze security`: 0.0 to 10.0.
const EXPOSURE: &[(&str, &str)] = &[
    ("apt-ostree-bootstatus.service", "1.9"),
    ("apt-ostree-countme.service", "1.6"),
    ("apt-ostreed-automatic.service", "1.4"),
    // It changes the system for others; the unit tells why each option that is missing cannot be set.
    ("apt-ostreed.service", "5.6"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd")
}

/// Returns the names of the files with this extension.
fn names(extension: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|found| found == extension)
        })
        .collect();
    names.sort();
    names
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// Returns the values of a key of a unit, in their order.
fn values(unit: &str, key: &str) -> Vec<String> {
    let line = |line: &str| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    text(unit).lines().filter_map(line).collect()
}

/// Lets systemd look at units among its own; returns what it says against them.
fn verify(units: &[(String, String)]) -> String {
    let root = tempfile::tempdir().unwrap();
    let system = root.path().join("usr/lib/systemd/system");
    std::fs::create_dir_all(root.path().join("usr/lib/systemd")).unwrap();
    let copied = Cmd::new("cp")
        .arg("-a")
        .args(["/lib/systemd/system".as_ref(), system.as_path()]);
    copied.run().unwrap();
    for program in ["usr/bin/apt-ostree", "usr/bin/busctl", "usr/libexec/apt-ostreed"] {
        let path = root.path().join(program);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy("/bin/true", path).unwrap();
    }
    for (name, text) in units {
        write(system.join(name), text);
    }
    let output = Cmd::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(format!("--root={}", root.path().display()))
        .args(units.iter().map(|(name, _)| name))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    format!("{said}{}", if output.status.success() { "" } else { "failed" })
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let units: Vec<_> = [names("service"), names("timer")].concat();
    assert!(units.len() >= 6, "{units:?}");
    let with_text: Vec<_> = units.iter().map(|name| (name.clone(), text(name))).collect();
    assert_eq!(verify(&with_text), "");
    // What it would find: an option that does not exist, a program that is not there.
    let wrong = text("apt-ostreed.service").replace("KillMode=", "KillMood=");
    assert!(verify(&[("apt-ostreed.service".to_owned(), wrong)]).contains("KillMood"));
    let wrong = text("apt-ostreed.service").replace("libexec/", "lib/");
    assert!(verify(&[("apt-ostreed.service".to_owned(), wrong)]).contains("/usr/lib/apt-ostreed"));
}

#[test]
fn no_service_is_more_exposed_than_it_must_be() {
    let known: Vec<&str> = EXPOSURE.iter().map(|(name, _)| *name).collect();
    assert_eq!(names("service"), known);
    for (name, limit) in EXPOSURE {
        let limit = (limit.parse::<f64>().unwrap() * 10.0).round();
        let output = Cmd::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={limit}"))
            .arg(folder().join(name))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}:\n{said}");
    }
}

#[test]
fn what_the_units_start_is_what_the_program_knows() {
    let mut verbs = 0;
    for unit in names("service") {
        for line in values(&unit, "ExecStart") {
            let words: Vec<&str> = line.split(' ').collect();
            if words[0] != "/usr/bin/apt-ostree" {
                assert_eq!(words, ["/usr/libexec/apt-ostreed"], "{unit}");
                continue;
            }
            verbs += 1;
            let known = Cmd::new(env!("CARGO_BIN_EXE_apt-ostree"))
                .args(&words[1..])
                .arg("--help");
            known.run().unwrap_or_else(|error| panic!("{unit}: {error:#}"));
        }
    }
    assert_eq!(verbs, 3);
    for timer in names("timer") {
        assert!(
            folder().join(timer.replace(".timer", ".service")).exists(),
            "{timer}"
        );
    }
}

#[test]
fn the_preset_tells_of_every_unit_that_can_be_enabled_and_of_no_other() {
    let mut told: Vec<String> = text("90-apt-ostree.preset")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap().1.to_owned())
        .collect();
    told.sort();
    let mut can: Vec<String> = [names("service"), names("timer")]
        .concat()
        .into_iter()
        .filter(|name| text(name).contains("[Install]"))
        .collect();
    can.sort();
    assert_eq!(told, can);
}

#[test]
fn the_service_has_the_rights_that_layering_takes() {
    let host = DebianMachine::new(&[Package::new("one", "1")
        .file("usr/bin/one", 0o4755, "#!/bin/sh\n")
        .script(
            "postinst",
            "#!/bin/sh\nset -e\nadduser --system --group one-test || useradd -r one-test\n",
        )]);
    let capabilities: Vec<String> = values("apt-ostreed.service", "CapabilityBoundingSet")
        .join(" ")
        .split(' ')
        .map(|name| name.to_lowercase().replace("cap_", "+"))
        .collect();
    assert!(capabilities.len() > 10, "{capabilities:?}");
    let output = Cmd::new("setpriv")
        .args(["--no-new-privs", "--inh-caps=-all"])
        .arg(format!("--bounding-set=-all,{}", capabilities.join(",")))
        .args([env!("CARGO_BIN_EXE_apt-ostree"), "--sysroot"])
        .arg(host.sysroot.path())
        .args(["install", "one"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(host.list("packages"), ["one"]);
    host.assert_sound();
}

/// systemd answers openat2 with "not implemented" under this setting, and the settings are read by it: a service that
/// starts our programs under it fails at its first file.
#[test]
fn no_unit_takes_openat2_away() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd");
    let mut services = 0;
    for entry in std::fs::read_dir(folder).expect("the units") {
        let path = entry.expect("a unit").path();
        let text = std::fs::read_to_string(&path).expect("a unit");
        services += usize::from(text.contains("[Service]"));
        let takes = text.lines().any(|line| line.starts_with("RestrictSUIDSGID=y"));
        assert!(!takes, "{}", path.display());
    }
    assert!(services >= 4, "only {services} services were found");
}
