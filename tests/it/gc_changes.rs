//! The small collection: it leaves exactly what libostree's prune leaves, for a cost that does not grow with the
//! repository, and leaves the matter to libostree where it cannot be sure.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::forest::{Files, Forest, objects, reference};
use crate::support::home::Home;
use crate::support::repo::{assert_sound, ostree};
use apt_ostree::image::gc::{self, Collected, Keep, Scope};
use apt_ostree::image::objects::StoredObjects;
use apt_ostree::image::reference::ImageReference;
use apt_ostree::image::store;
use apt_ostree::tree::{Checksum, MetadataKind, Objects};
use std::cell::Cell;
use std::path::Path;

const INDEX: &str = "extensions/apt-ostree/uses";
const NOTED: &str = "extensions/apt-ostree/new-commits";

/// Collects in the repository, and in full in a copy of it, and fails the test unless both come to the same.
fn collect(forest: &Forest, keep: &[ImageReference]) -> (Collected, Scope) {
    let copy = forest.copy();
    let everything = gc::collect(&copy.handle, keep, &[], Scope::Everything).unwrap();
    let keep = Keep {
        references: keep,
        commits: &[],
    };
    let through = StoredObjects(&forest.handle);
    let (collected, scope) = gc::collect_through(&forest.handle, &through, keep, Scope::Changes).unwrap();
    assert_eq!(objects(forest.repo.path()), objects(&copy.path));
    assert_eq!(collected, everything);
    // What was counted step by step is what is counted from the beginning.
    assert_eq!(counts(forest.repo.path()), counts(&copy.path));
    assert!(!forest.repo.path().join(NOTED).exists());
    (collected, scope)
}

/// Returns the index without the number of collections and its checksum.
fn counts(repo: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(repo.join(INDEX)).ok()?;
    Some([&bytes[..16], &bytes[20..bytes.len() - 32]].concat())
}

/// Returns one file after the other in a directory each.
fn directories(count: usize, change: &str) -> Files {
    (0..count)
        .map(|number| (format!("usr/{number:04}/file"), format!("content {number}")))
        .chain([("usr/0000/changed".to_owned(), change.to_owned())])
        .collect()
}

fn two_images() -> Forest {
    let forest = Forest::new("bare-user");
    forest.pull("kept", &[directories(5, "kept"), Files::new()]);
    forest.pull("gone", &[directories(5, "gone"), directories(6, "more")]);
    assert_eq!(
        collect(&forest, &[reference("kept"), reference("gone")]).1,
        Scope::Everything,
        "there was no index yet"
    );
    forest
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    /// Few names and contents, so that the same things come up at several places and in several commits.
    fn files(&mut self) -> Files {
        let mut files = Files::new();
        for _ in 0..self.below(12) {
            let depth = 1 + self.below(3);
            let folders: String = (0..depth).map(|_| ["a/", "b/", "c/"][self.below(3)]).collect();
            let content = ["", "1", "2", "3", "-> 1"][self.below(5)];
            files.insert(
                format!("{folders}{}", ["x", "y"][self.below(2)]),
                content.to_owned(),
            );
            if self.below(4) == 0 {
                files.insert(folders, ["755", "700"][self.below(2)].to_owned());
            }
        }
        files
    }

    fn name(&mut self) -> &'static str {
        ["one", "two", "three"][self.below(3)]
    }
}

/// Has the `ostree` tool commit a tree, with and without history and metadata of its own.
fn foreign_commit(forest: &Forest, numbers: &mut Numbers) {
    let directory = tempfile::tempdir().unwrap();
    for (path, content) in numbers.files() {
        if !path.ends_with('/') {
            crate::support::write(directory.path().join(path), content);
        }
    }
    let branch = format!("--branch=foreign/{}", numbers.below(2));
    let tree = format!("--tree=dir={}", directory.path().display());
    let mut arguments = vec!["commit", &branch, &tree, "--owner-uid=0", "--owner-gid=0"];
    if numbers.below(2) == 0 {
        arguments.push("--add-detached-metadata-string=note=detached");
    }
    forest.repo.ostree(&arguments);
}

