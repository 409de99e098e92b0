//! Layering that is cut off: killed at each checkpoint, interrupted, out of space, beside another writer. Each leaves
//! what boots as it was, `ostree fsck` clean, and the next run removes the scratch and succeeds.

use crate::support::debian_machine::DebianMachine;
use crate::support::package::Package;
use apt_ostree::host::runner::Cmd;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Every point at which layering can be cut before the deployment is published.
const CHECKPOINTS: [&str; 6] = [
    "layer-staged",
    "layer-solved",
    "layer-fetched",
    "layer-run",
    "layer-translated",
    "layer-committed",
];

fn package() -> Package {
    Package::new("one", "1")
        .file("usr/share/one", 0o644, "one\n")
        .dir("var/lib/one", 0o750)
        .script(
            "postinst",
            "#!/bin/sh\nset -e\nadduser --system --group --no-create-home one\nchown one:one /var/lib/one\n",
        )
}

/// Returns what boots and what it runs from.
fn boots(host: &DebianMachine) -> (serde_json::Value, Vec<(String, String)>) {
    let entries = host.state().into_iter();
    let entries = entries.filter(|(name, _)| name.contains("loader/entries"));
    (host.status()["deployments"].clone(), entries.collect())
}

#[test]
fn killed_at_each_checkpoint_and_run_again() {
    let host = DebianMachine::new(&[package()]);
    let before = boots(&host);
    for checkpoint in CHECKPOINTS {
        let output = host
            .command(&["install", "one"])
            .env("APT_OSTREE_CHECKPOINT", checkpoint)
            .output()
            .expect("the program starts");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&output.status),
            Some(9),
            "{checkpoint} was not reached: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(boots(&host), before, "{checkpoint}");
        assert_eq!(
            host.leftovers().len(),
            1,
            "{checkpoint}: what the earlier run left is gone"
        );
        let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
        let repo = host.sysroot.repo().display().to_string();
        assert!(!mounts.contains(&repo), "{checkpoint} left a mount");
    }
    host.assert_sound();
    host.ok(&["install", "one"]);
    assert_eq!(host.list("packages"), ["one"]);
    assert!(host.leftovers().is_empty());
    host.assert_sound();
}

#[test]
fn an_interrupted_script_leaves_nothing() {
    let hangs =
        Package::new("hangs", "1").script("postinst", "#!/bin/sh\ntouch /usr/share/begun\nsleep 1000\n");
    let host = DebianMachine::new(&[package(), hangs]);
    let before = boots(&host);
    let mut child = spawn(&host, &["install", "hangs"], "none");
    wait_for_sleep();
    Cmd::new("kill")
        .args(["-INT".to_owned(), child.id().to_string()])
        .run()
        .expect("kill");
    let status = child.wait().expect("the program");
    assert!(!status.success());
    assert_eq!(boots(&host), before);
    host.assert_sound();
    let errors = host.fails(1, &["install", "--script-timeout=1s", "hangs"]);
    assert!(
        errors.contains("hangs") && errors.contains("postinst"),
        "{errors}"
    );
    assert_eq!(boots(&host), before);
    host.ok(&["install", "one"]);
    assert!(host.leftovers().is_empty());
    host.assert_sound();
}

#[test]
fn a_full_disk_changes_nothing() {
    let host = DebianMachine::new(&[package()]);
    let before = boots(&host);
    for checkpoint in ["layer-run", "layer-translated"] {
        let output = host
            .command(&["install", "one"])
            .env("APT_OSTREE_CHECKPOINT", format!("{checkpoint}:enospc"))
            .output()
            .expect("the program starts");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("No space left"), "{errors}");
        assert_eq!(boots(&host), before);
        assert!(host.leftovers().is_empty(), "what failed cleans up");
    }
    host.assert_sound();
    host.ok(&["install", "one"]);
    host.assert_sound();
}

#[test]
fn a_second_writer_waits_or_is_told_who_writes() {
    let host = DebianMachine::new(&[package()]);
    let mut child = spawn(&host, &["install", "one"], "layer-solved:pause");
    wait_until_parked(&mut child);
    let errors = host.fails(1, &["--no-wait", "install", "one"]);
    assert!(
        errors.contains(&format!("process {}", child.id())) && errors.contains("install"),
        "{errors}"
    );
    assert!(host.ok(&["status"]).contains("State: busy"));
    let mut second = spawn(&host, &["install", "one"], "none");
    child.kill().expect("kill");
    child.wait().expect("the first writer");
    assert!(second.wait().expect("the second writer").success());
    assert_eq!(host.list("packages"), ["one"]);
    host.assert_sound();
}

fn spawn(host: &DebianMachine, arguments: &[&str], checkpoint: &str) -> Child {
    let surroundings = host.home.surroundings();
    let mut command = surroundings.server_command(env!("CARGO_BIN_EXE_apt-ostree"));
    command.arg("--sysroot").arg(host.sysroot.path()).args(arguments);
    command.env("APT_OSTREE_CHECKPOINT", checkpoint);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program starts")
}

/// Waits until some process is the `sleep 1000` of the package's script.
fn wait_for_sleep() {
    for _ in 0..600 {
        let processes = std::fs::read_dir("/proc").expect("/proc");
        let sleeps = processes.filter_map(Result::ok).any(|process| {
            std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x001000\0")
        });
        if sleeps {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the script never began");
}

/// Waits until a thread of the process says that it stands at its checkpoint.
fn wait_until_parked(child: &mut Child) {
    for _ in 0..600 {
        assert!(
            child.try_wait().expect("a child").is_none(),
            "the process ended before its checkpoint"
        );
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("tasks");
        let parked = tasks.filter_map(Result::ok).any(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "checkpoint\n")
        });
        if parked {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the process never reached its checkpoint");
}
