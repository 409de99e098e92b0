//! What an import makes of layers: the tree, the refs and the metadata.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::home::Home;
use crate::support::image::{Image, OciImage};
use crate::support::layer::Layer;
use crate::support::repo::TestRepo;
use apt_ostree::image::pull::{PullOptions, Pulled, pull};
use apt_ostree::image::reference::ImageReference;
use apt_ostree::image::{gc, store};
use apt_ostree::report::Silent;

/// Pulls an image into a repository.
pub(crate) fn import(home: &Home, repo: &TestRepo, image: &OciImage) -> anyhow::Result<Pulled> {
    let options = PullOptions {
        source: home.options(),
        ..PullOptions::default()
    };
    let reference: ImageReference = image.reference().parse()?;
    pull(&repo.open(), &reference, &options, &Silent)
}

/// Lists a commit as `ostree ls -RX` does, without the object names.
fn listing(repo: &TestRepo, commit: &str) -> String {
    repo.ostree(&["ls", "-RX", commit])
}

#[test]
fn an_image_becomes_a_commit() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let image = Image::bootable("1").write(directory.path(), "latest");
    let pulled = import(&home, &repo, &image).unwrap();
    assert!(!pulled.unchanged && pulled.layers_fetched == 1 && pulled.bytes_fetched > 0);
    repo.assert_sound();
    let tree = listing(&repo, &pulled.image.commit);
    assert!(tree.contains("/usr/etc/"), "{tree}");
    assert!(!tree.contains(" /etc"), "{tree}");
    let again = import(&home, &repo, &image).unwrap();
    assert!(again.unchanged && again.image.commit == pulled.image.commit);
}

#[test]
fn other_software_reads_the_images() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let image = Image::bootable("7")
        .layer(Layer::new().file("usr/new", 0o644, "x"))
        .write(directory.path(), "v7");
    let pulled = import(&home, &repo, &image).unwrap();
    let handle = repo.open();
    let images = ostree_ext::container::store::list_images(&handle).unwrap();
    assert_eq!(images, [image.skopeo_name()]);
    let reference = ostree_ext::container::ImageReference::try_from(images[0].as_str()).unwrap();
    let state = ostree_ext::container::store::query_image(&handle, &reference)
        .unwrap()
        .unwrap();
    assert_eq!(state.merge_commit, pulled.image.commit);
    assert_eq!(state.version(), Some("7"));
    assert_eq!(ostree_ext::container::store::gc_image_layers(&handle).unwrap(), 0);
    // And this program's own view of the same.
    let listed = store::list(&handle).unwrap();
    assert_eq!(listed[0].0, image.skopeo_name());
    let stored = listed[0].1.as_ref().unwrap();
    assert_eq!(
        (stored.version().as_deref(), stored.history().len()),
        (Some("7"), 2)
    );
    let kept = gc::collect(&handle, &[image.reference().parse().unwrap()], &[]).unwrap();
    assert_eq!((kept.images, kept.layers), (0, 0));
    repo.assert_sound();
}
