//! The place to layer in: what it shows, what it leaves, and that the repository's objects are safe from it.

use crate::support::debian::{Debian, in_private_mounts};
use apt_ostree::layer::stage::Stage;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

#[test]
fn what_is_written_stands_in_upper_and_the_repository_stays_sound() {
    let debian = Debian::new();
    in_private_mounts(|| {
        let stage = debian.stage();
        let (root, upper) = (stage.root().to_owned(), stage.upper().to_owned());
        assert!(stage.base().join("usr/etc/debian_version").is_file() && !stage.base().join("etc").exists());
        assert!(root.join("etc/debian_version").is_file());
        assert_eq!(std::fs::read_dir(&upper).unwrap().count(), 0);
        // Equal files are one inode in the checkout; a write through one name must not reach the others.
        let path = root.join("etc/debian_version");
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("changed\n");
        std::fs::write(&path, &text).unwrap();
        std::fs::remove_file(root.join("usr/bin/true")).unwrap();
        assert_eq!(
            std::fs::read_to_string(upper.join("usr/etc/debian_version")).unwrap(),
            text
        );
        assert_eq!(
            std::fs::symlink_metadata(upper.join("usr/bin/true"))
                .unwrap()
                .rdev(),
            0
        );
        assert!(!upper.join("etc").exists());
        assert!(
            std::fs::metadata(stage.base().join("usr/etc/debian_version"))
                .unwrap()
                .nlink()
                > 1
        );
        assert_eq!(
            std::fs::metadata(stage.scratch()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(debian.leftovers().len(), 1);
        stage.close().unwrap();
        assert!(
            !std::fs::read_to_string("/proc/thread-self/mountinfo")
                .unwrap()
                .contains("apt-ostree-layer")
        );
    });
    assert_eq!(debian.leftovers(), Vec::<String>::new());
    debian.assert_sound();
}

#[test]
fn two_runs_have_two_places_and_only_what_a_killed_run_left_is_removed() {
    let debian = Debian::new();
    let stale: PathBuf = debian.repo_path().join("tmp/apt-ostree-layer.7");
    std::fs::create_dir_all(stale.join("work/work")).unwrap();
    std::fs::set_permissions(stale.join("work/work"), std::fs::Permissions::from_mode(0o000)).unwrap();
    in_private_mounts(|| {
        let first = debian.stage();
        assert!(!stale.exists());
        let second = debian.stage();
        assert_ne!(first.root(), second.root());
        std::fs::write(second.root().join("usr/new"), "").unwrap();
        assert!(!first.root().join("usr/new").exists());
    });
    assert_eq!(debian.leftovers(), Vec::<String>::new());
}

#[test]
fn a_missing_commit_leaves_nothing() {
    let debian = Debian::new();
    let error = in_private_mounts(|| Stage::open(&debian.repo(), &"0".repeat(64)).err());
    assert!(format!("{:#}", error.expect("an error")).contains("000000"));
    assert_eq!(debian.leftovers(), Vec::<String>::new());
}
