//! Partial pulls: what crosses the network of a zstd:chunked layer, and that the result is that of a full pull.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::chunked::Chunked;
use crate::support::home::Home;
use crate::support::image::Image;
use crate::support::layer::{self, Layer, PackedLayer};
use crate::support::registry::Registry;
use crate::support::repo::TestRepo;
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::image::pull::{PullOptions, Pulled, pull};
use apt_ostree::report::Silent;

use serde_json::json;
use std::path::PathBuf;
use tempfile::TempDir;

/// Bytes of the file of which a piece changes.
const BIG: usize = 1 << 20;

/// A repository, and images for it.
struct Place {
    home: Home,
    registry: Registry,
    repo: TestRepo,
    directory: TempDir,
    first: Option<Pulled>,
}

impl Place {
    fn new() -> Self {
        let (home, registry) = (Home::new(), Registry::start());
        home.insecure(&[&registry.location()]);
        Self {
            home,
            registry,
            repo: repo(),
            directory: tempfile::tempdir().unwrap(),
            first: None,
        }
    }

    /// Returns a place that holds the image with the first contents.
    fn with_first() -> Self {
        let mut place = Self::new();
        let layer = Chunked::new(&first().tar()).finish();
        place.first = Some(place.pull("first", layer).unwrap());
        place
    }

    fn pull(&self, name: &str, layer: PackedLayer) -> anyhow::Result<Pulled> {
        self.pull_into(&self.repo, name, layer, false)
    }

    fn pull_into(
        &self,
        repo: &TestRepo,
        name: &str,
        layer: PackedLayer,
        whole_layers: bool,
    ) -> anyhow::Result<Pulled> {
        let path: PathBuf = self.directory.path().join(name);
        let image = Image::bootable("1")
            .packed_layer(layer, None)
            .write(&path, "latest");
        let options = PullOptions {
            source: self.home.options(),
            whole_layers,
            ..PullOptions::default()
        };
        self.registry.adopt(&image, name);
        let reference = self.registry.reference(&format!("{name}:latest"));
        pull(&repo.open(), &reference.parse()?, &options, &Silent)
    }

    /// Pulls an image that has to be fetched in part, and compares it with a full pull.
    fn pull_part(&self, name: &str, layer: impl Fn() -> PackedLayer) -> Pulled {
        let part = self.pull(name, layer()).unwrap();
        assert!(
            part.bytes_fetched < part.bytes_of_layers,
            "{} of {}",
            part.bytes_fetched,
            part.bytes_of_layers
        );
        self.assert_equal(name, layer(), &part);
        part
    }

    fn assert_equal(&self, name: &str, layer: PackedLayer, pulled: &Pulled) {
        let other = repo();
        let whole = self.pull_into(&other, name, layer, true).unwrap();
        assert_eq!(whole.image.commit, pulled.image.commit);
        let mine = self.repo.refs();
        // Which merges are kept depends on what was there before.
        let refs = other.refs().into_iter();
        for (name, commit) in refs.filter(|(name, _)| !name.starts_with("apt-ostree/merged")) {
            assert_eq!(mine[&name], commit, "{name}");
        }
        self.repo.assert_sound();
    }

    /// Asserts that an image is refused, and that nothing of it is under a ref.
    fn assert_refused(&self, layer: PackedLayer, reason: &str) {
        let before = self.repo.refs();
        let error = self.pull("second", layer).unwrap_err();
        let fault = Fault::find(&error).unwrap_or_else(|| panic!("{error:#}"));
        assert_eq!(fault.kind, Kind::Invalid, "{error:#}");
        assert!(fault.message.contains(reason), "{}", fault.message);
        assert_eq!(self.repo.refs(), before);
        self.repo.assert_sound();
    }

    /// Asserts that an image is fetched whole; its layer has to be one that is not here yet.
    fn assert_whole(&self, name: &str, layer: impl Fn(&str) -> PackedLayer) {
        let pulled = self.pull(name, layer(name)).unwrap();
        assert_eq!(pulled.layers_fetched, 1, "{name}");
        assert!(pulled.bytes_fetched >= pulled.bytes_of_layers, "{name}");
        self.repo.assert_sound();
    }
}

/// Returns a repository that leaves it to the kernel when data reaches the disk; the results are of interest here.
fn repo() -> TestRepo {
    let repo = TestRepo::new();
    repo.ostree(&["config", "set", "core.fsync", "false"]);
    repo
}

/// Bytes that do not compress; equal seeds make equal bytes.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    layer::noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, size)
}

fn common(layer: Layer) -> Layer {
    let mut holes = noise(7, 100_000);
    holes.extend(vec![0; 300_000]);
    holes.extend(noise(8, 50_000));
    let layer = layer
        .dir("usr/lib", 0o755)
        .file("usr/lib/holes", 0o644, holes)
        .file("usr/lib/zeros", 0o600, vec![0; 200_000])
        .file("usr/lib/empty", 0o644, "")
        .symlink("usr/lib/link", "holes")
        .hardlink("usr/lib/hard", "usr/lib/holes");
    (0..40).fold(layer, |layer, number| {
        layer.file(
            &format!("usr/share/kept{number}"),
            0o644,
            noise(100 + number, 10_000),
        )
    })
}

