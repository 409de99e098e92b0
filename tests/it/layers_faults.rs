//! Layering that is cut off: killed at each checkpoint, interrupted, out of space, beside another writer. Each leaves
//! what boots as it was, `ostree fsck` clean, and the next run removes the scratch and succeeds.

use crate::support::debian_machine::DebianMachine;
use crate::support::mounted::Mounted;
use crate::support::package::Package;
use crate::support::paused;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
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
            output.status.signal(),
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
fn signals_during_a_script_and_a_time_limit_leave_nothing() {
    // Only this run of the test sleeps for so long.
    let seconds = 1_000_000 + std::process::id();
    let (script, sleep) = (
        format!("#!/bin/sh\ntouch /usr/share/begun\nsleep {seconds}\n"),
        format!("sleep\0{seconds}\0"),
    );
    let hangs = Package::new("hangs", "1").script("postinst", &script);
    let host = DebianMachine::new(&[package(), hangs]);
    let before = boots(&host);
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let mut child = spawn(&host, &["install", "hangs"], "none");
        wait_until("the script has begun", || runs(&sleep));
        paused::send(signal, &child);
        assert_eq!(
            child.wait().expect("the program").code(),
            Some(status),
            "{signal}"
        );
        assert!(!runs(&sleep), "the script has ended");
        assert_eq!(boots(&host), before);
        assert!(host.leftovers().is_empty(), "{signal} cleans up");
    }
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
fn signals_before_and_after_the_scripts_leave_only_scratch() {
    let mut host = DebianMachine::new(&[package()]);
    let before = boots(&host);
    let address = host.archive.web().address();
    // While apt waits for a package that does not come: apt ends with it.
    host.archive.web().gather(2);
    let mut child = spawn(&host, &["install", "one"], "none");
    let web = host.archive.web();
    wait_until("the package is asked for", || {
        web.take_requests().iter().any(|path| path.ends_with(".deb"))
    });
    assert!(runs(&address), "apt runs");
    paused::send("INT", &child);
    let status = child.wait().expect("the program");
    assert!(paused::ended_by(status, 2), "{status}");
    wait_until("apt has ended", || !runs(&address));
    web.gather(0);
    assert_eq!(boots(&host), before);
    for (signal, number) in [("INT", 2), ("TERM", 15)] {
        for checkpoint in [
            "layer-staged",
            "layer-solved",
            "layer-fetched",
            "layer-translated",
        ] {
            let mut child = spawn(&host, &["install", "one"], &format!("{checkpoint}:pause"));
            paused::wait_until_parked(&mut child);
            paused::send(signal, &child);
            let status = child.wait().expect("the program");
            assert!(
                paused::ended_by(status, number),
                "{signal} at {checkpoint}: {status}"
            );
            assert_eq!(boots(&host), before);
            assert_eq!(host.leftovers().len(), 1, "what the earlier run left is gone");
        }
    }
    host.ok(&["install", "one"]);
    assert!(host.leftovers().is_empty());
    assert_eq!(host.list("packages"), ["one"]);
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
fn a_disk_that_is_really_full_changes_nothing() {
    let big = Package::new("big", "1").file("usr/share/big", 0o644, noise(24 << 20));
    let host = DebianMachine::new(&[package(), big]);
    let disk = Mounted::disk_with(host.sysroot.path(), 2 << 30);
    let before = boots(&host);
    // Too little for the package file, for what is in it, and for both and the commit.
    for left in [8 << 20, 40 << 20, 60 << 20] {
        disk.leave(left);
        let errors = host.fails(1, &["install", "big"]);
        assert!(errors.contains("space"), "{left}: {errors}");
        assert_eq!(boots(&host), before, "{left}");
        assert!(host.leftovers().is_empty(), "{left}: what failed cleans up");
    }
    disk.empty();
    host.assert_sound();
    host.ok(&["install", "big"]);
    assert!(host.has(0, "usr/share/big"));
    host.assert_sound();
}

/// Returns bytes that no program can pack.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

#[test]
fn a_second_writer_waits_or_is_told_who_writes() {
    let host = DebianMachine::new(&[package()]);
    let mut child = spawn(&host, &["install", "one"], "layer-solved:pause");
    paused::wait_until_parked(&mut child);
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
    paused::spawn(&host.home, host.sysroot.path(), arguments, checkpoint)
}

/// Returns whether some process has this in its command line, whose words end with a zero byte.
fn runs(words: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("/proc");
    processes.filter_map(Result::ok).any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(words)
    })
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it never came so far that {what}");
}
