//! What the verbs tell without changing anything: `status`, guidance, progress; and `image` in a repository of its own.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::layer::Layer;
use crate::support::machine::{Machine, changed_file};
use crate::support::repo;

#[test]
fn status_tells_in_text_json_and_jsonpath() {
    let machine = Machine::deployed();
    let out = machine.ok(&["status"]);
    assert!(out.starts_with("State: idle\nDeployments:\n"), "{out}");
    assert!(
        out.contains("Digest: sha256:") && out.contains("Version: 1 (2026-01-01T00:00:00Z)"),
        "{out}"
    );
    assert!(!out.contains("Commit:"), "{out}");
    assert!(machine.ok(&["status", "--verbose"]).contains("Commit: "));
    let value: serde_json::Value =
        serde_json::from_str(&machine.ok(&["status", "--jsonpath", "$.deployments[0].version"])).unwrap();
    assert_eq!(value, serde_json::json!(["1"]));
    machine.fails(2, &["status", "--jsonpath", "$.["]);
    machine.fails(2, &["status", "--json", "--jsonpath", "$"]);
    assert_eq!(
        machine.run(&["status", "--pending-exit-77"]).status.code(),
        Some(77),
        "nothing is booted from it"
    );
    assert!(machine.ok(&["status", "--booted"]).contains("(none)"));
}

#[test]
fn only_the_running_system_takes_an_overlay() {
    let machine = Machine::deployed();
    let errors = machine.fails(2, &["usroverlay"]);
    assert!(
        errors.contains("this machine did not boot from") && errors.contains("hint:"),
        "{errors}"
    );
    machine.fails(2, &["usroverlay", "--hotfix", "--transient"]);
    let output = crate::support::apt_ostree(&machine.home)
        .arg("usroverlay")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("needs a host booted from OSTree"), "{errors}");
}

#[test]
fn status_shows_the_rest_when_something_is_broken() {
    let machine = Machine::deployed();
    machine.publish("2", []);
    machine.ok(&["upgrade"]);
    let layer = repo::refs(&machine.sysroot.repo())
        .into_keys()
        .find(|name| name.contains("/blob/"))
        .unwrap();
    repo::ostree(&machine.sysroot.repo(), &["refs", "--delete", &layer]);
    let out = machine.ok(&["status"]);
    assert!(
        out.contains("Problem: ") && out.contains("is missing in the repository"),
        "{out}"
    );
    assert_eq!(out.matches("Version: ").count(), 2, "{out}");

    let origin = machine.root(1).with_extension("0.origin");
    std::fs::write(&origin, "garbage").unwrap();
    let out = machine.ok(&["status"]);
    assert_eq!(
        out.matches("Problem: ").count(),
        2,
        "the sysroot and the origin: {out}"
    );
    assert!(
        out.contains(&format!("{}", origin.file_name().unwrap().to_string_lossy())),
        "{out}"
    );
    std::fs::remove_file(&origin).unwrap();
    let out = machine.ok(&["status"]);
    assert!(out.contains("has no readable origin file"), "{out}");
    // A host without a readable origin is rescued by following something, and loses no enforcement by a bare name.
    let bare = format!("{}/os:2", machine.registry.location());
    machine.ok(&["rollback"]);
    let errors = machine.fails(2, &["rebase", &bare]);
    assert!(
        errors.contains("not known whether this host enforced signatures"),
        "{errors}"
    );
    machine.ok(&["rebase", &machine.reference("os:2")]);
}

#[test]
fn status_needs_neither_root_nor_the_lock() {
    let machine = Machine::deployed();
    let directory = machine.sysroot.path();
    run_as_nobody(directory, &["status"]);
    let lock = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(directory.join("ostree/lock"));
    rustix::fs::flock(lock.as_ref().unwrap(), rustix::fs::FlockOperation::LockExclusive).unwrap();
    machine.ok(&["status"]);
}

