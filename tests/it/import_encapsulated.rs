//! Images that ostree-ext made from a commit, in chunks, and images built on those.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::import_tree::import;
use crate::support::home::Home;
use crate::support::image::{Image, OciImage, blob_path, sha256};
use crate::support::layer::{Layer, PackedLayer};
use crate::support::repo::TestRepo;
use ostree_ext::chunking::ObjectMetaSized;
use ostree_ext::container::{Config, ExportOpts, ImageReference, Transport, encapsulate};
use ostree_ext::objectsource::{ObjectMeta, ObjectSourceMeta};
use serde_json::{Value, json};
use std::path::Path;
use std::rc::Rc;

/// Imports an ordinary image and has ostree-ext encapsulate its commit in several chunks; returns the commit.
fn encapsulated(home: &Home, repo: &TestRepo, directory: &Path) -> (String, OciImage) {
    let many = (0..12).fold(Layer::new(), |layer, index| {
        layer.noise(&format!("usr/f{index}"), 20_000)
    });
    let special = Layer::new()
        .file_with_xattrs(
            "usr/bin/tool",
            b"tool",
            &[("user.note", b"x"), ("user.other", b"y"), ("user.empty", b"")],
        )
        .symlink("usr/link", "bin/tool")
        .file("usr/bin/setuid", 0o4755, "s");
    let image = Image::bootable("3")
        .layer(many)
        .layer(special)
        .write(&directory.join("plain"), "latest");
    let commit = import(home, repo, &image).unwrap().image.commit;
    repo.assert_sound();
    repo.ostree(&["refs", "--create=os", &commit]);
    let handle = repo.open();
    let mut meta = ObjectMeta::default();
    for name in ["even", "odd"] {
        let name: Rc<str> = name.into();
        meta.set.insert(ObjectSourceMeta {
            identifier: Rc::clone(&name),
            name: Rc::clone(&name),
            srcid: name,
            change_time_offset: 1,
            change_frequency: 1,
        });
    }
    // ostree-ext wants to know of every file to which component it belongs.
    for (index, line) in repo.ostree(&["ls", "-RC", &commit, "/"]).lines().enumerate() {
        let checksum = line.split_whitespace().nth(4).unwrap();
        if !line.starts_with('d') {
            let name = if index % 2 == 0 { "even" } else { "odd" };
            meta.map.insert(checksum.to_owned(), name.into());
        }
    }
    let sized = ObjectMetaSized::compute_sizes(&handle, meta).unwrap();
    let target = directory.join("chunked");
    let reference = ImageReference {
        transport: Transport::OciDir,
        name: format!("{}:latest", target.display()),
    };
    let mut options = ExportOpts::default();
    options.contentmeta = Some(&sized);
    let config = Config {
        labels: Some([("containers.bootc".to_owned(), "1".to_owned())].into()),
        cmd: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(encapsulate(&handle, "os", &config, Some(options), &reference))
        .unwrap();
    (commit, written(&target))
}

fn written(path: &Path) -> OciImage {
    let index: Value = serde_json::from_slice(&std::fs::read(path.join("index.json")).unwrap()).unwrap();
    OciImage {
        path: path.to_owned(),
        tag: "latest".to_owned(),
        manifest_digest: index["manifests"][0]["digest"].as_str().unwrap().to_owned(),
    }
}

/// Adds a layer to an image in an OCI directory, as a build on top of it does.
fn derive(path: &Path, layer: &PackedLayer) -> OciImage {
    let read = |digest: &Value| -> Value {
        serde_json::from_slice(&std::fs::read(blob_path(path, digest.as_str().unwrap())).unwrap()).unwrap()
    };
    let blob = |data: &[u8]| {
        let digest = sha256(data);
        crate::support::write(blob_path(path, &digest), data);
        (digest, data.len())
    };
    let index_path = path.join("index.json");
    let mut index: Value = serde_json::from_slice(&std::fs::read(&index_path).unwrap()).unwrap();
    let mut manifest = read(&index["manifests"][0]["digest"]);
    let mut config = read(&manifest["config"]["digest"]);
    config["rootfs"]["diff_ids"]
        .as_array_mut()
        .unwrap()
        .push(json!(layer.diff_id));
    let (digest, size) = blob(&layer.data);
    let descriptor = json!({ "mediaType": layer.packing.media_type(), "digest": digest, "size": size });
    manifest["layers"].as_array_mut().unwrap().push(descriptor);
    let (digest, size) = blob(&serde_json::to_vec(&config).unwrap());
    manifest["config"]["digest"] = json!(digest);
    manifest["config"]["size"] = json!(size);
    let (digest, size) = blob(&serde_json::to_vec(&manifest).unwrap());
    index["manifests"][0]["digest"] = json!(digest);
    index["manifests"][0]["size"] = json!(size);
    std::fs::write(&index_path, serde_json::to_vec(&index).unwrap()).unwrap();
    written(path)
}

fn tree(repo: &TestRepo, commit: &str) -> String {
    repo.ostree(&["ls", "-RXC", commit])
}

#[test]
fn an_encapsulated_commit_comes_back_whole() {
    let (home, origin, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let (commit, image) = encapsulated(&home, &origin, directory.path());
    let repo = TestRepo::new();
    let pulled = import(&home, &repo, &image).unwrap();
    assert!(pulled.layers_fetched > 2, "{}", pulled.layers_fetched);
    repo.assert_sound();
    assert_eq!(tree(&repo, &pulled.image.commit), tree(&origin, &commit));
    assert_eq!(
        repo.ostree(&["rev-parse", &format!("{}^", pulled.image.commit)])
            .trim(),
        commit
    );
    let reference = ImageReference::try_from(image.skopeo_name().as_str()).unwrap();
    let state = ostree_ext::container::store::query_image(&repo.open(), &reference)
        .unwrap()
        .unwrap();
    assert_eq!(
        (state.base_commit, state.merge_commit),
        (commit, pulled.image.commit.clone())
    );

    // A layer on top is an ordinary one, and the parts below it are there already.
    let layer = Layer::new()
        .file("etc/added", 0o644, "x")
        .whiteout("usr/f0")
        .finish();
    let derived = derive(&directory.path().join("chunked"), &layer);
    let again = import(&home, &repo, &derived).unwrap();
    assert_eq!(again.layers_fetched, 1);
    repo.assert_sound();
    let listed = tree(&repo, &again.image.commit);
    assert!(
        listed.contains("/usr/etc/added") && !listed.contains("/usr/f0\n"),
        "{listed}"
    );
    assert_eq!(
        listed.lines().count(),
        tree(&repo, &pulled.image.commit).lines().count()
    );

    // The same in one go.
    let fresh = TestRepo::new();
    assert_eq!(
        import(&home, &fresh, &derived).unwrap().image.commit,
        again.image.commit
    );
}
