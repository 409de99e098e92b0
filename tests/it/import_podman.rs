//! The merged tree against podman's: the same layers, unpacked by other people's code.
//!
//! Needs root, for owners and mounts.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::import_tree::import;
use crate::support::home::Home;
use crate::support::image::{Image, OciImage};
use crate::support::layer::{PackedLayer, Packing};
use crate::support::repo::TestRepo;
use crate::support::run;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use tar::{EntryType, Header};
use tempfile::TempDir;

/// Podman with a storage of its own.
struct Podman {
    directory: TempDir,
    home: Home,
}

impl Podman {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            home: Home::new(),
        }
    }

    fn run(&self, args: &[&str]) -> String {
        let path = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        let (root, runroot) = (path("root"), path("run"));
        let storage = [
            "--root",
            &root,
            "--runroot",
            &runroot,
            "--storage-driver",
            "overlay",
        ];
        let all = storage.into_iter().chain(args.iter().copied());
        run("podman", all).trim().to_owned()
    }

    /// Returns what podman makes of the image, after the path rules of an OSTree tree.
    fn tree(&self, image: &OciImage) -> BTreeMap<String, String> {
        let policy = self.home.policy(crate::support::home::ACCEPT_ANYTHING);
        let path = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        let id = "localhost/compared:latest";
        let target = format!(
            "containers-storage:[overlay@{}+{}]{id}",
            path("root"),
            path("run")
        );
        run(
            "skopeo",
            [
                "copy",
                "--quiet",
                "--policy",
                policy.to_str().unwrap(),
                &image.skopeo_name(),
                &target,
            ],
        );
        let mounted = self.run(&["image", "mount", id]);
        let mut found = BTreeMap::new();
        walk(Path::new(&mounted), "", &mut found);
        self.run(&["image", "umount", id]);
        self.run(&["rmi", "--force", id]);
        found
            .into_iter()
            .filter(|(path, _)| {
                let (first, rest) = path.split_once('/').unwrap_or((path, ""));
                !["run", "tmp", "proc", "sys", "dev"].contains(&first) || rest.is_empty()
            })
            .map(|(path, what)| match path.strip_prefix("etc") {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => (format!("usr/etc{rest}"), what),
                _ => (path, what),
            })
            .collect()
    }
}

/// Returns what the import made of the image.
fn our_tree(image: &OciImage) -> BTreeMap<String, String> {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let pulled = import(&home, &repo, image).unwrap();
    repo.assert_sound();
    let checkout = directory.path().join("tree");
    repo.ostree(&["checkout", &pulled.image.commit, checkout.to_str().unwrap()]);
    let mut found = BTreeMap::new();
    walk(&checkout, "", &mut found);
    found
}

/// Describes everything below a directory: kind, mode, owner, content or target, attributes.
fn walk(directory: &Path, below: &str, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        // An overlay shows whiteouts of its lowest directory, which hide nothing, as devices or as names only.
        let Ok(status) = std::fs::symlink_metadata(entry.path()) else {
            continue;
        };
        if status.file_type().is_char_device() {
            continue;
        }
        let content = if status.is_symlink() {
            std::fs::read_link(entry.path())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        } else if status.is_file() {
            crate::support::image::sha256(&std::fs::read(entry.path()).unwrap())
        } else {
            String::new()
        };
        let attributes = attributes(&entry.path());
        found.insert(
            path.clone(),
            format!(
                "{:o} {}:{} {content} {attributes:?}",
                status.mode(),
                status.uid(),
                status.gid()
            ),
        );
        if status.is_dir() {
            walk(&entry.path(), &path, found);
        }
    }
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| std::str::from_utf8(name).unwrap().to_owned())
        .filter(|name| name != "security.selinux" && !name.starts_with("trusted.overlay"))
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name.as_str(), &mut value).unwrap();
            value.truncate(length);
            (name, value)
        })
        .collect()
}