fn run_as_nobody(sysroot: &std::path::Path, arguments: &[&str]) {
    // The binary lies below root's directories, so nobody gets a copy.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    open(folder.path());
    open(sysroot);
    let copy = folder.path().join("apt-ostree");
    std::fs::copy(env!("CARGO_BIN_EXE_apt-ostree"), &copy).unwrap();
    let run = |arguments: &[&str]| {
        apt_ostree::host::runner::Cmd::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy)
            .arg("--sysroot")
            .arg(sysroot)
            .args(arguments)
            .output()
            .unwrap()
    };
    let output = run(arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("Version: 1"));
    let output = run(&["upgrade"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors.contains("needs root") && errors.contains("hint: run `sudo apt-ostree upgrade"),
        "{errors}"
    );
}

#[test]
fn verbs_off_an_ostree_host_give_guidance() {
    let home = crate::support::home::Home::new();
    for verb in ["status", "upgrade", "rollback", "kargs"] {
        let output = crate::support::apt_ostree(&home).arg(verb).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(
            errors.contains(&format!("`{verb}` needs a host booted from OSTree")),
            "{errors}"
        );
        assert!(
            errors.matches(": no").count() >= 3 && errors.contains("hint: "),
            "{errors}"
        );
    }
    let output = crate::support::apt_ostree(&home)
        .args(["--sysroot", "/nonexistent", "status"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent is not a sysroot"));
}

#[test]
fn image_verbs_work_in_any_repository() {
    let machine = Machine::new();
    machine.publish("1", [changed_file("usr/share/a", "a")]);
    let repo = repo::TestRepo::new();
    let path = repo.path().to_str().unwrap();
    let name = machine.reference("os:stable");
    let out = machine.ok(&["image", "pull", "--repo", path, &name]);
    assert!(
        out.contains("Imported: sha256:") && out.contains("Layers fetched: 2"),
        "{out}"
    );
    assert!(
        machine
            .ok(&["image", "pull", "--repo", path, &name])
            .contains("Already present")
    );
    assert!(
        machine
            .ok(&["image", "list", "--repo", path])
            .contains("os:stable sha256:")
    );
    let inspected: serde_json::Value =
        serde_json::from_str(&machine.ok(&["image", "inspect", "--repo", path, &name])).unwrap();
    assert_eq!(inspected["manifest"]["layers"].as_array().unwrap().len(), 2);
    assert_eq!(
        machine
            .ok(&["image", "history", "--repo", path, &name])
            .lines()
            .filter(|line| line.starts_with("sha256:"))
            .count(),
        2
    );
    machine.ok(&["image", "prune", "--repo", path]);
    assert_eq!(repo.refs().len(), 4, "two layers, the image and its merged tree");
    machine.ok(&["image", "remove", "--repo", path, &name]);
    assert!(repo.refs().is_empty(), "{:?}", repo.refs());
    machine.fails(1, &["image", "remove", "--repo", path, &name]);
    machine.fails(1, &["image", "list", "--repo", "/nonexistent"]);
    repo.assert_sound();
}

#[test]
fn progress_as_json_is_one_object_a_line() {
    let machine = Machine::new();
    // libostree of Debian 12 prints a note for each folder below /var, which must not get between the lines.
    machine.publish("1", [Layer::new().dir("var/lib", 0o755)]);
    let output = machine.run(&["--progress", "json", "rebase", &machine.reference("os:stable")]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let events: Vec<serde_json::Value> = errors
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(events.iter().any(|event| event["type"] == "step"), "{errors}");
    assert!(
        events
            .iter()
            .any(|event| event["type"] == "bytes" && event["done"] == event["total"]),
        "{errors}"
    );
    let output = machine.run(&["--progress", "json", "rebase", &machine.reference("nothing:here")]);
    let last = String::from_utf8(output.stderr).unwrap();
    let last: serde_json::Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "error");
}

#[test]
fn a_sysroot_that_was_not_booted_never_reboots_this_machine() {
    let machine = Machine::deployed();
    machine.publish("2", []);
    let before = machine.state();
    for arguments in [
        &["upgrade", "--reboot"][..],
        &["kargs", "--append=x", "--reboot"],
        &["rollback", "-r"],
    ] {
        let errors = machine.fails(2, arguments);
        assert!(errors.contains("did not boot from"), "{errors}");
    }
    assert_eq!(machine.state(), before);
}
