//! `diff` and `history`: two trees compared, and how an image was made.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::layer::Layer;
use crate::support::machine::Machine;
use crate::support::repo;
use serde_json::{Value, json};

/// Returns a layer with a package of this version, and a kernel argument.
fn layer(version: &str) -> Layer {
    Layer::new()
        .file(
            "usr/lib/sysimage/dpkg/status",
            0o644,
            format!("Package: app\nStatus: install ok installed\nArchitecture: all\nVersion: {version}\n"),
        )
        .file(
            "usr/lib/bootc/kargs.d/10.toml",
            0o644,
            format!("kargs = [\"image={version}\"]\n"),
        )
        .file("usr/share/same", 0o644, "same")
        .file("etc/default", 0o644, version)
}

/// Makes a host with two deployments.
fn upgraded() -> Machine {
    let machine = Machine::new();
    machine.publish(
        "1",
        [layer("1")
            .file("usr/share/gone/a/b", 0o644, "1")
            .file("usr/share/becomes-file/x", 0o644, "1")],
    );
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    machine.publish(
        "2",
        [layer("2")
            .dir("usr/share/same-folder", 0o700)
            .file("usr/share/new/c", 0o644, "2")
            .file("etc/more", 0o644, "2")
            .file("usr/share/becomes-file", 0o644, "2")],
    );
    machine.ok(&["upgrade"]);
    machine
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn everything_that_differs_is_told_and_nothing_else() {
    let machine = upgraded();
    let value = json(&machine.ok(&["diff", "--json"]));
    assert_eq!(value["from"]["name"], "deployment 1");
    let expected = json!({
        "added": [
            "/usr/etc/more", "/usr/share/becomes-file", "/usr/share/new/", "/usr/share/new/c",
            "/usr/share/same-folder/",
        ],
        "removed": [
            "/usr/share/becomes-file/", "/usr/share/becomes-file/x", "/usr/share/gone/",
            "/usr/share/gone/a/", "/usr/share/gone/a/b",
        ],
        "changed": [
            "/usr/etc/default", "/usr/etc/motd", "/usr/lib/bootc/kargs.d/10.toml",
            "/usr/lib/os-release", "/usr/lib/sysimage/dpkg/status",
        ],
    });
    assert_eq!(value["files"], expected);
    assert_eq!(value["etc"], json!({ "added": 1, "removed": 0, "changed": 2 }));
    let words = json!({ "added": ["image=2"], "removed": ["image=1"] });
    assert_eq!(value["kernel-arguments"], words);
    assert_eq!(value["packages"]["upgraded"][0]["after"]["version"], "2");
    // The other way round it is the other way round.
    let value = json(&machine.ok(&["diff", "--json", "0", "1"]));
    assert_eq!(value["files"]["added"], expected["removed"]);
    assert_eq!(value["files"]["removed"], expected["added"]);
    // ostree's own comparison names the same files; what becomes another sort of thing is changed to it.
    let commit = |index: usize| {
        machine.status()["deployments"][index]["checksum"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let theirs = repo::ostree(&machine.sysroot.repo(), &["diff", &commit(1), &commit(0)]);
    let ours = machine.ok(&["diff", "--files"]);
    for line in theirs
        .lines()
        .filter(|line| line.starts_with('M') && !line.ends_with("becomes-file"))
    {
        assert!(ours.lines().any(|known| known == line), "{line}\n{ours}");
    }
}

#[test]
fn as_text_and_in_parts() {
    let machine = upgraded();
    let text = machine.ok(&["diff"]);
    for part in [
        "from: deployment 1 (",
        "to:   deployment 0 (",
        "Upgraded:\n  app 1 -> 2\n",
        "Kernel arguments added: image=2\n",
        "Files: 5 added, 5 removed, 5 changed\n",
        "  of them defaults below /etc: 1 added, 0 removed, 2 changed\n",
        "M    /usr/etc/default\n",
        "A    /usr/share/new/\n",
        "D    /usr/share/gone/a/b\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let packages = machine.ok(&["diff", "--packages"]);
    assert!(
        packages.contains("app 1 -> 2") && !packages.contains("Files:"),
        "{packages}"
    );
    let files = machine.ok(&["diff", "--files"]);
    assert!(!files.contains("app") && files.contains("Files:"), "{files}");
    let same = machine.ok(&["diff", "0", "0"]);
    assert!(
        same.contains("Packages: the same") && same.contains("Files: 0 added, 0 removed, 0 changed"),
        "{same}"
    );
    machine.fails(2, &["diff", "--packages", "--files"]);
}

#[test]
fn revisions_by_any_of_their_names() {
    let machine = upgraded();
    let status = machine.status();
    let deployment = &status["deployments"][1];
    let (commit, digest) = (
        deployment["checksum"].as_str().unwrap(),
        deployment["container-image-reference-digest"].as_str().unwrap(),
    );
    for name in ["1", "rollback", "version=1", commit, digest] {
        let value = json(&machine.ok(&["diff", "--json", "pending", name]));
        assert_eq!(value["to"]["commit"], commit, "{name}");
        assert_eq!(value["from"]["commit"], status["deployments"][0]["checksum"]);
    }
    let errors = machine.fails(1, &["diff", "0", "booted"]);
    assert!(errors.contains("`booted` names no deployment"), "{errors}");
    // A repository of its own has no deployments, and its images have versions.
    let repo = machine.sysroot.repo();
    let repo = repo.to_str().unwrap();
    let name = format!("--repo={repo}");
    let value = json(&machine.ok(&["diff", &name, "--json", commit, "version=2"]));
    assert_eq!(value["kernel-arguments"]["added"], json!(["image=2"]));
    machine.fails(2, &["diff", &name]);
    // Kernel arguments of deployments are those they boot with.
    machine.ok(&["kargs", "--append=mine=1"]);
    let value = json(&machine.ok(&["diff", "--json"]));
    assert_eq!(value["kernel-arguments"]["added"], json!(["mine=1"]));
    assert_eq!(value["files"]["changed"], json!([]));
}

#[test]
fn the_history_of_an_image() {
    let machine = upgraded();
    let value = json(&machine.ok(&["history", "--json"]));
    assert_eq!(value["version"], "2");
    assert_eq!(value["created"], "2026-01-02T00:00:00Z");
    assert_eq!(value["layers"], 2);
    let steps = value["history"].as_array().unwrap();
    assert_eq!(steps.len(), 2);
    let sizes: u64 = steps
        .iter()
        .map(|step| step["layer"]["size"].as_u64().unwrap())
        .sum();
    assert_eq!(value["size"], sizes);
    for name in ["1", "rollback", "version=1"] {
        let value = json(&machine.ok(&["history", "--json", name]));
        assert_eq!(value["version"], "1", "{name}");
    }
    let text = machine.ok(&["history"]);
    assert!(
        text.contains("Version: 2\n") && text.contains("Layers: 2 ("),
        "{text}"
    );
    assert_eq!(
        machine.ok(&["image", "history", &machine.reference("os:stable")]),
        text
    );
    let layer = repo::refs(&machine.sysroot.repo())
        .into_iter()
        .find(|(name, _)| name.contains("container/blob"))
        .unwrap();
    let errors = machine.fails(1, &["history", &layer.0]);
    assert!(errors.contains("was not made from an image"), "{errors}");
    machine.fails(1, &["history", "nowhere"]);
}
