//! The settings of a host: fragments in two folders, masks, mistakes, and the documents that tell of them.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::{machine::Machine, write};
use apt_ostree::config::{Config, Effective, Policy};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

const SHIPPED: &str = "usr/lib/apt-ostree/config.d";
const LOCAL: &str = "etc/apt-ostree/config.d";

/// Returns a root with these fragments.
fn root(fragments: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (folder, name, text) in fragments {
        write(root.path().join(folder).join(name), text);
    }
    root
}

fn mistakes(root: &Path) -> String {
    Config::load(root).unwrap_err().message
}

#[test]
fn without_fragments_all_settings_are_the_defaults() {
    assert_eq!(Config::load(root(&[]).path()).unwrap(), Config::default());
    assert_eq!(Config::default().automatic_updates.policy, Policy::None);
    assert!(!Config::default().countme.enabled && !Config::default().layering.locked);
}

#[test]
fn fragments_apply_in_the_order_of_their_names_and_key_by_key() {
    let policy = |name: &str| format!("[automatic-updates]\npolicy = \"{name}\"\n");
    let root = root(&[
        (LOCAL, "20-site.toml", &policy("stage")),
        (SHIPPED, "30-product.toml", &policy("check")),
        (
            SHIPPED,
            "10-first.toml",
            "[automatic-updates]\nrandom-delay = \"5min\"\npolicy = \"apply\"\n",
        ),
        (LOCAL, "40-note.txt", "no fragment"),
        (LOCAL, ".hidden.toml", "no fragment"),
    ]);
    let effective = Effective::load(root.path()).unwrap();
    assert_eq!(effective.config.automatic_updates.policy, Policy::Check);
    assert_eq!(
        effective.config.automatic_updates.random_delay,
        Duration::from_secs(300)
    );
    assert_eq!(
        effective.sources["automatic-updates.policy"],
        Path::new("/usr/lib/apt-ostree/config.d/30-product.toml")
    );
    assert_eq!(
        effective.sources["automatic-updates.random-delay"],
        Path::new("/usr/lib/apt-ostree/config.d/10-first.toml")
    );
    assert_eq!(effective.sources.len(), 2);
}

#[test]
fn a_file_in_etc_masks_the_one_of_the_same_name() {
    let shipped = "[layering]\nlocked = true\n[automatic-updates]\npolicy = \"apply\"\n";
    let locked = |root: &Path| {
        let config = Config::load(root).unwrap();
        (config.layering.locked, config.automatic_updates.policy)
    };
    let replaced = root(&[
        (SHIPPED, "10.toml", shipped),
        (LOCAL, "10.toml", "[layering]\nlocked = true\n"),
    ]);
    assert_eq!(locked(replaced.path()), (true, Policy::None));
    let emptied = root(&[(SHIPPED, "10.toml", shipped), (LOCAL, "10.toml", "")]);
    assert_eq!(locked(emptied.path()), (false, Policy::None));
    let masked = root(&[(SHIPPED, "10.toml", shipped), (LOCAL, "20.toml", "")]);
    symlink("/dev/null", masked.path().join(LOCAL).join("10.toml")).unwrap();
    assert_eq!(locked(masked.path()), (false, Policy::None));
    // What is masked is not looked at.
    let broken = root(&[(SHIPPED, "10.toml", "broken"), (LOCAL, "10.toml", "")]);
    assert_eq!(locked(broken.path()), (false, Policy::None));
}

#[test]
fn links_stay_below_the_root() {
    let root = root(&[
        ("srv", "site.toml", "[layering]\nlocked = true\n"),
        (LOCAL, "10.toml", ""),
    ]);
    symlink("/srv/site.toml", root.path().join(LOCAL).join("20.toml")).unwrap();
    assert!(Config::load(root.path()).unwrap().layering.locked);
    symlink("/gone.toml", root.path().join(LOCAL).join("30.toml")).unwrap();
    let text = mistakes(root.path());
    assert!(
        text.contains("/etc/apt-ostree/config.d/30.toml: cannot be read"),
        "{text}"
    );
}

