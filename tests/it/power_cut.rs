//! The power is cut: what a program had told to be done is there afterwards, and before that the old is whole.
//!
//! Writes of a disk with a volatile cache are recorded while the program runs, and replayed up to a point with any
//! part of what had not been flushed then ([`crate::support::volatile_disk`]). `APT_OSTREE_POWER_SEED` chooses other
//! points and parts, `APT_OSTREE_POWER_TIMES` so many times as many.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::debian::in_private_mounts;
use crate::support::home::Home;
use crate::support::image::Image;
use crate::support::layer::{Layer, Packing};
use crate::support::machine::{Machine, changed_file};
use crate::support::power_cuts::{Cut, Span, examine};
use crate::support::repo::TestRepo;
use crate::support::volatile_disk::{Random, VolatileDisk};
use anyhow::{Context, Result, bail, ensure};
use apt_ostree::host::runner::Cmd;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

type Refs = BTreeMap<String, String>;

const DISK: u64 = 1 << 30;

#[test]
fn the_disk_loses_what_was_not_flushed_and_nothing_else() {
    in_private_mounts(|| {
        let place = tempfile::tempdir().unwrap();
        let mut disk = VolatileDisk::new(DISK);
        disk.mount_ext4(place.path());
        let content = vec![b'x'; 1 << 20];
        let file = |name: &str| {
            std::fs::write(place.path().join(name), &content).unwrap();
            File::open(place.path().join(name)).unwrap()
        };
        file("durable").sync_all().unwrap();
        let before = disk.now();
        let volatile = file("volatile");
        let written = disk.now();
        volatile.sync_all().unwrap();
        let synced = disk.now();
        assert!(!disk.flushes(written, synced).is_empty(), "an fsync is a flush");
        let mut platter = disk.platter();
        for (at, is_there) in [(before, false), (written, false), (synced, true)] {
            let cut = Cut::new();
            platter.cut(at, 0, &mut Random::new(0), cut.image());
            let look = |place: &Path| {
                let is_whole = |name| std::fs::read(place.join(name)).is_ok_and(|bytes| bytes == content);
                assert!(is_whole("durable"));
                assert_eq!(is_whole("volatile"), is_there);
                Ok(())
            };
            cut.examine(look).unwrap();
        }
    });
}

#[test]
fn a_pulled_image_is_there_and_a_cut_pull_changed_nothing() {
    in_private_mounts(|| {
        let mut scene = Scene::new(true);
        // The first pull sets every ref, so that whichever comes last is seen to be lost.
        for (version, before) in [("1", 2), ("2", 6)] {
            let old = scene.undisturbed_refs();
            scene.publish(version);
            let span = Span::of(&scene.disk, || scene.pull(&scene.repo()).map(drop).unwrap());
            scene.pull(scene.undisturbed.path()).unwrap();
            let new = scene.undisturbed_refs();
            assert_eq!(refs(&scene.repo()).unwrap(), new);
            if version == "2" {
                scene.disk.unmount();
            }
            examine(
                &scene.disk,
                &span.points(&scene.disk, before, 3),
                |place, point| scene.examine(&place.join("repo"), [&old, &new], point.after),
            );
        }
    });
}

#[test]
fn without_fsync_a_loss_is_seen() {
    in_private_mounts(|| {
        let scene = Scene::new(false);
        scene.publish("1");
        let span = Span::of(&scene.disk, || scene.pull(&scene.repo()).map(drop).unwrap());
        let refs = refs(&scene.repo()).unwrap();
        // Names reach the disk with the next commit of the journal, the content behind them does not.
        std::fs::write(scene.place.path().join("other"), "").unwrap();
        File::open(scene.place.path().join("other"))
            .unwrap()
            .sync_all()
            .unwrap();
        let mut platter = scene.disk.platter();
        for at in [span.to, scene.disk.now()] {
            let cut = Cut::new();
            platter.cut(at, 0, &mut Random::new(0), cut.image());
            let lost = cut.examine(|place| scene.examine(&place.join("repo"), [&refs, &refs], true));
            let error = format!("{:#}", lost.expect_err("a loss"));
            assert!(error.contains("The ref "), "{error}");
        }
    });
}