/// Returns how many small collections there were.
fn random_life(mode: &str, seed: u64) -> usize {
    let (forest, mut numbers) = (Forest::new(mode), Numbers(seed));
    let mut small = 0;
    for step in 0..30 {
        match numbers.below(9) {
            0..3 => {
                let layers: Vec<Files> = (0..=numbers.below(3)).map(|_| numbers.files()).collect();
                forest.pull(numbers.name(), &layers);
            }
            3 => drop(store::remove(&forest.handle, &reference(numbers.name())).unwrap()),
            4 => {
                if let Some(image) = store::find(&forest.handle, &reference(numbers.name())).unwrap() {
                    let derived = forest.derive(&image.commit, &numbers.files());
                    let name = format!("ostree/0/1/{}", numbers.below(2));
                    forest.set_ref(&name, (numbers.below(4) > 0).then_some(derived.as_str()));
                }
            }
            5 => forest.set_ref(&format!("ostree/0/1/{}", numbers.below(2)), None),
            6 => foreign_commit(&forest, &mut numbers),
            7 => {
                let name = format!("foreign/{}", numbers.below(2));
                match numbers.below(2) {
                    0 => {
                        // What came and went without any collection is only found by a full one: see below.
                        collect(&forest, &[reference("one"), reference("two"), reference("three")]);
                        forest.repo.ostree(&["refs", "--delete", &name]);
                    }
                    // A foreign ref on what is ours.
                    _ => {
                        if let Some(image) = store::find(&forest.handle, &reference(numbers.name())).unwrap()
                        {
                            forest.set_ref("foreign/2", Some(&image.commit));
                        }
                    }
                }
            }
            _ => {
                let mut keep = vec![reference("one"), reference("two"), reference("three")];
                keep.truncate(1 + numbers.below(3));
                let (_, scope) = collect(&forest, &keep);
                small += usize::from(scope == Scope::Changes);
                forest.repo.assert_sound();
            }
        }
        if step == 20 && numbers.below(2) == 0 {
            // Somebody else's prune in between.
            forest.repo.ostree(&["prune", "--refs-only", "--depth=0"]);
        }
    }
    collect(&forest, &[]);
    assert_eq!(collect(&forest, &[]).1, Scope::Changes);
    forest.repo.assert_sound();
    small
}

#[test]
fn what_is_left_is_what_a_prune_leaves() {
    let small: usize = (1..=4).map(|seed| random_life("bare-user", seed)).sum();
    assert!(small > 3, "{small} small collections");
}

#[test]
fn priv_what_is_left_is_what_a_prune_leaves_in_a_bare_repository() {
    if rustix::process::getuid().is_root() {
        let small: usize = (11..=12).map(|seed| random_life("bare", seed)).sum();
        assert!(small > 1, "{small} small collections");
    }
}

#[test]
fn what_another_program_pulled_goes_when_it_is_removed() {
    let (forest, mut numbers) = (two_images(), Numbers(5));
    foreign_commit(&forest, &mut numbers);
    let foreign = forest
        .repo
        .refs()
        .into_iter()
        .find(|(name, _)| name.starts_with("foreign/"));
    let (name, commit) = foreign.unwrap();
    forest.set_ref(&reference("theirs").store_ref().unwrap(), Some(&commit));
    forest.set_ref(&name, None);
    assert!(store::remove(&forest.handle, &reference("theirs")).unwrap());
    let (collected, scope) = collect(&forest, &[reference("kept"), reference("gone")]);
    assert!(collected.objects > 0 && scope == Scope::Changes);
}

#[test]
fn what_others_forgot_in_between_waits_for_a_full_collection() {
    let (forest, mut numbers) = (two_images(), Numbers(7));
    foreign_commit(&forest, &mut numbers);
    let before = objects(forest.repo.path());
    let name = forest
        .repo
        .refs()
        .into_keys()
        .find(|name| name.starts_with("foreign/"));
    forest.repo.ostree(&["refs", "--delete", &name.unwrap()]);
    let keep = [reference("kept"), reference("gone")];
    let left = |scope| gc::collect(&forest.handle, &keep, &[], scope).unwrap().objects;
    assert_eq!(left(Scope::Changes), 0);
    assert_eq!(objects(forest.repo.path()), before);
    assert!(left(Scope::Everything) > 0);
    assert_eq!(collect(&forest, &[]).1, Scope::Changes);
}

/// Counts the directory objects that are read.
struct Counting<'a>(StoredObjects<'a>, Cell<usize>);

impl Objects for Counting<'_> {
    fn read(&self, kind: MetadataKind, checksum: &Checksum) -> anyhow::Result<Vec<u8>> {
        self.1.set(self.1.get() + 1);
        self.0.read(kind, checksum)
    }

    fn write(&self, kind: MetadataKind, bytes: &[u8]) -> anyhow::Result<Checksum> {
        self.0.write(kind, bytes)
    }
}

/// Returns how many directories a collection reads after one file of an image has changed.
fn directories_read(count: usize) -> usize {
    let forest = Forest::new("bare-user");
    let keep = [reference("os")];
    let base = directories(count, "one");
    let change = |text: &str| Files::from([("usr/0000/changed".to_owned(), text.to_owned())]);
    forest.pull("os", &[base.clone(), change("first")]);
    gc::collect(&forest.handle, &keep, &[], Scope::Changes).unwrap();
    forest.pull("os", &[base, change("second")]);
    let objects = Counting(StoredObjects(&forest.handle), Cell::new(0));
    let keep = Keep {
        references: &keep,
        commits: &[],
    };
    let (collected, scope) = gc::collect_through(&forest.handle, &objects, keep, Scope::Changes).unwrap();
    assert_eq!(scope, Scope::Changes);
    assert!(collected.objects > 5 && collected.layers == 1, "{collected:?}");
    objects.1.get()
}