fn first() -> Layer {
    common(Layer::new())
        .file("usr/lib/big", 0o644, noise(1, BIG))
        .file("usr/lib/moved", 0o755, noise(2, 200_000))
        .file("usr/lib/gone", 0o644, noise(3, 100_000))
        .file_with_xattrs("usr/lib/capable", &noise(4, 50_000), &[("user.test", b"1")])
        .file("etc/conf", 0o644, "first")
}

fn second() -> Layer {
    let mut big = noise(1, BIG);
    big.splice(500_000..500_010, *b"other bytes, and some more");
    common(Layer::new())
        .file("usr/lib/big", 0o644, big)
        .file("usr/lib/added", 0o644, noise(5, 30_000))
        .file("opt/moved/here", 0o4755, noise(2, 200_000))
        .file_with_xattrs("usr/lib/capable", &noise(4, 50_000), &[("user.test", b"2")])
        .file("etc/conf", 0o644, "second")
        .file(&format!("usr/share/{}", "n".repeat(150)), 0o644, noise(6, 2000))
}

#[test]
fn an_update_moves_what_changed_and_equals_a_full_pull() {
    let place = Place::with_first();
    let pulled = place.pull_part("second", || Chunked::new(&second().tar()).finish());
    assert!(
        pulled.bytes_fetched < pulled.bytes_of_layers / 10,
        "{} of {}",
        pulled.bytes_fetched,
        pulled.bytes_of_layers
    );
    // The rebuilt layer has an index as well.
    let third = || Chunked::new(&second().file("usr/lib/third", 0o644, "3").tar()).finish();
    place.pull_part("third", third);
}

/// Returns the second contents with a table that was changed.
fn changed(change: impl Fn(&mut Chunked)) -> PackedLayer {
    let mut chunked = Chunked::new(&second().tar());
    change(&mut chunked);
    chunked.finish()
}

/// Returns the second contents with one file of its own, and a table that was changed.
fn variant(content: &str, change: impl Fn(&mut Chunked)) -> PackedLayer {
    let mut chunked = Chunked::new(&second().file("usr/lib/variant", 0o644, content).tar());
    change(&mut chunked);
    chunked.finish()
}

/// Returns an entry of a table as a number.
fn number(chunked: &mut Chunked, name: &str, key: &str) -> u64 {
    chunked.listed(name)[key].as_u64().unwrap()
}

#[test]
fn tables_that_contradict_the_image_are_refused() {
    let place = Place::with_first();
    let refused = |reason: &str, change: &dyn Fn(&mut Chunked)| place.assert_refused(changed(change), reason);
    refused("`usr/lib/added` overlaps", &|table| {
        let offset = number(table, "usr/lib/big", "offset");
        table.listed("usr/lib/added")["offset"] = json!(offset);
    });
    refused("a piece of `usr/lib/big` overlaps", &|table| {
        let offset = number(table, "usr/lib/big", "offset");
        let entries = table.toc["entries"].as_array_mut().unwrap();
        let chunk = entries
            .iter_mut()
            .find(|entry| entry["type"] == "chunk" && entry["name"] == "usr/lib/big");
        chunk.unwrap()["offset"] = json!(offset);
    });
    refused("lies outside of the contents", &|table| {
        let last = format!("usr/share/{}", "n".repeat(150));
        table.listed(&last)["endOffset"] = json!(1u64 << 40);
    });
    refused("`etc/conf` has 7 bytes, and 6 in the archive", &|table| {
        table.listed("etc/conf")["size"] = json!(7);
    });
    refused("do not add up to its size", &|table| {
        table.listed("usr/lib/big")["size"] = json!(BIG + 100);
    });
    refused("does not begin where the one before ends", &|table| {
        table.listed("usr/lib/big")["chunkSize"] = json!(1);
    });
    refused("is larger than what is left of the file", &|table| {
        table.listed("usr/lib/big")["chunkSize"] = json!(u64::MAX);
    });
    refused("cannot be read", &|table| {
        table.listed("usr/lib/added")["size"] = json!(-1)
    });
    refused("no known type", &|table| {
        table.listed("usr/lib/added")["type"] = json!("socket")
    });
    refused("no digest that is one", &|table| {
        table.listed("usr/lib/added")["digest"] = json!("sha256:../../../etc/shadow");
    });
    refused("a text in it is too long", &|table| {
        table.listed("usr/lib/added")["linkName"] = json!("a".repeat(1 << 20));
    });
    refused("files that the archive does not have", &|table| {
        let extra =
            json!({ "type": "reg", "name": "more", "size": 3, "digest": format!("sha256:{:064}", 0) });
        let end = number(table, &format!("usr/share/{}", "n".repeat(150)), "endOffset");
        let entries = table.toc["entries"].as_array_mut().unwrap();
        entries.push(extra);
        let last = entries.last_mut().unwrap();
        (last["offset"], last["endOffset"]) = (json!(end), json!(end + 10));
    });
    // The contents are here, and the table gives them each other's digest.
    refused("with contents as it lists them the archive is", &|table| {
        let digest = table.listed("usr/share/kept1")["digest"].clone();
        table.listed("usr/share/kept0")["digest"] = digest;
    });
    refused("its tar-split cannot be read", &|table| {
        table.split[2]["payload"] = json!("A".repeat(5 << 20));
    });
    refused("its tar-split cannot be read", &|table| {
        table.split[2]["type"] = json!(3)
    });
}