#[test]
fn a_deployment_is_there_and_a_cut_upgrade_leaves_the_old_one() {
    in_private_mounts(|| {
        let machine = Machine::new();
        let mut disk = VolatileDisk::new(DISK);
        disk.mount_ext4(machine.sysroot.path());
        machine.init_again();
        rustix::fs::syncfs(File::open(machine.sysroot.path()).unwrap()).unwrap();
        let verbs = [
            vec!["rebase".to_owned(), machine.reference("os:stable")],
            vec!["upgrade".to_owned()],
        ];
        let mut old: Vec<String> = Vec::new();
        for (version, verb) in ["1", "2"].into_iter().zip(&verbs) {
            let verb: Vec<&str> = verb.iter().map(String::as_str).collect();
            machine.publish(version, [changed_file("usr/share/changed", version)]);
            let span = Span::of(&disk, || drop(machine.ok(&verb)));
            let new = machine.versions();
            examine(&disk, &span.points(&disk, 4, 2), |place, point| {
                let host = Host {
                    machine: &machine,
                    place,
                };
                let found = host.versions()?;
                ensure!(
                    found == new || found == old && !point.after,
                    "The deployments are {found:?}"
                );
                host.check_entries(&found)?;
                if !found.is_empty() {
                    host.check(if point.after {
                        &["note"]
                    } else {
                        &["note", "warning"]
                    })?;
                }
                host.run(&verb)?;
                ensure!(
                    host.versions()? == new,
                    "Again, and the deployments are {:?}",
                    host.versions()?
                );
                host.check_entries(&new)?;
                // What a cut import had staged is a note until the next import.
                host.check(&["note"])
            });
            old = new;
        }
    });
}

/// A sysroot after a power cut, somewhere else than the machine's own.
struct Host<'a> {
    machine: &'a Machine,
    place: &'a Path,
}

impl Host<'_> {
    fn command(&self, arguments: &[&str]) -> Cmd {
        let program = crate::support::apt_ostree(&self.machine.home);
        program.arg("--sysroot").arg(self.place).args(arguments)
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        self.command(arguments).run_text()
    }

    /// Returns the versions of the deployments in boot order.
    fn versions(&self) -> Result<Vec<String>> {
        let status: serde_json::Value = serde_json::from_str(&self.run(&["status", "--json"])?)?;
        let deployments = status["deployments"].as_array().context("no deployments")?;
        let version = |one: &serde_json::Value| one["version"].as_str().unwrap_or("-").to_owned();
        Ok(deployments.iter().map(version).collect())
    }

    /// Fails unless the boot entries, first one first, lead to kernels and roots of these versions.
    fn check_entries(&self, versions: &[String]) -> Result<()> {
        let folder = self.place.join("boot/loader/entries");
        let mut entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>>>()?,
            Err(_) if versions.is_empty() => return Ok(()),
            Err(error) => bail!("{}: {error}", folder.display()),
        };
        // The name ends with the number by which boot loaders sort.
        entries.sort();
        entries.reverse();
        let mut found = Vec::new();
        for entry in entries {
            let text = std::fs::read_to_string(&entry)?;
            let value = |key: &str| {
                text.lines()
                    .find_map(|line| line.strip_prefix(key))
                    .context("A key is missing")
            };
            let inside = |path: &str| self.place.join(path.trim().trim_start_matches('/'));
            let kernel = value("linux ")?.trim();
            let kernel = if kernel.starts_with("/boot/") {
                inside(kernel)
            } else {
                inside(&format!("boot{kernel}"))
            };
            ensure!(
                std::fs::read(&kernel)? == b"a kernel",
                "{} is damaged",
                kernel.display()
            );
            let root = value("options ")?
                .split_whitespace()
                .find_map(|word| word.strip_prefix("ostree="));
            let release = inside(root.context("no root")?).join("usr/lib/os-release");
            let release = std::fs::read_to_string(release)?;
            let version = release.lines().find_map(|line| line.strip_prefix("VERSION_ID="));
            found.push(version.context("no version")?.to_owned());
        }
        ensure!(
            found == versions,
            "The boot entries are of {found:?}, the deployments {versions:?}"
        );
        Ok(())
    }

    /// Fails when `fsck` finds more than findings of these severities, or `ostree fsck` anything.
    fn check(&self, accepted: &[&str]) -> Result<()> {
        let output = self.command(&["fsck", "--json"]).output()?;
        let checkup: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        for finding in checkup["findings"].as_array().context("no findings")? {
            let severity = finding["severity"].as_str().context("no severity")?;
            ensure!(accepted.contains(&severity), "fsck found {finding:#}");
        }
        sound(&self.place.join("ostree/repo"))
    }
}

/// A repository on a volatile disk, and an image to be pulled into it and into one that nothing happens to.
struct Scene {
    home: Home,
    images: TempDir,
    undisturbed: TestRepo,
    place: TempDir,
    // Unmounts the file system before its place is removed.
    disk: VolatileDisk,
}