fn assert_same(podman: &Podman, image: &OciImage) {
    let (theirs, ours) = (podman.tree(image), our_tree(image));
    for (path, what) in &theirs {
        assert_eq!(ours.get(path), Some(what), "{path}");
    }
    for path in ours.keys() {
        // The tree has no place for /etc but /usr/etc, so an image without /usr gets one.
        assert!(theirs.contains_key(path) || path == "usr", "{path} is too much");
    }
}

/// A thing that happens in a layer.
#[derive(Clone, Debug)]
enum Act {
    Dir(Vec<String>, u32, u32),
    File(Vec<String>, u32, u32, usize, bool),
    Link(Vec<String>, usize),
    Symlink(Vec<String>, String),
    Whiteout(Vec<String>),
    Opaque(Vec<String>),
}

/// Writes archives the way different tools do.
struct Writer {
    builder: tar::Builder<Vec<u8>>,
    use_pax: bool,
}

impl Writer {
    fn new(use_pax: bool) -> Self {
        Self {
            builder: tar::Builder::new(Vec::new()),
            use_pax,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "these are the fields of a header")]
    fn entry(
        &mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        owner: u32,
        link: &str,
        content: &[u8],
        xattrs: &[(&str, &[u8])],
    ) {
        let mut header = if self.use_pax {
            Header::new_ustar()
        } else {
            Header::new_gnu()
        };
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(u64::from(owner));
        header.set_gid(u64::from(owner) + 1);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        let mut records: Vec<(String, Vec<u8>)> = xattrs
            .iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.to_vec()))
            .collect();
        if self.use_pax {
            if path.len() > 100 {
                records.push(("path".to_owned(), path.as_bytes().to_vec()));
            }
            if link.len() > 100 {
                records.push(("linkpath".to_owned(), link.as_bytes().to_vec()));
            }
        }
        if !records.is_empty() {
            let records = records
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice()));
            self.builder.append_pax_extensions(records).unwrap();
        }
        let cut = |text: &str| text.as_bytes()[..text.len().min(100)].to_vec();
        if self.use_pax {
            header.as_old_mut().name[..path.len().min(100)].copy_from_slice(&cut(path));
            header.as_old_mut().linkname[..link.len().min(100)].copy_from_slice(&cut(link));
            header.set_cksum();
            self.builder.append(&header, content).unwrap();
        } else if link.is_empty() {
            self.builder.append_data(&mut header, path, content).unwrap();
        } else {
            self.builder.append_link(&mut header, path, link).unwrap();
        }
    }

    fn finish(self, packing: Packing) -> PackedLayer {
        PackedLayer::pack(self.builder.into_inner().unwrap(), packing)
    }
}

/// What a layer holds so far, so that only meaningful archives are written.
#[derive(Default)]
struct State {
    directories: BTreeSet<String>,
    /// Path, mode and owner; a hard link's header repeats both.
    files: Vec<(String, u32, u32)>,
    links: BTreeSet<String>,
    removed: BTreeSet<String>,
    opaque: BTreeSet<String>,
}

impl State {
    fn has(&self, path: &str) -> bool {
        self.directories.contains(path) || self.has_other(path)
    }

    fn has_other(&self, path: &str) -> bool {
        self.links.contains(path) || self.files.iter().any(|(known, ..)| known == path)
    }
}