#[test]
fn entries_that_lead_out_are_refused_as_of_a_whole_layer() {
    let place = Place::with_first();
    let layer = second().file("usr/../../etc/shadow", 0o644, "x");
    place.assert_refused(Chunked::new(&layer.tar()).finish(), "leads out of the image");
}

#[test]
fn what_cannot_be_used_means_a_whole_layer() {
    let place = Place::with_first();
    let key = |name: &str| format!("io.github.containers.zstd-chunked.{name}");
    let annotated = |name: &'static str, value: Option<&'static str>| {
        move |content: &str| {
            let mut layer = variant(content, |_| {});
            match value {
                Some(value) => layer.annotations.insert(key(name), value.to_owned()),
                None => layer.annotations.remove(&key(name)),
            };
            layer
        }
    };
    for (number, make) in [
        annotated("manifest-checksum", None),
        annotated("tarsplit-position", None),
        annotated("manifest-position", Some("100:200:300:2")),
        annotated("manifest-position", Some("100:18446744073709551615:300:1")),
        annotated("manifest-position", Some("9000000000:200:300:1")),
        annotated("manifest-position", Some("100:200:300:1")),
        annotated("manifest-position", Some("100:200:9000000000:1")),
    ]
    .into_iter()
    .enumerate()
    {
        place.assert_whole(&format!("annotation{number}"), make);
    }
    place.assert_whole("table1", |content| {
        variant(content, |table| table.toc["version"] = json!(2))
    });
    place.assert_whole("table2", |content| {
        variant(content, |table| table.toc["tarSplitDigest"] = json!(""))
    });
    place.assert_whole("table3", |content| {
        variant(content, |table| {
            let entry = table.listed("etc/conf");
            entry["name"] = json!("../../etc/conf");
        })
    });
    // What is fetched has another digest: that may be a mirror's fault.
    place.assert_whole("table4", |content| {
        variant(content, |table| {
            table.listed("etc/conf")["digest"] = json!(format!("sha256:{:064}", 0));
        })
    });
}

impl Place {
    /// Returns the file of the object at a path of the first image.
    fn object(&self, path: &str) -> PathBuf {
        let listed = self.repo.ostree(&[
            "ls",
            "-C",
            &self.first.as_ref().unwrap().image.commit,
            &format!("/{path}"),
        ]);
        let checksum = listed.split_whitespace().nth(4).unwrap();
        let (folder, name) = checksum.split_at(2);
        let objects = self.repo.path().join("objects");
        objects.join(folder).join(format!("{name}.file"))
    }
}

#[test]
fn a_missing_object_is_fetched() {
    let place = Place::with_first();
    // In the second image the same content has other permissions, and so another object.
    std::fs::remove_file(place.object("usr/lib/moved")).unwrap();
    let pulled = place.pull("second", changed(|_| {})).unwrap();
    assert!((200_000..1_000_000).contains(&pulled.bytes_fetched), "{pulled:?}");
}

#[test]
fn a_damaged_object_means_a_whole_layer() {
    for content in [noise(99, 200_000), noise(2, 199_999)] {
        let place = Place::with_first();
        let object = place.object("usr/lib/moved");
        std::fs::write(&object, content).unwrap();
        let pulled = place.pull("second", changed(|_| {})).unwrap();
        assert!(pulled.bytes_fetched > pulled.bytes_of_layers, "{pulled:?}");
        // Nothing of the damage is in the new layer.
        std::fs::write(&object, noise(2, 200_000)).unwrap();
        place.repo.assert_sound();
    }
}

#[test]
fn an_index_that_a_liar_wrote_harms_nobody() {
    let place = Place::new();
    let mut liar = Chunked::new(&first().tar());
    let digest = |liar: &mut Chunked, name: &str| liar.listed(name)["digest"].clone();
    let (one, two) = (
        digest(&mut liar, "usr/share/kept0"),
        digest(&mut liar, "usr/share/kept1"),
    );
    liar.listed("usr/share/kept0")["digest"] = two;
    liar.listed("usr/share/kept1")["digest"] = one;
    // Nothing looks into the table while the layer is fetched whole.
    place.pull("first", liar.finish()).unwrap();
    place.assert_whole("honest", |content| variant(content, |_| {}));
}
