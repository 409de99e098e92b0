//! Collecting images: what a deployment or a kept image needs stays, everything else goes.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::import_tree::import;
use crate::support::home::Home;
use crate::support::image::{Image, OciImage};
use crate::support::layer::Layer;
use crate::support::repo::TestRepo;
use apt_ostree::image::gc::{self, Scope};
use apt_ostree::image::store;

fn version(directory: &std::path::Path, name: &str) -> OciImage {
    Image::bootable("base")
        .layer(Layer::new().noise(&format!("usr/{name}"), 100_000))
        .write(&directory.join(name), "latest")
}

fn layers(repo: &TestRepo) -> usize {
    repo.refs()
        .keys()
        .filter(|name| name.starts_with(store::LAYER_REF_PREFIX))
        .count()
}

#[test]
fn only_what_is_needed_stays() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let [one, two, three] = ["one", "two", "three"].map(|name| version(directory.path(), name));
    let first = import(&home, &repo, &one).unwrap();
    let second = import(&home, &repo, &two).unwrap();
    import(&home, &repo, &three).unwrap();
    assert_eq!(layers(&repo), 4);
    assert_eq!(second.layers_fetched, 1);
    // The first is deployed, the second is the base of a local commit, the third is followed.
    repo.ostree(&["refs", "--create=ostree/0/1/0", &first.image.commit]);
    repo.ostree(&[
        "refs",
        "--create=ostree/container/baseimage/apt-ostree/0",
        &second.image.commit,
    ]);
    let handle = repo.open();
    let keep = [three.reference().parse().unwrap()];
    let collected = gc::collect(&handle, &keep, &[], Scope::Changes).unwrap();
    assert_eq!((collected.images, collected.layers), (2, 0));
    assert_eq!(layers(&repo), 4);
    repo.assert_sound();

    repo.ostree(&["refs", "--delete", "ostree/0/1/0"]);
    let collected = gc::collect(&handle, &keep, &[], Scope::Changes).unwrap();
    assert_eq!((collected.images, collected.layers), (0, 1));
    assert!(
        collected.objects > 0 && collected.bytes > 100_000,
        "{collected:?}"
    );
    repo.assert_sound();

    // A commit named by the caller is kept as well.
    repo.ostree(&["refs", "--delete", "ostree/container/baseimage/apt-ostree/0"]);
    repo.ostree(&["refs", "--create=kept", &second.image.commit]);
    assert_eq!(
        gc::collect(
            &handle,
            &[],
            std::slice::from_ref(&second.image.commit),
            Scope::Changes
        )
        .unwrap()
        .layers,
        1
    );
    assert_eq!(layers(&repo), 2);
    repo.ostree(&["refs", "--delete", "kept"]);
    assert_eq!(gc::collect(&handle, &[], &[], Scope::Changes).unwrap().layers, 2);
    assert!(repo.refs().is_empty(), "{:?}", repo.refs());
    assert!(!repo.ostree(&["fsck"]).contains("corrupt"));
}

#[test]
fn an_unreadable_image_keeps_all_layers() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let image = version(directory.path(), "one");
    let other = version(directory.path(), "two");
    let commit = import(&home, &repo, &image).unwrap().image.commit;
    import(&home, &repo, &other).unwrap();
    // A commit that says it is an image and tells nothing more.
    repo.ostree(&[
        "commit",
        "--branch=ostree/0/1/0",
        &format!("--tree=ref={commit}"),
        "--add-metadata-string=ostree.manifest=broken",
    ]);
    let keep = [image.reference().parse().unwrap()];
    let collected = gc::collect(&repo.open(), &keep, &[], Scope::Changes).unwrap();
    assert_eq!((collected.images, collected.layers), (1, 0));
    assert!(layers(&repo) == 3);
    repo.assert_sound();
}

#[test]
fn a_removed_image_can_come_back() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let image = version(directory.path(), "one");
    let reference = image.reference().parse().unwrap();
    let before = import(&home, &repo, &image).unwrap();
    let handle = repo.open();
    assert!(store::remove(&handle, &reference).unwrap());
    assert!(!store::remove(&handle, &reference).unwrap());
    assert!(store::find(&handle, &reference).unwrap().is_none());
    let again = import(&home, &repo, &image).unwrap();
    assert_eq!((again.layers_fetched, again.unchanged), (0, false));
    assert_eq!(again.image.commit, before.image.commit);
}
