//! `fsck` on the host that runs: what it leaves alone, and what was staged.
//!
//! A deployment of the real image as the root of a sandbox is what libostree takes for a booted one.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::debian_machine::DebianMachine;
use apt_ostree::host::runner::Cmd;
use serde_json::Value;
use std::path::PathBuf;

/// A host that was booted into its first deployment, and has another one.
struct Booted {
    host: DebianMachine,
    root: PathBuf,
    run: tempfile::TempDir,
}

impl Booted {
    fn new() -> Self {
        let host = DebianMachine::new(&[]);
        host.ok(&["kargs", "--append=x=1"]);
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join("ostree-booted"), "").unwrap();
        std::fs::write(run.path().join("program"), "").unwrap();
        std::fs::create_dir(run.path().join("ostree")).unwrap();
        let root = host.root(0);
        Self { host, root, run }
    }

    /// Runs `fsck --json` on the running system and returns its status and what it found.
    fn fsck(&self, arguments: &[&str]) -> (i32, Vec<(String, bool)>) {
        let sysroot = self.host.sysroot.path();
        let output = Cmd::new("bwrap")
            .arg("--bind")
            .arg(&self.root)
            .arg("/")
            .arg("--bind")
            .arg(sysroot)
            .args(["/sysroot", "--bind"])
            .arg(sysroot.join("boot"))
            .args(["/boot", "--dev", "/dev", "--proc", "/proc", "--bind"])
            .arg(self.run.path())
            .args([
                "/run",
                "--ro-bind",
                env!("CARGO_BIN_EXE_apt-ostree"),
                "/run/program",
            ])
            .args(["--die-with-parent", "--cap-add", "ALL"])
            .args(["/run/program", "fsck", "--json"])
            .args(arguments)
            .output()
            .unwrap();
        let value: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let findings = value["findings"].as_array().unwrap();
        let found = findings.iter().map(|finding| {
            let code = finding["code"].as_str().unwrap().to_owned();
            (code, finding["mended"] == true)
        });
        (output.status.code().unwrap(), found.collect())
    }
}

fn found(codes: &[(&str, bool)]) -> Vec<(String, bool)> {
    codes
        .iter()
        .map(|(code, mended)| ((*code).to_owned(), *mended))
        .collect()
}

#[test]
fn the_running_system_is_left_alone_and_what_was_staged_is_readable() {
    let booted = Booted::new();
    assert_eq!(booted.fsck(&[]), (0, vec![]));

    // The same damage in both deployments: the one that does not run is mended.
    let roots = [booted.root.clone(), booted.host.root(1)];
    for root in &roots {
        std::fs::remove_file(root.join("usr/bin/false")).unwrap();
    }
    let (status, findings) = booted.fsck(&["--repair"]);
    assert_eq!(status, 1);
    let files: Vec<bool> = findings
        .iter()
        .filter(|(code, _)| code == "deployment-file-missing")
        .map(|(_, mended)| *mended)
        .collect();
    assert!(files.contains(&true) && files.contains(&false), "{findings:?}");
    assert!(!roots[0].join("usr/bin/false").exists() && roots[1].join("usr/bin/false").exists());
    // Once another one runs, this one is mended.
    let checkup = crate::support::checkup::Checkup::of(&booted.host, &["--repair"]);
    assert_eq!(checkup.status, 0, "{:#}", checkup.value);
    assert!(roots[0].join("usr/bin/false").exists());

    let staged = booted.run.path().join("ostree/staged-deployment");
    std::fs::write(&staged, "garbage").unwrap();
    assert_eq!(booted.fsck(&[]), (1, found(&[("staged-unreadable", false)])));
    assert_eq!(
        booted.fsck(&["--repair"]),
        (0, found(&[("staged-unreadable", true)]))
    );
    assert!(!staged.exists());
    assert_eq!(booted.fsck(&[]), (0, vec![]));
}