fn write_layer(acts: &[Act], use_pax: bool, packing: Packing) -> PackedLayer {
    let mut writer = Writer::new(use_pax);
    let mut state = State::default();
    writer.entry("./", EntryType::Directory, 0o755, 0, "", b"", &[]);
    for act in acts {
        let (Act::Dir(names, ..)
        | Act::File(names, ..)
        | Act::Link(names, _)
        | Act::Symlink(names, _)
        | Act::Whiteout(names)
        | Act::Opaque(names)) = act;
        let path = names.join("/");
        let is_root_folder = matches!(path.as_str(), "usr" | "etc");
        let is_plain_dir = matches!(act, Act::Dir(..));
        // /etc and /usr stay directories, as in every image there is.
        if is_root_folder && !is_plain_dir {
            continue;
        }
        // Podman takes no archive that names a path twice, or goes through something that is no directory.
        let removed = (1..=names.len()).any(|count| state.removed.contains(&names[..count].join("/")));
        let through = (1..names.len()).any(|count| state.has_other(&names[..count].join("/")));
        let opaque = state.opaque.contains(&path);
        if removed
            || through
            || opaque
            || state.has_other(&path)
            || (!matches!(act, Act::Opaque(_)) && state.has(&path))
        {
            continue;
        }
        for count in 1..names.len() {
            let parent = names[..count].join("/");
            if !state.directories.contains(&parent) {
                writer.entry(
                    &format!("{parent}/"),
                    EntryType::Directory,
                    0o755,
                    0,
                    "",
                    b"",
                    &[],
                );
                state.directories.insert(parent);
            }
        }
        match act {
            Act::Dir(_, mode, owner) => {
                writer.entry(
                    &format!("./{path}/"),
                    EntryType::Directory,
                    *mode,
                    *owner,
                    "",
                    b"",
                    &[],
                );
                state.directories.insert(path);
            }
            Act::File(_, mode, owner, size, has_attributes) => {
                let content: Vec<u8> = (0..*size).map(|index| (index * 7 % 251) as u8).collect();
                let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                let both = [
                    ("user.note", b"a\n\0b".as_slice()),
                    ("security.capability", capability),
                ];
                let attributes = if *has_attributes { &both[..] } else { &[] };
                writer.entry(&path, EntryType::Regular, *mode, *owner, "", &content, attributes);
                state.files.push((path, *mode, *owner));
            }
            Act::Link(_, index) => {
                // What is dropped cannot be linked to from outside, and the other way round.
                let is_dropped = |path: &str| path.starts_with("tmp/");
                let targets = state
                    .files
                    .iter()
                    .filter(|(file, ..)| is_dropped(file) == is_dropped(&path));
                let targets: Vec<_> = targets.cloned().collect();
                let Some((target, mode, owner)) = targets.get(index % targets.len().max(1)) else {
                    continue;
                };
                writer.entry(&path, EntryType::Link, *mode, *owner, target, b"", &[]);
                state.files.push((path, *mode, *owner));
            }
            Act::Symlink(_, target) => {
                writer.entry(&path, EntryType::Symlink, 0o777, 5, target, b"", &[]);
                state.links.insert(path);
            }
            Act::Whiteout(names) => {
                let (name, parent) = names.split_last().unwrap();
                let whiteout = [parent, &[format!(".wh.{name}")]].concat().join("/");
                writer.entry(&whiteout, EntryType::Regular, 0o600, 0, "", b"", &[]);
                state.removed.insert(path);
            }
            Act::Opaque(_) => {
                if !state.directories.contains(&path) {
                    writer.entry(&format!("{path}/"), EntryType::Directory, 0o750, 3, "", b"", &[]);
                    state.directories.insert(path.clone());
                }
                writer.entry(
                    &format!("{path}/.wh..wh..opq"),
                    EntryType::Regular,
                    0o600,
                    0,
                    "",
                    b"",
                    &[],
                );
                state.opaque.insert(path);
            }
        }
    }
    writer.finish(packing)
}

fn path_strategy() -> impl Strategy<Value = Vec<String>> {
    let long = "long-name-".repeat(13);
    let first = prop::sample::select(vec!["a", "b", "etc", "usr", "var", "tmp", "bin"]);
    let rest = prop::sample::select(vec!["a".to_owned(), "b".to_owned(), "ü".to_owned(), long]);
    (first, prop::collection::vec(rest, 0..3)).prop_map(|(first, rest)| {
        let mut names = vec![first.to_owned()];
        names.extend(rest);
        names
    })
}

