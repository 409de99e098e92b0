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
    let kept = gc::collect(
        &handle,
        &[image.reference().parse().unwrap()],
        &[],
        gc::Scope::Changes,
    )
    .unwrap();
    assert_eq!((kept.images, kept.layers, kept.objects), (0, 0, 0));
    repo.assert_sound();
}

#[test]
fn etc_survives_a_layer_that_clears_usr() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let base = || {
        Image::new().layer(
            Layer::new()
                .file("etc/kept", 0o644, "k")
                .file("usr/gone", 0o644, "g"),
        )
    };
    let opaque = Layer::new()
        .dir("usr", 0o755)
        .opaque("usr")
        .file("usr/new", 0o644, "n");
    let removed = Layer::new().whiteout("usr").file("etc/more", 0o644, "m");
    for (name, layer, lines) in [("opaque", opaque, 4), ("removed", removed, 4)] {
        let image = base().layer(layer).write(&directory.path().join(name), "latest");
        let commit = import(&home, &repo, &image).unwrap().image.commit;
        let tree = repo.ostree(&["ls", "-R", &commit, "/usr"]);
        assert!(
            tree.contains("/usr/etc/kept") && !tree.contains("/usr/gone"),
            "{tree}"
        );
        assert_eq!(tree.lines().count(), lines, "{tree}");
    }
    repo.assert_sound();
}

#[test]
fn doubled_entries_end_as_the_last_one_says() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let layer = Layer::new()
        .file("usr/twice", 0o644, "first")
        .hardlink("usr/link-to-first", "usr/twice")
        .file("usr/twice", 0o600, "second")
        .file("usr/d/below", 0o644, "x")
        .dir("usr/d", 0o700)
        .hardlink("usr/early", "usr/late")
        .file("usr/late", 0o644, "late");
    let image = Image::new().layer(layer).write(directory.path(), "latest");
    let commit = import(&home, &repo, &image).unwrap().image.commit;
    let read = |path: &str| repo.ostree(&["cat", &commit, path]);
    assert_eq!(
        (read("/usr/twice"), read("/usr/link-to-first")),
        ("second".into(), "first".into())
    );
    assert_eq!(
        (read("/usr/early"), read("/usr/d/below")),
        ("late".into(), "x".into())
    );
    assert!(
        repo.ostree(&["ls", "-d", &commit, "/usr/d"])
            .starts_with("d00700")
    );
    repo.assert_sound();
}

#[test]
fn no_layers_many_layers_and_the_other_kind_of_repository() {
    let (home, directory) = (Home::new(), tempfile::tempdir().unwrap());
    let none = Image::new().write(&directory.path().join("none"), "latest");
    let mut many = Image::bootable("1");
    for index in 0..130 {
        let layer = Layer::new().file(&format!("usr/f{}", index % 100), 0o4755, format!("{index}"));
        many = many.layer(layer.symlink(&format!("usr/l{index}"), "f1"));
    }
    let many = many.write(&directory.path().join("many"), "latest");
    let mut trees = Vec::new();
    for mode in ["bare", "bare-user"] {
        let repo = TestRepo::with_mode(mode);
        let empty = import(&home, &repo, &none).unwrap().image.commit;
        assert_eq!(listing(&repo, &empty).lines().count(), 1);
        let commit = import(&home, &repo, &many).unwrap().image.commit;
        repo.assert_sound();
        trees.push(repo.ostree(&["ls", "-RXC", &commit]));
    }
    assert!(trees[0].contains("/usr/f99") && trees[0] == trees[1]);
}

#[test]
fn an_upgrade_that_reuses_a_merge_equals_a_fresh_import() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let version = |name: &str| {
        Image::bootable("1")
            .layer(
                Layer::new()
                    .file("usr/lib/a", 0o644, "a")
                    .file("usr/lib/b", 0o644, "b"),
            )
            .layer(Layer::new().whiteout("usr/lib/a").file("etc/conf", 0o644, name))
            .write(&directory.path().join(name), "latest")
    };
    import(&home, &repo, &version("one")).unwrap();
    let upgraded = import(&home, &repo, &version("two")).unwrap();
    assert_eq!(upgraded.layers_fetched, 1);
    repo.assert_sound();
    let fresh = TestRepo::new();
    assert_eq!(
        import(&home, &fresh, &version("two")).unwrap().image.commit,
        upgraded.image.commit
    );
}

#[test]
fn a_long_name_may_have_a_slash_where_the_header_cuts_it_off() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let folder = format!("usr/{}", "n".repeat(95));
    let name = format!("{folder}/file");
    assert_eq!(&name[99..100], "/");
    let layer = Layer::new()
        .file(&name, 0o644, "content")
        .file("usr/next", 0o644, "next");
    let image = Image::bootable("1")
        .layer(layer)
        .write(directory.path(), "latest");
    let pulled = import(&home, &repo, &image).unwrap();
    let content = repo.ostree(&["cat", &pulled.image.commit, &format!("/{name}"), "/usr/next"]);
    assert_eq!(content, "contentnext");
}
