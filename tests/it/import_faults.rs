//! Images that must not be imported: each is refused by a fault that names the layer and the path, and leaves nothing.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::import_tree::import;
use crate::support::home::Home;
use crate::support::image::{Damage, Image};
use crate::support::layer::{Layer, PackedLayer, Packing};
use crate::support::repo::TestRepo;
use crate::support::run;
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::image::pull::{PullOptions, pull};
use apt_ostree::report::Silent;
use tar::EntryType;

fn good() -> Image {
    Image::bootable("1")
}

/// Imports the image, expects that fault, and that a good image goes in afterwards.
fn refused(image: &Image, kind: Kind, words: &[&str]) {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let image = image.write(&directory.path().join("bad"), "latest");
    let error = import(&home, &repo, &image).expect_err("a bad image");
    let fault = Fault::find(&error).unwrap_or_else(|| panic!("no fault: {error:#}"));
    assert_eq!(fault.kind, kind, "{fault}");
    for word in words {
        assert!(fault.message.contains(word), "`{word}` is missing: {fault}");
    }
    assert!(repo.refs().is_empty(), "{:?}", repo.refs());
    repo.assert_sound();
    let image = good().write(&directory.path().join("good"), "latest");
    import(&home, &repo, &image).expect("a good image");
    repo.assert_sound();
    let left = std::fs::read_dir(repo.path().join("tmp")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with("apt-ostree")),
        "{left:?}"
    );
}

/// Expects a refusal that names the layer and the words.
fn refused_layer(layer: Layer, kind: Kind, words: &[&str]) {
    let layer = layer.finish();
    let digest = crate::support::image::sha256(&layer.data);
    let words: Vec<&str> = words.iter().copied().chain([digest.as_str()]).collect();
    refused(&good().packed_layer(layer, None), kind, &words);
}

#[test]
fn escapes() {
    let file = |name: &[u8]| Layer::new().entry(name, EntryType::Regular, 0o644, b"", b"x");
    refused_layer(
        file(b"usr/../../etc/shadow"),
        Kind::Invalid,
        &["usr/../../etc/shadow", "`..`"],
    );
    refused_layer(file(b"/../x"), Kind::Invalid, &["/../x"]);
    refused_layer(file(b"usr/\xff\xfe"), Kind::Invalid, &["not UTF-8"]);
    refused_layer(file(b"usr/.wh."), Kind::Invalid, &["names nothing"]);
}

#[test]
fn bad_links() {
    let link = |target: &str| {
        Layer::new()
            .file("usr/a", 0o644, "a")
            .hardlink("usr/link", target)
    };
    refused_layer(
        link("usr/missing"),
        Kind::Invalid,
        &["usr/link", "usr/missing", "no file of the same layer"],
    );
    refused_layer(
        link("../outside"),
        Kind::Invalid,
        &["usr/link", "../outside", "outside the image"],
    );
    refused_layer(link("tmp/dropped"), Kind::Invalid, &["usr/link", "tmp/dropped"]);
    let through = Layer::new()
        .symlink("usr/l", "/etc")
        .file("usr/l/passwd", 0o644, "x");
    refused_layer(through, Kind::Invalid, &["usr/l/passwd", "no directory"]);
}

#[test]
fn kinds_a_tree_cannot_hold() {
    refused_layer(
        Layer::new().device("usr/null"),
        Kind::Unsupported,
        &["usr/null", "device node"],
    );
    refused_layer(
        Layer::new().fifo("var/pipe"),
        Kind::Unsupported,
        &["var/pipe", "named pipe"],
    );
    let sparse = Layer::new().entry(b"usr/sparse", EntryType::GNUSparse, 0o644, b"", b"");
    refused_layer(sparse, Kind::Unsupported, &["usr/sparse", "sparse"]);
}

#[test]
fn dropped_folders_may_hold_anything() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let layer = Layer::new()
        .dir("dev", 0o755)
        .device("dev/null")
        .fifo("run/initctl")
        .file("tmp/x", 0o644, "x");
    let image = good().layer(layer).write(directory.path(), "latest");
    let commit = import(&home, &repo, &image).unwrap().image.commit;
    assert_eq!(repo.ostree(&["ls", &commit, "/dev"]).lines().count(), 1);
}

#[test]
fn etc_in_both_places() {
    let layer = || Layer::new().file("usr/etc/x", 0o644, "x");
    refused(
        &Image::new()
            .layer(Layer::new().file("etc/y", 0o644, "y"))
            .layer(layer()),
        Kind::Invalid,
        &["both /etc and /usr/etc"],
    );
}