fn act_strategy() -> impl Strategy<Value = Act> {
    let mode = || prop::sample::select(vec![0o755u32, 0o644, 0o600, 0o4755, 0o2755, 0o1777, 0o000]);
    let owner = || prop::sample::select(vec![0u32, 1000, 65_534]);
    let size = prop::sample::select(vec![0usize, 1, 511, 512, 513, 70_000]);
    let target = prop::sample::select(vec!["a", "../b", "/usr/x", "dangling/../.."]);
    prop_oneof![
        3 => (path_strategy(), mode(), owner()).prop_map(|(path, mode, owner)| Act::Dir(path, mode, owner)),
        6 => (path_strategy(), mode(), owner(), size, any::<bool>())
            .prop_map(|(path, mode, owner, size, xattrs)| Act::File(path, mode, owner, size, xattrs)),
        2 => (path_strategy(), 0usize..8).prop_map(|(path, index)| Act::Link(path, index)),
        2 => (path_strategy(), target).prop_map(|(path, target)| Act::Symlink(path, target.to_owned())),
        3 => path_strategy().prop_map(Act::Whiteout),
        2 => path_strategy().prop_map(Act::Opaque),
    ]
}

#[test]
fn random_layers_merge_as_podman_merges_them_as_root() {
    let podman = Podman::new();
    let packing = prop::sample::select(vec![Packing::None, Packing::Gzip, Packing::Zstd]);
    let layer = (
        prop::collection::vec(act_strategy(), 0..14),
        any::<bool>(),
        packing,
    );
    let layers = prop::collection::vec(layer, 1..6);
    let config = Config {
        cases: 12,
        max_shrink_iters: 30,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&layers, |layers| {
            let directory = tempfile::tempdir().unwrap();
            let mut image = Image::new();
            for (acts, use_pax, packing) in &layers {
                image = image.packed_layer(write_layer(acts, *use_pax, *packing), None);
            }
            assert_same(&podman, &image.write(directory.path(), "latest"));
            Ok(())
        })
        .unwrap();
}

fn names(path: &str) -> Vec<String> {
    path.split('/').map(str::to_owned).collect()
}

fn file(path: &str, size: usize) -> Act {
    Act::File(names(path), 0o644, 0, size, false)
}

#[test]
fn every_kind_of_change_merges_as_podman_merges_it_as_root() {
    let podman = Podman::new();
    let directory = tempfile::tempdir().unwrap();
    let long = "n".repeat(200);
    let stack: Vec<Vec<Act>> = vec![
        vec![
            Act::Dir(names("usr"), 0o755, 0),
            file("etc/passwd", 20),
            file("usr/lib/a", 5_000_000),
            file("usr/lib/deep/er/x", 0),
            Act::Link(names("usr/share/linked"), 1),
            Act::File(names("usr/bin/su"), 0o4755, 0, 600, true),
            Act::Dir(names("var/tmp"), 0o1777, 0),
            file(&format!("usr/{long}/{long}"), 10),
            Act::Symlink(names("bin"), "usr/bin".to_owned()),
            file("tmp/gone", 3),
        ],
        vec![
            file("usr/lib/deep", 3),
            Act::Whiteout(names("etc/passwd")),
            Act::Dir(names("usr/share"), 0o700, 7),
        ],
        vec![
            file("usr/lib/deep/again", 3),
            Act::Opaque(names("usr/share")),
            file("usr/share/new", 1),
        ],
        vec![],
        vec![
            file("bin/now-a-directory", 1),
            Act::Whiteout(names("usr/lib/a")),
            file("etc/shadow", 1),
        ],
    ];
    let mut image = Image::new();
    for (index, acts) in stack.iter().enumerate() {
        image = image.packed_layer(write_layer(acts, index % 2 == 0, Packing::Gzip), None);
    }
    // Many layers, each with a file of its own and one it takes from the layer below.
    for index in 0..95 {
        let acts = [
            file(&format!("usr/many/f{index}"), index),
            Act::Whiteout(names(&format!("usr/many/f{}", index.wrapping_sub(2)))),
        ];
        image = image.packed_layer(write_layer(&acts, index % 2 == 0, Packing::None), None);
    }
    assert_same(&podman, &image.write(directory.path(), "latest"));
}
