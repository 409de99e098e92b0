//! `provision`: what a new sysroot and a new disk hold, and what is refused or interrupted.
//!
//! Run through the program, because only it enters a mount namespace of its own. Whether the result boots is for the
//! virtual machine tests.

use crate::support::apt_ostree;
use crate::support::home::Home;
use crate::support::image::{Image, OciImage, root_layer};
use crate::support::repo::assert_sound;
use crate::support::{run, write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The first byte of the root partition.
const ROOT_OFFSET: u64 = 65 << 20;
/// UUIDs of file systems that a test mounts.
const ROOT_UUID: &str = "11111111-2222-4333-8444-555555555555";
const BOOT_UUID: &str = "66666666-7777-4888-8999-aaaaaaaaaaaa";
/// What the host follows afterwards.
const FOLLOWED: &str = "ostree-unverified-registry:registry.example/os:13";

/// An image to install, small boot loader files, and room for targets.
struct Scene {
    home: Home,
    directory: TempDir,
    image: OciImage,
}

impl Scene {
    fn new() -> Self {
        let home = Home::new();
        let directory = tempfile::tempdir().expect("directory");
        let kargs = "usr/lib/bootc/kargs.d";
        let layer = root_layer("1")
            .dir("usr/lib/bootc", 0o755)
            .dir(kargs, 0o755)
            .file(&format!("{kargs}/10.toml"), 0o644, "kargs = [\"image.own=1\"]\n");
        let image = Image::new()
            .label("containers.bootc", "1")
            .label("org.opencontainers.image.version", "1")
            .layer(layer)
            .write(&directory.path().join("image"), "x");
        for file in [
            "shim/shimx64.efi.signed",
            "grub/x86_64-efi-signed/grubx64.efi.signed",
        ] {
            write(directory.path().join("signed/usr/lib").join(file), file);
        }
        Self {
            home,
            directory,
            image,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the words of a command line that installs the image; `rest` ends with the target.
    fn words(&self, verb: &str, rest: &[&str]) -> Vec<String> {
        let mut words = vec!["provision".to_owned(), verb.to_owned()];
        words.extend(["--image".to_owned(), self.image.reference()]);
        words.extend(["--target-imgref", FOLLOWED, "--boot-files"].map(str::to_owned));
        words.push(self.path("signed").display().to_string());
        words.extend(rest.iter().map(|word| (*word).to_owned()));
        words
    }

    fn provision(&self, verb: &str, rest: &[&str]) {
        let done = apt_ostree(&self.home).args(self.words(verb, rest)).run();
        done.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Runs what must be refused and returns what it wrote.
    fn refused(&self, verb: &str, rest: &[&str]) -> String {
        let output = apt_ostree(&self.home)
            .args(self.words(verb, rest))
            .output()
            .expect("apt-ostree");
        assert!(!output.status.success(), "{verb} {rest:?} was not refused");
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    /// Starts the program, waits until it has stopped at the checkpoint, and returns it.
    #[expect(clippy::disallowed_methods, reason = "the program is to be interrupted")]
    fn paused_at(&self, checkpoint: &str, words: &[String]) -> Child {
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_apt-ostree"))
            .args(words)
            .env("HOME", self.home.path())
            .env("APT_OSTREE_CHECKPOINT", format!("{checkpoint}:pause"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("apt-ostree");
        let tasks = PathBuf::from(format!("/proc/{}/task", child.id()));
        let start = Instant::now();
        while !has_thread(&tasks, "checkpoint\n") {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{checkpoint} is not reached"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }

    /// Returns the names beside the image and the boot loader files.
    fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).expect("directory");
        entries
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name != "image" && name != "signed")
            .collect()
    }
}

#[test]
fn root_sysroot_holds_what_a_host_needs() {
    let scene = Scene::new();
    let root = scene.path("root");
    let shown = root.display().to_string();
    std::fs::create_dir_all(root.join("boot/efi")).expect("root");
    scene.provision(
        "to-filesystem",
        &["--root-mount-spec", "UUID=1-2", "--karg", "mine=1", &shown],
    );

    let entries: Vec<_> = std::fs::read_dir(root.join("boot/loader/entries"))
        .expect("entries")
        .collect();
    assert_eq!(entries.len(), 1);
    let entry = std::fs::read_to_string(entries[0].as_ref().expect("entry").path()).expect("entry");
    let options = entry
        .lines()
        .find_map(|line| line.strip_prefix("options "))
        .expect("options");
    for word in ["root=UUID=1-2", "rw", "image.own=1", "mine=1"] {
        assert!(
            options.split(' ').any(|found| found == word),
            "{word} in {options}"
        );
    }
    assert!(root.join("boot/grub/grub.cfg").is_file());
    let repo = root.join("ostree/repo");
    let config = std::fs::read_to_string(repo.join("config")).expect("config");
    for line in ["bootloader=none", "bootprefix=true", "readonly=true"] {
        assert!(config.contains(line), "{line} in {config}");
    }
    assert_sound(&repo);

    let status = apt_ostree(&scene.home)
        .args(["--sysroot", &shown, "status"])
        .run_text()
        .expect("status");
    assert!(status.contains(FOLLOWED), "{status}");
    let error = scene.refused("to-filesystem", &["--root-mount-spec", "UUID=1-2", &shown]);
    assert!(error.contains("is not empty"), "{error}");
    make_removable(&root);
}

#[test]
fn root_boot_may_be_a_file_system_of_its_own() {
    let scene = Scene::new();
    let root = scene.path("root");
    std::fs::create_dir(&root).expect("root");
    for (name, uuid) in [("rootfs", ROOT_UUID), ("bootfs", BOOT_UUID)] {
        let file = scene.path(name).display().to_string();
        run("mkfs.ext4", ["-q", "-U", uuid, &file, "200M"]);
    }
    // The mounts end with the shell, which has a mount namespace of its own.
    let script = "cd \"$1\" && shift && mount rootfs root && mkdir root/boot && mount bootfs root/boot && \"$@\" >&2 && \
                  cat root/boot/loader/entries/*.conf root/ostree/deploy/debian/deploy/*.0/etc/fstab && ls root/boot/grub";
    let folder = scene.directory.path().display().to_string();
    let mut words = [
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        &folder,
        env!("CARGO_BIN_EXE_apt-ostree"),
    ]
    .map(str::to_owned)
    .to_vec();
    words.extend(scene.words("to-filesystem", &[&root.display().to_string()]));
    let output = run("unshare", &words);
    for text in [
        &format!(" root=UUID={ROOT_UUID} "),
        &format!("UUID={BOOT_UUID} /boot "),
        "grub.cfg",
    ] {
        assert!(output.contains(text), "{text} in {output}");
    }
}

#[test]
fn root_bad_requests_write_nothing() {
    let scene = Scene::new();
    let root = scene.path("root");
    let shown = root.display().to_string();
    std::fs::create_dir(&root).expect("root");
    let error = scene.refused(
        "to-filesystem",
        &["--root-mount-spec", "UUID=1-2", "--karg", "a;b", &shown],
    );
    assert!(error.contains("`a;b`"), "{error}");
    let error = scene.refused("to-filesystem", &[&shown]);
    assert!(error.contains("--root-mount-spec"), "{error}");
    assert_eq!(std::fs::read_dir(&root).expect("root").count(), 0);

    let disk = scene.path("disk");
    let shown = disk.display().to_string();
    let error = scene.refused("to-disk", &["--size", "10M", &shown]);
    assert!(error.contains("too small"), "{error}");
    let error = scene.refused("to-disk", &["--karg", "a$b", &shown]);
    assert!(error.contains("`a$b`"), "{error}");
    assert_eq!(scene.leftovers(), ["root"]);
}

#[test]
fn root_disk_has_both_partitions() {
    let scene = Scene::new();
    let disk = scene.path("disk");
    let shown = disk.display().to_string();
    scene.provision("to-disk", &["--size", "1G", &shown]);
    assert_eq!(scene.leftovers(), ["disk"]);

    let table = run("sfdisk", ["--dump", &shown]);
    assert_eq!(table.matches("type=").count(), 2, "{table}");
    let esp = format!("{shown}@@{}", 1 << 20);
    assert_eq!(
        run("mtype", ["-i", &esp, "::/EFI/BOOT/BOOTX64.EFI"]),
        "shim/shimx64.efi.signed"
    );
    let stub = run("mtype", ["-i", &esp, "::/EFI/debian/grub.cfg"]);
    let root = format!("{shown}?offset={ROOT_OFFSET}");
    run("e2fsck", ["-fn", &root]);
    let uuid = run(
        "blkid",
        [
            "--probe",
            "-O",
            &ROOT_OFFSET.to_string(),
            "-s",
            "UUID",
            "-o",
            "value",
            &shown,
        ],
    );
    assert!(stub.contains(uuid.trim()), "{stub} {uuid}");
    let script = run("debugfs", ["-R", "cat /boot/grub/grub.cfg", &root]);
    assert!(script.contains("loader/entries"), "{script}");

    let error = scene.refused("to-disk", &["--size", "1G", &shown]);
    assert!(error.contains("--wipe"), "{error}");
    scene.provision(
        "to-disk",
        &["--size", "1G", "--format", "qcow2", "--wipe", &shown],
    );
    let information = run("qemu-img", ["info", &shown]);
    assert!(information.contains("file format: qcow2"), "{information}");
}

#[test]
fn root_disk_with_other_file_systems() {
    let scene = Scene::new();
    for filesystem in ["xfs", "btrfs"] {
        let disk = scene.path(filesystem);
        let shown = disk.display().to_string();
        scene.provision("to-disk", &["--filesystem", filesystem, "--size", "2G", &shown]);
        let offset = ROOT_OFFSET.to_string();
        let found = run(
            "blkid",
            ["--probe", "-O", &offset, "-s", "TYPE", "-o", "value", &shown],
        );
        assert_eq!(found.trim(), filesystem);
        assert!(!attached(&disk), "a loop device stays behind");
        std::fs::remove_file(disk).expect("disk");
    }
}

#[test]
fn root_block_device_is_a_whole_disk() {
    let scene = Scene::new();
    let file = scene.path("disk");
    std::fs::File::create(&file)
        .and_then(|file| file.set_len(1 << 30))
        .expect("disk");
    let file = file.display().to_string();
    let device = run("losetup", ["--find", "--show", &file]).trim().to_owned();
    let detached = Detached(&device);
    scene.provision("to-disk", &[&device]);
    let table = run("sfdisk", ["--dump", &device]);
    assert_eq!(table.matches("type=").count(), 2, "{table}");
    run("e2fsck", ["-fn", &format!("{file}?offset={ROOT_OFFSET}")]);
    let error = scene.refused("to-disk", &[&device]);
    assert!(error.contains("holds gpt"), "{error}");
    drop(detached);
    assert_eq!(scene.leftovers(), ["disk"]);
}

#[test]
fn root_interrupted_disk_leaves_nothing() {
    let scene = Scene::new();
    for (filesystem, checkpoint) in [
        ("ext4", "provision-imported"),
        ("ext4", "provision-made"),
        ("xfs", "provision-imported"),
    ] {
        for signal in ["TERM", "INT", "KILL"] {
            let disk = scene.path("disk");
            let shown = disk.display().to_string();
            let words = scene.words("to-disk", &["--filesystem", filesystem, "--size", "1G", &shown]);
            let mut child = scene.paused_at(checkpoint, &words);
            run("kill", [format!("-{signal}"), child.id().to_string()]);
            assert!(!child.wait().expect("wait").success());
            let what = format!("{filesystem} {checkpoint} {signal}");
            // Nobody can clean up after SIGKILL; the next run does.
            if signal != "KILL" {
                assert_eq!(scene.leftovers(), Vec::<String>::new(), "{what}");
            }
            assert!(!attached(&scene.path(".disk.apt-ostree/disk.raw")), "{what}");
            let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
            assert!(!mounts.contains(&shown.replace("/disk", "/.disk")), "{what}");
        }
    }
    let disk = scene.path("disk").display().to_string();
    scene.provision("to-disk", &["--size", "1G", &disk]);
    assert_eq!(scene.leftovers(), ["disk"]);
}

/// Detaches a loop device also when the test fails.
struct Detached<'a>(&'a str);

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        run("losetup", ["--detach", self.0]);
    }
}

fn has_thread(tasks: &Path, name: &str) -> bool {
    let Ok(tasks) = std::fs::read_dir(tasks) else {
        return false;
    };
    tasks
        .flatten()
        .any(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|found| found == name))
}

/// Returns whether a loop device is over the file.
fn attached(file: &Path) -> bool {
    let list = run("losetup", ["--list", "--noheadings", "--output", "BACK-FILE"]);
    // The kernel finishes the detaching after the last user is gone.
    list.lines()
        .any(|line| line.starts_with(&file.display().to_string()))
        && {
            std::thread::sleep(Duration::from_secs(1));
            run("losetup", ["--list", "--noheadings", "--output", "BACK-FILE"])
                .lines()
                .any(|line| line.starts_with(&file.display().to_string()))
        }
}

/// Clears the immutable flag of the deployments, so that the temporary directory can be removed.
fn make_removable(root: &Path) {
    let deployments = root.join("ostree/deploy/debian/deploy");
    for entry in std::fs::read_dir(deployments).expect("deployments") {
        let path = entry.expect("deployment").path();
        if path.is_dir() {
            run("chattr", ["-i", &path.display().to_string()]);
        }
    }
}
