//! `apply-live`: what is written to a running root, and what is refused.
//!
//! The root is a scratch one with a real overlay over its `/usr`; the virtual machine tests prove the rest.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::layer::Layer;
use crate::support::machine::{Machine, changed_file};
use crate::support::repo;
use apt_ostree::deployment::live;
use apt_ostree::host::mounts::{self, Overlay};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A root that looks booted from a commit: `usr` is an overlay over a checkout, `etc` a copy of its defaults.
struct Running {
    machine: Machine,
    folder: TempDir,
    commits: Vec<String>,
}

impl Running {
    /// Imports a base and then the layers of each version on top of it, and runs the base.
    fn new(versions: Vec<Layer>) -> Self {
        mounts::enter_private().expect("a mount namespace; these tests need root");
        let machine = Machine::new();
        let base = || {
            Layer::new()
                .dir("usr/share/d", 0o755)
                .file("usr/share/d/same", 0o644, "same")
                .file("usr/share/d/changed", 0o644, "1")
                .file("usr/share/d/gone", 0o644, "1")
                .file("usr/share/tree/a/b", 0o644, "1")
                .file("usr/share/becomes-folder", 0o644, "1")
                .file("usr/share/becomes-file/x", 0o644, "1")
                .symlink("usr/share/link", "d/same")
                .file("etc/unmodified", 0o644, "1")
                .file("etc/edited", 0o644, "1")
                .file("etc/dropped", 0o644, "1")
                .file("etc/dropped-edited", 0o644, "1")
                .file("etc/old.d/one", 0o644, "1")
                .symlink("etc/alternative", "/usr/bin/one")
        };
        let mut commits = Vec::new();
        for (number, layer) in std::iter::once(Layer::new()).chain(versions).enumerate() {
            machine.publish(&format!("{}", number + 1), [base(), layer]);
            machine.ok(&["rebase", &machine.reference(&format!("os:{}", number + 1))]);
            commits.push(
                machine.status()["deployments"][0]["checksum"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            );
            machine.ok(&["pin", "0"]);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let repo = machine.sysroot.repo();
        repo::ostree(
            &repo,
            &[
                "checkout",
                "--subpath=/usr",
                &commits[0],
                path("lower").to_str().unwrap(),
            ],
        );
        for name in ["root/usr", "upper", "work"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        crate::support::run(
            "cp",
            [
                "-a",
                "--no-preserve=links",
                path("lower/etc").to_str().unwrap(),
                path("root/etc").to_str().unwrap(),
            ],
        );
        let open = |name: &str| Dir::open_ambient_dir(path(name), ambient_authority()).unwrap();
        let (lower, upper, work) = (open("lower"), open("upper"), open("work"));
        let folders = Overlay {
            lower: &[lower.as_fd()],
            upper: upper.as_fd(),
            work: work.as_fd(),
        };
        mounts::overlay(folders, open("root/usr").as_fd()).unwrap();
        Self {
            machine,
            folder,
            commits,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    fn apply(&self, from: &[usize], to: usize) -> live::Etc {
        let root = Dir::open_ambient_dir(self.path(""), ambient_authority()).unwrap();
        let from: Vec<&str> = from.iter().map(|index| self.commits[*index].as_str()).collect();
        let etc = live::apply(
            &repo::open(&self.machine.sysroot.repo()),
            &root,
            &from,
            &self.commits[to],
        )
        .unwrap();
        self.assert_usr_is(to);
        etc
    }

    /// Compares names, content, owners, permissions and attributes of all of `/usr` by its checksum.
    fn assert_usr_is(&self, index: usize) {
        let repo = self.machine.sysroot.repo();
        let usr = self.path("usr");
        repo::ostree(
            &repo,
            &[
                "commit",
                "--branch=test/usr",
                &format!("--tree=dir={}", usr.display()),
            ],
        );
        let sums = |commit: &str, path: &str| {
            let line = repo::ostree(&repo, &["ls", "-d", "-C", commit, path]);
            line.split_whitespace()
                .filter(|word| word.len() == 64)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let found = sums("test/usr", "/");
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0],
            sums(&self.commits[index], "/usr")[0],
            "{}",
            usr.display()
        );
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| error.kind().to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        mounts::detach(&self.path("usr")).unwrap();
    }
}

fn second() -> Layer {
    Layer::new()
        .file("usr/share/d/changed", 0o755, "2")
        .whiteout("usr/share/d/gone")
        .whiteout("usr/share/tree")
        .whiteout("usr/share/becomes-folder")
        .file("usr/share/becomes-folder/x/y", 0o600, "2")
        .whiteout("usr/share/becomes-file")
        .file("usr/share/becomes-file", 0o644, "2")
        .symlink("usr/share/link", "d/changed")
        .dir("usr/share/new", 0o1777)
        .file_with_xattrs("usr/share/new/caps", b"2", &[("user.note", b"kept")])
        .dir("usr/share/d", 0o750)
        .file("etc/unmodified", 0o600, "2")
        .file("etc/edited", 0o644, "2")
        .whiteout("etc/dropped")
        .whiteout("etc/dropped-edited")
        .whiteout("etc/old.d")
        .file("etc/new/deep/file", 0o640, "2")
        .file("etc/mine/default", 0o644, "2")
        .file("etc/mine/same-name", 0o644, "2")
        .symlink("etc/alternative", "/usr/bin/two")
}

#[test]
fn usr_becomes_the_commit_and_etc_keeps_what_was_changed_here() {
    let running = Running::new(vec![second()]);
    for (path, text) in [
        ("edited", "mine"),
        ("dropped-edited", "mine"),
        ("mine/same-name", "mine"),
    ] {
        std::fs::create_dir_all(running.path("etc/mine")).unwrap();
        std::fs::write(running.path("etc").join(path), text).unwrap();
    }
    let etc = running.apply(&[0], 1);
    for (path, expected) in [
        ("unmodified", "2"),
        ("edited", "mine"),
        ("dropped", "entity not found"),
        ("dropped-edited", "mine"),
        ("old.d/one", "entity not found"),
        ("new/deep/file", "2"),
        ("mine/default", "2"),
        ("mine/same-name", "mine"),
    ] {
        assert_eq!(running.text(&format!("etc/{path}")), expected, "{path}");
    }
    assert!(!running.path("etc/old.d").exists());
    assert_eq!(
        std::fs::read_link(running.path("etc/alternative")).unwrap(),
        Path::new("/usr/bin/two")
    );
    let kept: Vec<&str> = etc.kept.iter().map(String::as_str).collect();
    assert_eq!(kept, ["dropped-edited", "edited", "mine/same-name"]);

    // And back: what was edited stays, what came goes.
    let etc = running.apply(&[1], 0);
    for (path, expected) in [
        ("unmodified", "1"),
        ("edited", "mine"),
        ("dropped", "1"),
        ("dropped-edited", "mine"),
        ("old.d/one", "1"),
        ("new/deep/file", "entity not found"),
        ("mine/default", "entity not found"),
        ("mine/same-name", "mine"),
    ] {
        assert_eq!(running.text(&format!("etc/{path}")), expected, "{path}");
    }
    assert!(!running.path("etc/new").exists() && running.path("etc/mine").exists());
    assert!(etc.kept.contains("edited"), "{etc:?}");
    // The deployment below was never written to.
    let lower = running.folder.path().join("lower");
    assert_eq!(
        std::fs::read_to_string(lower.join("share/d/changed")).unwrap(),
        "1"
    );
    assert!(lower.join("share/d/gone").exists());
}

#[test]
fn an_interrupted_run_is_completed_or_taken_back_from_anywhere() {
    let third = Layer::new()
        .file("usr/share/d/changed", 0o644, "3")
        .file("usr/share/third/x", 0o644, "3")
        .file("usr/share/tree/a/other", 0o644, "3")
        .whiteout("usr/share/link");
    let running = Running::new(vec![second(), third]);
    // Half of the way to the third commit is one of the states between the first two ends.
    running.apply(&[0], 2);
    running.apply(&[0, 2], 1);
    running.apply(&[0, 1], 1);
    std::fs::remove_file(running.path("usr/share/new/caps")).unwrap();
    std::fs::write(running.path("usr/share/d/changed"), "half").unwrap();
    running.apply(&[0, 1], 0);
    running.apply(&[1, 0, 2], 2);
}

#[test]
fn another_sysroot_is_no_running_system() {
    let machine = Machine::deployed();
    machine.publish("2", [changed_file("usr/bin/tool", "2\n")]);
    machine.ok(&["upgrade"]);
    let before = machine.state();
    for arguments in [
        &["apply-live"][..],
        &["apply-live", "--reset"],
        &["apply-live", "--allow-replacement"],
    ] {
        let errors = machine.fails(2, arguments);
        assert!(errors.contains("this machine did not boot from"), "{errors}");
    }
    machine.fails(2, &["apply-live", "--reset", "--target=abc"]);
    assert_eq!(machine.state(), before);
}
