//! Layering that is interrupted or killed: what it says, and that it leaves nothing but scratch.
//!
//! Signals go to a process of its own: this test binary, which runs [`layers_until_it_is_stopped`] alone.

use crate::support::debian::{Debian, in_private_mounts};
use crate::support::installation::Installation;
use crate::support::package::Package;
use crate::support::repo;
use apt_ostree::host::environment::variable;
use apt_ostree::layer::run::{RunOptions, run};
use apt_ostree::layer::stage::Stage;
use apt_ostree::report::Silent;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// What the process that is stopped works on: `REPO:COMMIT`.
const WORK: &str = "APT_OSTREE_TEST_LAYER";

#[test]
#[ignore = "the other tests of this file start it in a process of its own"]
fn layers_until_it_is_stopped() {
    let work = variable(WORK)
        .expect("what to work on")
        .into_string()
        .expect("UTF-8");
    let (repository, commit) = work.split_once(':').expect("two parts");
    let installation = Installation::of(&[Package::new("waiter", "1").script(
        "postinst",
        "#!/bin/sh\necho waiting\ntouch /usr/share/waiting\nsleep 1000002\n",
    )]);
    in_private_mounts(|| {
        let stage = Stage::open(&repo::open(Path::new(repository)), commit).expect("a stage");
        let options = RunOptions::default();
        let error = run(
            &stage,
            &installation.plan,
            &installation.fetched,
            &options,
            &Silent,
        );
        println!("{:#}", error.expect_err("an interruption"));
    });
}

/// Starts the process and waits until its script runs.
#[expect(clippy::disallowed_methods, reason = "the process is to be stopped")]
fn start(debian: &Debian) -> Child {
    let work = format!("{}:{}", debian.repo_path().display(), debian.commit);
    let child = std::process::Command::new(std::env::current_exe().expect("this binary"))
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("sandbox_signals::layers_until_it_is_stopped")
        .env(WORK, work)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary");
    let begin = Instant::now();
    let is_waiting = || {
        let upper = |name: String| {
            debian
                .repo_path()
                .join("tmp")
                .join(name)
                .join("upper/usr/share/waiting")
        };
        debian
            .leftovers()
            .into_iter()
            .map(upper)
            .any(|path: PathBuf| path.exists())
    };
    while !is_waiting() {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "the script does not run"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().try_into().expect("an id")).expect("an id");
    kill_process(pid, signal).expect("kill");
}

fn assert_nothing_sleeps() {
    let is_ours = |pid: PathBuf| {
        std::fs::read(pid.join("cmdline")).is_ok_and(|line| line.starts_with(b"sleep\x001000002"))
    };
    // The kernel ends the processes of the sandbox after the one that was killed.
    let begin = Instant::now();
    while std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .any(|entry| is_ours(entry.path()))
    {
        assert!(begin.elapsed() < Duration::from_secs(30), "a script still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn signals_stop_a_script_and_sigkill_leaves_only_scratch() {
    let debian = Debian::new();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = start(&debian);
        send(&child, signal);
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        assert!(
            said.contains("Cancelled by a signal") && said.contains("the postinst of waiter"),
            "{said}"
        );
        assert_nothing_sleeps();
        assert_eq!(debian.leftovers(), Vec::<String>::new());
    }
    let mut child = start(&debian);
    send(&child, Signal::KILL);
    child.wait().unwrap();
    assert_nothing_sleeps();
    assert_eq!(debian.leftovers().len(), 1);
    assert!(!mounts().contains("apt-ostree-layer."));
    in_private_mounts(|| {
        let stage = debian.stage();
        assert_eq!(
            debian.leftovers().len(),
            1,
            "the old one is gone, the new one is there"
        );
        stage.close().unwrap();
    });
    assert_eq!(debian.leftovers(), Vec::<String>::new());
    debian.assert_sound();
}
