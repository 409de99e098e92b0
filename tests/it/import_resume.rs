//! Imports that are killed: nothing has changed, and the next one goes on where the first stopped.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::import_tree::import;
use crate::support::home::Home;
use crate::support::image::{Image, OciImage};
use crate::support::layer::Layer;
use crate::support::repo::TestRepo;

fn three_layers(directory: &std::path::Path) -> OciImage {
    Image::bootable("1")
        .layer(Layer::new().noise("usr/large", 3_000_000))
        .layer(Layer::new().noise("usr/middle", 500_000).whiteout("usr/nothing"))
        .write(directory, "latest")
}

/// Runs `image pull` so that it kills itself at the checkpoint.
fn pull_until(home: &Home, repo: &TestRepo, image: &OciImage, checkpoint: &str) -> std::process::Output {
    let repo = format!("--repo={}", repo.path().display());
    crate::support::apt_ostree(home)
        .args(["image", "pull", &repo, &image.reference()])
        .env("APT_OSTREE_CHECKPOINT", checkpoint)
        .output()
        .unwrap()
}

fn scratch(repo: &TestRepo) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(repo.path().join("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("apt-ostree-import.")
        })
        .collect()
}

#[test]
fn killed_imports_change_nothing_and_are_resumed() {
    for (checkpoint, fetched) in [("import-layer-done", 2), ("import-before-publish", 0)] {
        let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
        let image = three_layers(directory.path());
        let output = pull_until(&home, &repo, &image, checkpoint);
        assert_eq!(output.status.code(), None, "{output:?}");
        assert!(repo.refs().is_empty());
        repo.assert_sound();
        assert_eq!(scratch(&repo).len(), 1);
        let pulled = import(&home, &repo, &image).unwrap();
        assert_eq!(pulled.layers_fetched, fetched, "{checkpoint}");
        repo.assert_sound();
        assert!(scratch(&repo).is_empty());
        // What was resumed is what an undisturbed import makes.
        let other = TestRepo::new();
        assert_eq!(
            import(&home, &other, &image).unwrap().image.commit,
            pulled.image.commit
        );
        assert_eq!(other.refs(), repo.refs());
    }
}

#[test]
fn killed_after_publication_the_image_is_there() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let image = three_layers(directory.path());
    let output = pull_until(&home, &repo, &image, "import-published");
    assert_eq!(output.status.code(), None, "{output:?}");
    repo.assert_sound();
    assert!(import(&home, &repo, &image).unwrap().unchanged);
}

#[test]
fn a_pruned_object_makes_its_layer_come_again() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let image = three_layers(directory.path());
    pull_until(&home, &repo, &image, "import-before-publish");
    // Takes one staged file away, as a prune of half published objects would.
    let objects = scratch(&repo)[0].join("objects");
    let files = walk(&objects);
    let file = files
        .iter()
        .find(|path| std::fs::metadata(path).unwrap().len() == 3_000_000)
        .unwrap();
    std::fs::remove_file(file).unwrap();
    assert_eq!(import(&home, &repo, &image).unwrap().layers_fetched, 1);
    repo.assert_sound();
}

#[test]
fn what_another_boot_left_is_thrown_away() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let image = three_layers(directory.path());
    pull_until(&home, &repo, &image, "import-before-publish");
    let journal = scratch(&repo)[0].join("journal");
    let text = std::fs::read_to_string(&journal).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&journal, text.replace(boot.trim(), "another-boot")).unwrap();
    assert_eq!(import(&home, &repo, &image).unwrap().layers_fetched, 3);
    assert!(scratch(&repo).is_empty());
    repo.assert_sound();
}

#[test]
fn a_full_disk_at_a_checkpoint_is_told() {
    let (home, repo, directory) = (Home::new(), TestRepo::new(), tempfile::tempdir().unwrap());
    let image = three_layers(directory.path());
    for checkpoint in ["import-layer-done:enospc", "import-before-publish:enospc"] {
        let output = pull_until(&home, &repo, &image, checkpoint);
        assert_eq!(output.status.code(), Some(1));
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains("full"), "{words}");
        assert!(repo.refs().is_empty());
    }
    import(&home, &repo, &image).unwrap();
    repo.assert_sound();
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(walk(&path));
        } else if !path.is_symlink() {
            found.push(path);
        }
    }
    found
}