#[test]
fn damaged_layers() {
    for (damage, packing) in [
        (Damage::WrongDigest, Packing::None),
        (Damage::WrongDigest, Packing::Gzip),
        (Damage::WrongSize(5), Packing::Gzip),
        (Damage::WrongSize(-5), Packing::Zstd),
        (Damage::Truncated, Packing::Zstd),
        (Damage::TruncatedInside, Packing::None),
        (Damage::TruncatedInside, Packing::Gzip),
        (Damage::TruncatedInside, Packing::Zstd),
    ] {
        let layer = Layer::new().packed(packing).noise("usr/noise", 300_000);
        refused(&good().damaged_layer(layer, damage), Kind::Invalid, &["sha256:"]);
    }
    let mut layer = Layer::new().file("usr/x", 0o644, "x").finish();
    layer.diff_id = crate::support::image::sha256(b"another archive");
    refused(
        &good().packed_layer(layer, None),
        Kind::Invalid,
        &["the image promises"],
    );
    let noise = PackedLayer::pack(vec![b'n'; 5000], Packing::Gzip);
    refused(
        &good().packed_layer(noise, None),
        Kind::Invalid,
        &["not a readable archive"],
    );
}

#[test]
fn images_for_something_else() {
    refused(&good().architecture("s390x"), Kind::Unsupported, &["s390x"]);
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let options = PullOptions {
        require_bootable: true,
        require_kernel: true,
        source: home.options(),
        ..PullOptions::default()
    };
    let plain = Layer::new().file("usr/x", 0o644, "x");
    let unlabelled = Image::new()
        .layer(plain)
        .write(&directory.path().join("plain"), "latest");
    let two = Layer::new().file("usr/lib/modules/9.9.9/vmlinuz", 0o644, "kernel");
    let two_kernels = good().layer(two).write(&directory.path().join("two"), "latest");
    let none = Image::new()
        .label("containers.bootc", "1")
        .layer(Layer::new().file("usr/x", 0o644, "x"));
    let no_kernel = none.write(&directory.path().join("none"), "latest");
    for (image, words) in [
        (&unlabelled, "bootable"),
        (&two_kernels, "2 kernels"),
        (&no_kernel, "no kernel"),
    ] {
        let reference = image.reference().parse().unwrap();
        let error = pull(&repo.open(), &reference, &options, &Silent).unwrap_err();
        let fault = Fault::find(&error).expect("a fault");
        assert!(
            fault.kind == Kind::Unsupported && fault.message.contains(words),
            "{fault}"
        );
        assert!(repo.refs().is_empty());
    }
}

/// A small file system for a repository.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        run(
            "mount",
            ["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", path],
        );
        let repo = format!("--repo={path}/repo");
        run("ostree", [repo.as_str(), "init", "--mode=bare"]);
        Self(directory)
    }

    fn repo(&self) -> ostree_ext::ostree::Repo {
        crate::support::repo::open(&self.0.path().join("repo"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", [self.0.path().to_str().unwrap()]);
    }
}

#[test]
fn a_layer_without_end_is_bounded_by_free_space_as_root() {
    let (home, disk, directory) = (Home::new(), SmallDisk::new("48m"), tempfile::tempdir().unwrap());
    let options = PullOptions {
        source: home.options(),
        ..PullOptions::default()
    };
    let mut many = Layer::new();
    for index in 0..80 {
        many = many.file(&format!("usr/f{index}"), 0o644, vec![index; 1024 * 1024]);
    }
    let large = good().packed_layer(PackedLayer::bomb("usr/zeros", 200 * 1024 * 1024), None);
    for (name, image) in [("one", large), ("many", good().layer(many))] {
        let image = image.write(&directory.path().join(name), "latest");
        let error = pull(
            &disk.repo(),
            &image.reference().parse().unwrap(),
            &options,
            &Silent,
        )
        .unwrap_err();
        let fault = Fault::find(&error).unwrap_or_else(|| panic!("{error:#}"));
        assert_eq!(fault.kind, Kind::NoSpace, "{fault}");
        let path = disk.0.path().join("repo");
        assert!(crate::support::repo::refs(&path).is_empty());
        crate::support::repo::assert_sound(&path);
        // What was staged is gone, so that the full disk is not left full.
        assert_eq!(
            std::fs::read_dir(path.join("tmp"))
                .unwrap()
                .filter(|entry| {
                    entry
                        .as_ref()
                        .unwrap()
                        .file_name()
                        .to_string_lossy()
                        .starts_with("apt-ostree")
                })
                .count(),
            0
        );
    }
    let image = good().write(&directory.path().join("good"), "latest");
    pull(
        &disk.repo(),
        &image.reference().parse().unwrap(),
        &options,
        &Silent,
    )
    .unwrap();
}