impl Scene {
    fn new(fsync: bool) -> Self {
        let [images, place] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let mut disk = VolatileDisk::new(DISK);
        disk.mount_ext4(place.path());
        let scene = Self {
            home: Home::new(),
            images,
            undisturbed: TestRepo::with_mode("bare"),
            place,
            disk,
        };
        scene
            .undisturbed
            .ostree(&["config", "set", "core.fsync", "false"]);
        std::fs::create_dir(scene.repo()).unwrap();
        ostree(&scene.repo(), &["init", "--mode=bare"]).unwrap();
        ostree(
            &scene.repo(),
            &["config", "set", "core.fsync", &fsync.to_string()],
        )
        .unwrap();
        rustix::fs::syncfs(File::open(scene.place.path()).unwrap()).unwrap();
        scene
    }

    fn repo(&self) -> PathBuf {
        self.place.path().join("repo")
    }

    fn undisturbed_refs(&self) -> Refs {
        refs(self.undisturbed.path()).unwrap()
    }

    /// Writes a version of the image: many small files, a few large ones, a layer that stays and ones that do not.
    fn publish(&self, version: &str) {
        let files = |name: &str, count: usize, size: usize| {
            let layer = Layer::new().packed(Packing::Zstd);
            (0..count).fold(layer, |layer, number| {
                layer.noise(
                    &format!("usr/share/{name}/{}/{number}", number % 40),
                    size + number,
                )
            })
        };
        Image::bootable(version)
            .layer(files("same", 300, 100))
            .layer(files(&format!("small{version}"), 1500, 0))
            .layer(files(&format!("large{version}"), 3, 1 << 20))
            .layer(files(&format!("more{version}"), 200, 5000).whiteout("usr/share/same/1"))
            .write(self.images.path(), "latest");
    }

    fn pull(&self, repo: &Path) -> Result<String> {
        let image = format!(
            "ostree-unverified-image:oci:{}:latest",
            self.images.path().display()
        );
        let repo = format!("--repo={}", repo.display());
        crate::support::apt_ostree(&self.home)
            .args(["image", "pull", &repo, &image])
            .run_text()
    }

    /// Fails unless the repository is sound, its refs are of the old and of the new (all new ones `after` success),
    /// and pulling again makes it what it is without a power cut.
    fn examine(&self, repo: &Path, [old, new]: [&Refs; 2], after: bool) -> Result<()> {
        let found = refs(repo)?;
        for (name, commit) in &found {
            let is_known = (old.get(name) == Some(commit) && !after) || new.get(name) == Some(commit);
            ensure!(is_known, "The ref {name} is {commit:?}");
        }
        for name in if after { new } else { old }.keys() {
            ensure!(found.contains_key(name), "The ref {name} is missing");
        }
        sound(repo)?;
        let said = self.pull(repo)?;
        if after {
            ensure!(said.starts_with("Already present: "), "Pulling again said {said}");
            return Ok(());
        }
        let made = refs(repo)?;
        ensure!(
            without_merges(&made) == without_merges(new),
            "Pulling again made {made:#?} of {found:#?}, and not {new:#?}"
        );
        sound(repo)
    }
}

/// Returns the refs without what those name that keep merges: which ones an import keeps depends on what it finds.
fn without_merges(refs: &Refs) -> Vec<(&str, &str)> {
    let is_merges = |name: &str| name.starts_with("apt-ostree/merged/");
    refs.iter()
        .map(|(name, commit)| (name.as_str(), if is_merges(name) { "" } else { commit }))
        .collect()
}

/// Fails unless `ostree fsck` finds nothing, and no commit is excused from being whole.
fn sound(repo: &Path) -> Result<()> {
    for entry in std::fs::read_dir(repo.join("state"))? {
        let name = entry?.file_name();
        ensure!(
            !name.to_string_lossy().ends_with(".commitpartial"),
            "{name:?} is partial"
        );
    }
    ostree(repo, &["fsck", "--quiet"])
        .map(drop)
        .context("The repository is damaged")
}

fn ostree(repo: &Path, arguments: &[&str]) -> Result<String> {
    let repo = format!("--repo={}", repo.display());
    Cmd::new("ostree").arg(repo).args(arguments).run_text()
}

/// Returns the refs of a repository as they stand in its files.
fn refs(repo: &Path) -> Result<Refs> {
    fn add(folder: &Path, prefix: &str, refs: &mut Refs) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                add(&entry.path(), &format!("{name}/"), refs)?;
            } else if !entry.file_name().to_string_lossy().starts_with("tmp.") {
                let commit = std::fs::read_to_string(entry.path())?.trim().to_owned();
                refs.insert(name, commit);
            }
        }
        Ok(())
    }
    let mut refs = Refs::new();
    add(&repo.join("refs/heads"), "", &mut refs)?;
    Ok(refs)
}