#[test]
fn all_mistakes_are_told_at_once_and_nothing_applies() {
    let root = root(&[
        (SHIPPED, "10.toml", "[daemon]\nidle-exit = 60\nidel = 1\n"),
        (
            LOCAL,
            "20.toml",
            "[automatic-updates]\npolicy = \"stage\"\nmetered = \"no\"\n",
        ),
        (LOCAL, "30.toml", "[layering\n"),
    ]);
    std::fs::create_dir(root.path().join(LOCAL).join("40.toml")).unwrap();
    write(root.path().join(LOCAL).join("50.toml"), b"# \xff\n");
    let text = mistakes(root.path());
    for expected in [
        "has 6 mistakes",
        "/usr/lib/apt-ostree/config.d/10.toml:2:13: daemon.idle-exit: text in quotes",
        "/usr/lib/apt-ostree/config.d/10.toml:3:1: there is no key `idel`",
        "/etc/apt-ostree/config.d/20.toml:3:11: automatic-updates.metered: `no` is none of: skip, allow",
        "/etc/apt-ostree/config.d/30.toml:1:10: ",
        "/etc/apt-ostree/config.d/40.toml: cannot be read: it is no regular file",
        "/etc/apt-ostree/config.d/50.toml:1:3: this is not UTF-8",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn the_sample_says_the_defaults_in_comments() {
    let text = include_str!("../../dist/config/10-defaults.toml");
    let shipped = root(&[(SHIPPED, "10-defaults.toml", text)]);
    let effective = Effective::load(shipped.path()).unwrap();
    assert_eq!(effective.config, Config::default());
    assert!(effective.sources.is_empty(), "the sample sets nothing by itself");
    // A setting is a comment without a space; what explains it has one.
    let active: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let uncommented = root(&[(SHIPPED, "10-defaults.toml", &active)]);
    let effective = Effective::load(uncommented.path()).unwrap();
    assert_eq!(effective.config, Config::default());
    let set: Vec<&str> = effective.sources.keys().copied().collect();
    let mut known: Vec<&str> = effective.settings().iter().map(|setting| setting.key).collect();
    known.sort_unstable();
    assert_eq!(set, known);
}

#[test]
fn the_document_tells_of_every_key_and_of_no_other() {
    let text = include_str!("../../docs/configuration.md");
    let mut told = BTreeSet::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## [").and_then(|line| line.strip_suffix(']')) {
            table = name;
        } else if line.starts_with("## ") {
            table = "";
        } else if let Some(key) = line.strip_prefix("| `").and_then(|line| line.split('`').next()) {
            if !table.is_empty() {
                told.insert(format!("{table}.{key}"));
            }
        }
    }
    let known: BTreeSet<String> = Effective::default()
        .settings()
        .iter()
        .map(|setting| setting.key.to_owned())
        .collect();
    assert_eq!(told, known);
}

/// Writes a fragment into the `/etc` of the deployment that boots next.
fn set(machine: &Machine, text: &str) {
    write(machine.root(0).join(LOCAL).join("50-test.toml"), text);
}

#[test]
fn the_verb_shows_what_is_in_force_and_where_it_comes_from() {
    let machine = Machine::deployed();
    set(&machine, "[daemon]\nidle-exit = \"5min\"\n");
    let out = machine.ok(&["config"]);
    assert!(
        out.starts_with(
            "[daemon]\nidle-exit = \"5min\"  # /etc/apt-ostree/config.d/50-test.toml\n\n[automatic-updates]\n"
        ),
        "{out}"
    );
    assert!(out.contains("\npolicy = \"none\"  # default\n"), "{out}");
    // What is printed is a fragment.
    assert!(
        Config::load(root(&[(LOCAL, "1.toml", &out)]).path()).is_ok(),
        "{out}"
    );
    let json: serde_json::Value = serde_json::from_str(&machine.ok(&["config", "--json"])).unwrap();
    assert_eq!(json["daemon"]["idle-exit"]["value"], "5min");
    assert_eq!(
        json["daemon"]["idle-exit"]["file"],
        "/etc/apt-ostree/config.d/50-test.toml"
    );
    assert_eq!(
        json["automatic-updates"]["maintenance-window"]["value"],
        serde_json::json!([])
    );
    assert!(json["countme"]["enabled"]["file"].is_null());

    set(&machine, "[daemon]\nidle-exit = 5\nx = 1\n");
    let errors = machine.fails(1, &["config"]);
    assert!(
        errors.contains("/etc/apt-ostree/config.d/50-test.toml:2:13: ")
            && errors.contains("50-test.toml:3:1: "),
        "{errors}"
    );
    // Broken settings keep nobody from seeing the deployments.
    let status = machine.status();
    assert!(
        status["problems"][0]
            .as_str()
            .unwrap()
            .contains("50-test.toml:2:13"),
        "{status}"
    );
    assert_eq!(status["deployments"][0]["version"], "1");
}

#[test]
fn locked_layering_refuses_changes_and_lets_updates_and_reset_pass() {
    let machine = Machine::deployed();
    set(&machine, "[layering]\nlocked = true\n");
    let before = machine.state();
    for verb in [
        &["install", "htop"][..],
        &["uninstall", "htop"],
        &["override", "remove", "htop"],
        &["initramfs", "--enable"],
        &["upgrade", "--install", "htop"],
        &["reset", "--install", "htop"],
    ] {
        let errors = machine.fails(1, verb);
        assert!(
            errors.contains("`layering.locked` is set") && errors.contains("hint: see where it is set"),
            "{verb:?}: {errors}"
        );
        assert_eq!(machine.state(), before, "{verb:?}");
    }
    machine.ok(&["reset"]);
    machine.publish("2", []);
    machine.ok(&["upgrade"]);
    assert_eq!(machine.versions(), ["2", "1"]);
}