#[test]
fn the_cost_does_not_grow_with_the_repository() {
    let small = directories_read(50);
    assert!(small > 0 && small < 20, "{small} directories were read");
    assert_eq!(directories_read(1000), small);
}

#[test]
fn nothing_to_do_reads_nothing() {
    let forest = two_images();
    let keep = [reference("kept"), reference("gone")];
    let objects = Counting(StoredObjects(&forest.handle), Cell::new(0));
    let before = std::fs::read(forest.repo.path().join(INDEX)).unwrap();
    let keep = Keep {
        references: &keep,
        commits: &[],
    };
    let (collected, scope) = gc::collect_through(&forest.handle, &objects, keep, Scope::Changes).unwrap();
    assert_eq!((collected, scope), (Collected::default(), Scope::Changes));
    assert_eq!(objects.1.get(), 0);
    assert_eq!(std::fs::read(forest.repo.path().join(INDEX)).unwrap(), before);
}

#[test]
fn an_index_that_is_not_whole_is_made_again() {
    let flipped = |place: usize| {
        move |bytes: Vec<u8>| {
            let mut bytes = bytes;
            let place = place.min(bytes.len() - 1);
            bytes[place] ^= 1;
            Some(bytes)
        }
    };
    let cut = |length: usize| move |bytes: Vec<u8>| Some(bytes[..length.min(bytes.len() - 1)].to_vec());
    type Damage = Box<dyn Fn(Vec<u8>) -> Option<Vec<u8>>>;
    let of_another_version = |bytes: Vec<u8>| {
        let mut bytes = bytes[..bytes.len() - 32].to_vec();
        bytes[15] = 2;
        let sum = Checksum::of(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        Some(bytes)
    };
    let longer = |bytes: Vec<u8>| {
        let mut bytes = bytes[..bytes.len() - 32].to_vec();
        bytes.push(0);
        let sum = Checksum::of(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        Some(bytes)
    };
    let damages: [Damage; 9] = [
        Box::new(|_| None),
        Box::new(|_| Some(Vec::new())),
        Box::new(cut(40)),
        Box::new(cut(400)),
        Box::new(cut(usize::MAX)),
        Box::new(flipped(300)),
        Box::new(flipped(usize::MAX)),
        Box::new(of_another_version),
        Box::new(longer),
    ];
    for (number, damage) in damages.iter().enumerate() {
        let forest = two_images();
        let path = forest.repo.path().join(INDEX);
        match damage(std::fs::read(&path).unwrap()) {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let (collected, scope) = collect(&forest, &[reference("kept")]);
        assert_eq!(
            (collected.images, scope),
            (1, Scope::Everything),
            "damage {number}"
        );
        assert_eq!(collect(&forest, &[]).1, Scope::Changes, "damage {number}");
        forest.repo.assert_sound();
    }
}

#[test]
fn doubts_lead_to_a_full_collection() {
    // Noted commits that cannot be read, or that never came.
    for text in [
        "not a commit\n".to_owned(),
        format!("{}\n", Checksum::of(b"none")),
    ] {
        let forest = two_images();
        std::fs::write(forest.repo.path().join(NOTED), text).unwrap();
        assert_eq!(collect(&forest, &[reference("kept")]).1, Scope::Everything);
    }
    // A directory object that is not what its name says.
    let forest = two_images();
    let tree = ostree(
        forest.repo.path(),
        &["rev-parse", &reference("gone").store_ref().unwrap()],
    );
    let root = apt_ostree::image::commit::Commit::load(&forest.handle, tree.trim())
        .unwrap()
        .root;
    let name = root.tree().unwrap().to_string();
    let path = forest
        .repo
        .path()
        .join(format!("objects/{}/{}.dirtree", &name[..2], &name[2..]));
    std::fs::write(&path, std::fs::read(&path).unwrap().repeat(2)).unwrap();
    assert_eq!(collect(&forest, &[reference("kept")]).1, Scope::Everything);
    forest.repo.assert_sound();
    // A commit that is kept and lacks objects: nothing can be counted until it is mended.
    let forest = two_images();
    let kept = store::find(&forest.handle, &reference("kept")).unwrap().unwrap();
    forest.handle.mark_commit_partial(&kept.commit, true).unwrap();
    assert_eq!(collect(&forest, &[reference("kept")]).1, Scope::Everything);
    assert_eq!(collect(&forest, &[reference("kept")]).1, Scope::Everything);
    forest.handle.mark_commit_partial(&kept.commit, false).unwrap();
    assert_eq!(collect(&forest, &[reference("kept")]).1, Scope::Everything);
    assert_eq!(collect(&forest, &[reference("kept")]).1, Scope::Changes);
    // Refs of collections.
    let forest = two_images();
    crate::support::write(
        forest.repo.path().join("refs/mirrors/org.example/os"),
        &kept.commit,
    );
    let handle = &forest.handle;
    let collected = gc::collect_through(
        handle,
        &StoredObjects(handle),
        Keep {
            references: &[reference("kept")],
            commits: &[],
        },
        Scope::Changes,
    );
    assert_eq!(collected.unwrap().1, Scope::Everything);
    assert!(!forest.repo.path().join(INDEX).exists());
}

#[test]
fn a_repository_of_another_mode_is_pruned_in_full() {
    let forest = Forest::new("archive");
    foreign_commit(&forest, &mut Numbers(3));
    for _ in 0..2 {
        forest.repo.ostree(&["refs", "--create=other", "foreign/0"]);
        assert_eq!(collect(&forest, &[]).1, Scope::Everything);
        forest.repo.ostree(&["refs", "--delete", "other"]);
    }
    assert!(!forest.repo.path().join(INDEX).exists());
}

#[test]
fn now_and_then_everything_is_looked_at() {
    let forest = two_images();
    let mut small = 0;
    loop {
        forest.pull("next", &[Files::from([("file".to_owned(), small.to_string())])]);
        let keep = [reference("kept"), reference("next")];
        // What was killed before a commit named it is found then.
        let orphan = forest.repo.path().join("objects/00");
        std::fs::create_dir_all(&orphan).unwrap();
        std::fs::write(orphan.join(format!("{}.file", "0".repeat(62))), "orphan").unwrap();
        let through = StoredObjects(&forest.handle);
        let keep = Keep {
            references: &keep,
            commits: &[],
        };
        let (_, scope) = gc::collect_through(&forest.handle, &through, keep, Scope::Changes).unwrap();
        let is_here = orphan.join(format!("{}.file", "0".repeat(62))).exists();
        assert_eq!(is_here, scope == Scope::Changes);
        if scope == Scope::Everything {
            break;
        }
        small += 1;
    }
    assert_eq!(small, 32);
}

#[test]
fn killed_collections_are_finished_by_the_next() {
    for checkpoint in ["gc-refs-removed", "gc-commits-removed", "gc-objects-removed"] {
        let (home, forest) = (Home::new(), two_images());
        // This one no index knows: only the note tells of it.
        forest.pull("new", &[directories(7, "new")]);
        store::remove(&forest.handle, &reference("new")).unwrap();
        let output = crate::support::apt_ostree(&home)
            .args([
                "image",
                "remove",
                &format!("--repo={}", forest.repo.path().display()),
            ])
            .arg(reference("gone").to_string())
            .env("APT_OSTREE_CHECKPOINT", checkpoint)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), None, "{output:?}");
        forest.repo.assert_sound();
        let scope = collect(&forest, &[reference("kept")]).1;
        assert_eq!(
            scope == Scope::Changes,
            checkpoint == "gc-refs-removed",
            "{checkpoint}"
        );
        assert_eq!(collect(&forest, &[reference("kept")]).1, Scope::Changes);
        assert_eq!(collect(&forest, &[]).1, Scope::Changes);
        assert_eq!(objects(forest.repo.path()), [""; 0]);
    }
}

#[test]
fn nothing_goes_while_a_transaction_runs() {
    let forest = two_images();
    forest
        .repo
        .ostree(&["config", "set", "core.lock-timeout-secs", "1"]);
    let other = crate::support::repo::open(forest.repo.path());
    let before = objects(forest.repo.path());
    // The lock counts per thread, as between processes.
    let (begun, wait) = std::sync::mpsc::channel();
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    let path = forest.repo.path().to_owned();
    let transaction = std::thread::spawn(move || {
        let repo = crate::support::repo::open(&path);
        let transaction = repo.auto_transaction(ostree_ext::gio::Cancellable::NONE).unwrap();
        begun.send(()).unwrap();
        finished.recv().unwrap();
        drop(transaction);
    });
    wait.recv().unwrap();
    let error = gc::collect(&other, &[reference("kept")], &[], Scope::Changes).unwrap_err();
    assert!(
        format!("{error:#}").contains("Locking the repository"),
        "{error:#}"
    );
    assert_eq!(objects(forest.repo.path()), before);
    finish.send(()).unwrap();
    transaction.join().unwrap();
    // And the other way round the lock is free again.
    forest
        .handle
        .reload_config(ostree_ext::gio::Cancellable::NONE)
        .unwrap();
    assert_eq!(collect(&forest, &[reference("kept")]).1, Scope::Changes);
    forest.pull("again", &[directories(2, "again")]);
    assert_sound(forest.repo.path());
}
