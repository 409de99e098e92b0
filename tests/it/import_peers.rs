//! Imports against what other programs write and make: zstd:chunked layers of skopeo, trees of `ostree commit`.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::import_tree::import;
use crate::support::home::Home;
use crate::support::image::{Image, OciImage, blob_path};
use crate::support::layer::{Layer, Packing};
use crate::support::registry::Registry;
use crate::support::repo::TestRepo;
use crate::support::run;
use apt_ostree::image::pull::{PullOptions, pull};
use apt_ostree::report::Silent;
use std::path::Path;

/// Layers with what makes merges differ: replaced files, whiteouts, opaque directories, links, large files.
fn layers(packing: Packing) -> [Layer; 3] {
    let first = Layer::new()
        .dir("opt", 0o755)
        .dir("opt/kept", 0o700)
        .file("opt/kept/a", 0o640, "a")
        .file("opt/kept/gone", 0o640, "gone")
        .dir("opt/emptied", 0o755)
        .file("opt/emptied/old", 0o644, "old")
        .file("usr/bin/setuid", 0o4755, "s")
        .noise("usr/lib/large", 3 << 20)
        .hardlink("usr/lib/linked", "usr/lib/large");
    let second = Layer::new()
        .file("opt/kept/a", 0o600, "changed")
        .whiteout("opt/kept/gone")
        .opaque("opt/emptied")
        .file("opt/emptied/new", 0o644, "new")
        .symlink("opt/link", "kept/a");
    let third =
        Layer::new()
            .file("etc/fresh", 0o644, "fresh")
            .file("usr/share/zeros", 0o644, vec![0; 1 << 20]);
    [first, second, third].map(|layer| layer.packed(packing))
}

fn image(directory: &Path, packing: Packing) -> OciImage {
    let base = Image::bootable("1");
    layers(packing)
        .into_iter()
        .fold(base, Image::layer)
        .write(directory, "latest")
}

fn root_checksum(repo: &TestRepo, commit: &str) -> String {
    repo.ostree(&["ls", "-dC", commit, "/"])
}

#[test]
fn zstd_chunked_layers_import_as_plain_ones_do() {
    let (home, directory, registry) = (Home::new(), tempfile::tempdir().unwrap(), Registry::start());
    home.insecure(&[&registry.location()]);
    let plain = image(directory.path(), Packing::None);
    let options = [
        "--dest-compress-format",
        "zstd:chunked",
        "--dest-force-compress-format",
    ];
    // skopeo before 1.13 has no option to force a format, and needs none for plain layers.
    let has_force = run("skopeo", ["copy", "--help"]).contains("--dest-force-compress-format");
    plain.push(
        &home,
        &registry.name("os:chunked"),
        if has_force { &options } else { &options[..2] },
    );

    let repo = TestRepo::new();
    let reference = registry.reference("os:chunked").parse().unwrap();
    let options = PullOptions {
        source: home.options(),
        ..PullOptions::default()
    };
    let chunked = pull(&repo.open(), &reference, &options, &Silent).unwrap();
    // skopeo of Debian 12 says io.containers, later ones io.github.containers.
    let annotation = "containers.zstd-chunked.manifest-checksum";
    let written = chunked.image.manifest.layers().iter().filter(|layer| {
        layer
            .annotations()
            .as_ref()
            .is_some_and(|annotations| annotations.keys().any(|key| key.ends_with(annotation)))
    });
    assert!(
        written.count() > 0,
        "the registry holds no zstd:chunked layer: {:?}",
        chunked.image.manifest
    );

    let other = TestRepo::new();
    let direct = import(&home, &other, &plain).unwrap();
    assert_eq!(
        root_checksum(&repo, &chunked.image.commit),
        root_checksum(&other, &direct.image.commit)
    );
    repo.assert_sound();
}

#[test]
fn the_tree_is_that_of_ostree_commit_and_checkout() {
    let (home, directory, repo) = (Home::new(), tempfile::tempdir().unwrap(), TestRepo::new());
    let image = image(directory.path(), Packing::None);
    let ours = import(&home, &repo, &image).unwrap();

    // What bootc's route does with a plain image: one commit a layer, a union checkout, one more commit.
    let other = TestRepo::new();
    let merged = tempfile::tempdir_in(other.path()).unwrap();
    let root = merged.path().join("root");
    for (number, layer) in ours.image.manifest.layers().iter().enumerate() {
        let blob = blob_path(directory.path(), layer.digest().as_ref());
        // libarchive tells a gzip layer by its file name's ending only when asked; it reads both kinds from a file.
        let tar = merged.path().join(format!("{number}.tar"));
        let bytes = std::fs::read(blob).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut plain)
                .unwrap();
            std::fs::write(&tar, plain).unwrap();
        } else {
            std::fs::write(&tar, bytes).unwrap();
        }
        let tree = format!("--tree=tar={}", tar.display());
        let branch = format!("--branch=layer{number}");
        let filter = "--tar-pathname-filter=^etc,usr/etc";
        other.ostree(&[
            "commit",
            &branch,
            &tree,
            "--tar-autocreate-parents",
            filter,
            "--no-bindings",
        ]);
        let name = format!("layer{number}");
        other.ostree(&[
            "checkout",
            "--union",
            "--whiteouts",
            "-H",
            &name,
            root.to_str().unwrap(),
        ]);
    }
    let tree = format!("--tree=dir={}", root.display());
    let commit = other.ostree(&["commit", "--branch=merged", &tree, "--no-bindings"]);
    assert_eq!(
        root_checksum(&repo, &ours.image.commit),
        root_checksum(&other, commit.trim())
    );
}
