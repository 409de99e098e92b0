//! Packages that come as files: kept by the host, layered with those of repositories, without network.

use crate::support::debian_machine::DebianMachine;
use crate::support::package::Package;

fn plain(name: &str, version: &str) -> Package {
    Package::new(name, version).file(&format!("usr/share/{name}"), 0o644, format!("{name} {version}\n"))
}

#[test]
fn a_file_is_kept_and_layered_with_what_it_needs() {
    let mut host = DebianMachine::new(&[plain("dependency", "1"), plain("other", "1")]);
    let file = host.file(&plain("mine", "1-1").depends("dependency"));
    host.ok(&["install", &file, "other"]);
    std::fs::remove_file(&file).expect("the file");
    assert_eq!(host.text(0, "usr/share/mine"), "mine 1-1\n");
    assert!(host.has(0, "usr/share/dependency"));
    let requested = host.list("requested-local-packages");
    assert!(requested[0].ends_with(":mine_1-1_all"), "{requested:?}");
    let shown = host.ok(&["status"]);
    assert!(
        shown.contains(" + 2 packages (") && shown.contains("LocalPackages: mine_1-1_all"),
        "{shown}"
    );
    // It survives a new image and a changed list.
    host.publish_image("2", []);
    host.ok(&["upgrade"]);
    host.ok(&["uninstall", "other"]);
    assert_eq!(host.text(0, "usr/share/mine"), "mine 1-1\n");
    assert!(!host.has(0, "usr/share/other"));
    // A newer file takes its place; the stored one goes when no deployment needs it.
    host.archive.web().stop();
    let newer = host.file(&plain("mine", "2-1"));
    host.ok(&["install", "--cache-only", &newer]);
    assert_eq!(host.text(0, "usr/share/mine"), "mine 2-1\n");
    let errors = host.fails(1, &["install", &newer]);
    assert!(
        errors.contains("mine_2-1_all: it is requested already"),
        "{errors}"
    );
    host.ok(&["uninstall", "mine_2-1_all"]);
    assert_eq!(host.list("requested-local-packages"), Vec::<String>::new());
    host.ok(&["cleanup", "--rollback"]);
    let stored = host
        .sysroot
        .path()
        .join("ostree/deploy/default/var/lib/apt-ostree/local");
    let left: Vec<_> = std::fs::read_dir(stored).expect("the store").collect();
    assert!(left.is_empty(), "{left:?}");
    host.assert_sound();
}

#[test]
fn a_file_needs_neither_repositories_nor_the_image() {
    let mut host = DebianMachine::new(&[]);
    host.archive.web().stop();
    std::fs::remove_file(host.root(0).join("etc/apt/sources.list.d/test.sources")).expect("the sources");
    std::fs::remove_dir_all(host.image()).expect("the image");
    let file = host.file(&plain("mine", "1"));
    host.ok(&["install", &file]);
    assert_eq!(host.text(0, "usr/share/mine"), "mine 1\n");
    host.ok(&["uninstall", "mine"]);
    assert!(!host.has(0, "usr/share/mine"));
}

#[test]
fn what_is_no_usable_package_is_refused() {
    let host = DebianMachine::new(&[plain("mine", "1")]);
    let before = host.state();
    let folder = tempfile::tempdir().expect("directory");
    let text = folder.path().join("text.deb");
    std::fs::write(&text, "no package\n").expect("a file");
    host.fails(1, &["install", &text.display().to_string()]);
    host.fails(1, &["install", "./nowhere.deb"]);
    let errors = host.fails(1, &["install", &host.file(&plain("bash", "99"))]);
    assert!(
        errors.contains("bash") && errors.contains("override replace"),
        "{errors}"
    );
    // rpm-ostree takes the path of what a package ships.
    for path in ["/usr/bin/none-has-this", "/usr/bin/env", "/usr/bin"] {
        let errors = host.fails(if path == "/usr/bin" { 2 } else { 1 }, &["install", path]);
        assert!(errors.contains(&format!("apt-file search {path}")), "{errors}");
    }
    assert_eq!(host.state(), before);
    let file = host.file(&plain("mine", "2"));
    host.ok(&["install", &file]);
    let errors = host.fails(1, &["install", "mine"]);
    assert!(errors.contains("mine: it is requested already"), "{errors}");
}

#[test]
fn a_request_that_sleeps_stays_beside_a_file() {
    let host = DebianMachine::new(&[]);
    let file = host.file(&plain("mine", "1"));
    host.ok(&["install", "--allow-inactive", "bash", &file]);
    assert_eq!(host.list("inactive-requests"), ["bash"]);
    assert_eq!(host.list("packages"), ["mine"]);
}
