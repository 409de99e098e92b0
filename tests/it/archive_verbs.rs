//! `search`, `info` and `refresh-md`, on a sysroot that follows an image with a repository.

use crate::support::archive::Archive;
use crate::support::layer::Layer;
use crate::support::machine::Machine;
use crate::support::package::Package;
use crate::support::{run, write};
use std::os::unix::fs::PermissionsExt;

const KEYRING: &str = "usr/share/keyrings/test.gpg";

fn described(name: &str, version: &str, summary: &str) -> Package {
    Package::new(name, version)
        .architecture("amd64")
        .field("Description", summary)
}

fn repository() -> Archive {
    Archive::with(&[
        described("htop", "2", "interactive processes viewer")
            .depends("libtop (>= 1)")
            .field("Installed-Size", "400")
            .field("Homepage", "https://htop.example"),
        described("viewer-tools", "1", "Viewer of pictures"),
        described("libtop", "1", "shared library"),
        described("top-secret", "1", "diary").field("Provides", "diary"),
    ])
}

/// Makes a machine whose image has `base` installed and uses the repository.
fn machine(repository: &Archive) -> Machine {
    let machine = Machine::new();
    let dpkg = Package::new("dpkg", "1").architecture("amd64").installed();
    let htop = described("htop", "1", "interactive processes viewer").installed();
    let layer = Layer::new()
        .file("usr/lib/sysimage/dpkg/status", 0o644, format!("{dpkg}{htop}"))
        .file(KEYRING, 0o644, repository.keyring())
        .file(
            "etc/apt/sources.list.d/test.sources",
            0o644,
            repository.sources(&format!("/{KEYRING}")),
        );
    machine.publish("1", [layer]);
    machine.ok(&["rebase", &machine.reference("os:stable")]);
    machine
}

#[test]
fn search_has_rpm_ostrees_groups_and_globs() {
    let mut repository = repository();
    let machine = machine(&repository);
    let error = machine.fails(1, &["search", "top"]);
    assert!(
        error.contains("hint: fetch them with `sudo apt-ostree refresh-md`"),
        "{error}"
    );
    let first = machine.ok(&["refresh-md"]);
    assert_eq!(first, "The package lists are fetched.\n");
    repository.web().stop();
    let found = machine.ok(&["search", "VIEWER"]);
    assert_eq!(
        found,
        "===== Summary & Name Matched =====\nviewer-tools : Viewer of pictures\n\n\
         ===== Summary Matched =====\nhtop : interactive processes viewer\n"
    );
    let found = machine.ok(&["search", "lib*", "?top"]);
    assert_eq!(
        found,
        "===== Name Matched =====\nhtop : interactive processes viewer\nlibtop : shared library\n"
    );
    assert_eq!(machine.ok(&["search", "nothing-like-it"]), "No matches found.\n");
    machine.fails(2, &["search"]);
}

#[test]
fn info_tells_versions_places_and_relations() {
    let repository = repository();
    let machine = machine(&repository);
    machine.ok(&["refresh-md"]);
    let told = machine.ok(&["info", "htop", "libtop"]);
    for line in [
        "Name: htop\nInstalled: 1, in the image\nVersion: 2\nArchitecture: amd64\nRepository: http://127.0.0.1",
        " stable/main\n",
        "Installed-Size: 400.00 KiB\nDepends: libtop (>= 1)\nHomepage: https://htop.example\n",
        "Summary: interactive processes viewer\nOther-Version: 1",
        "\n\nName: libtop\nInstalled: not installed\n",
    ] {
        assert!(told.contains(line), "{line}\n---\n{told}");
    }
    let error = machine.fails(1, &["info", "nothing", "htop", "nobody"]);
    assert!(
        error.contains("`nothing`, `nobody`") && !error.contains("`htop`"),
        "{error}"
    );
    let error = machine.fails(1, &["info", "diary"]);
    assert!(error.contains("virtual package"), "{error}");
    machine.fails(2, &["info", "-x"]);
    machine.fails(2, &["info", "a b"]);
}

#[test]
fn refresh_md_fetches_when_due_and_names_what_failed() {
    let mut repository = repository();
    let machine = machine(&repository);
    machine.ok(&["refresh-md"]);
    repository.web().take_requests();
    assert_eq!(
        machine.ok(&["refresh-md"]),
        "The package lists are less than an hour old.\n"
    );
    assert!(repository.web().take_requests().is_empty());
    machine.ok(&["refresh-md", "--force"]);
    assert!(!repository.web().take_requests().is_empty());
    machine.ok(&["makecache", "-f"]);
    repository.web().stop();
    let error = machine.fails(1, &["refresh-md", "-f"]);
    assert!(
        error.contains(&repository.web().address()) && error.contains("hint:"),
        "{error}"
    );
    machine.ok(&["search", "htop"]);
}

#[test]
fn sources_that_the_administrator_adds_to_the_deployment_count() {
    let image = repository();
    let mut added = Archive::with(&[described("mine", "1", "added by hand")]);
    let machine = machine(&image);
    let root = machine.root(0);
    write(root.join("etc/apt/keyrings/mine.gpg"), added.keyring());
    write(
        root.join("etc/apt/sources.list.d/mine.sources"),
        added.sources("/etc/apt/keyrings/mine.gpg"),
    );
    machine.ok(&["refresh-md"]);
    assert!(!added.web().take_requests().is_empty());
    let found = machine.ok(&["search", "mine"]);
    assert!(found.contains("mine : added by hand"), "{found}");
}

#[test]
fn any_user_may_search_and_ask() {
    let repository = repository();
    let machine = machine(&repository);
    machine.ok(&["refresh-md"]);
    let sysroot = machine.sysroot.path();
    std::fs::set_permissions(sysroot, std::fs::Permissions::from_mode(0o755)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("apt-ostree");
    std::fs::copy(env!("CARGO_BIN_EXE_apt-ostree"), &program).unwrap();
    let as_nobody = |words: &[&str]| {
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let program = [program.to_str().unwrap(), "--sysroot", sysroot.to_str().unwrap()];
        run("setpriv", user.iter().chain(&program).chain(words))
    };
    assert!(as_nobody(&["search", "htop"]).contains("htop : interactive"));
    assert!(as_nobody(&["info", "htop"]).contains("Version: 2"));
}

#[test]
fn package_lists_are_removed_and_fetched_again() {
    let mut repository = repository();
    let machine = machine(&repository);
    assert_eq!(machine.ok(&["cleanup", "-m"]), "Deployments unchanged.\n");
    machine.ok(&["refresh-md"]);
    let cache = machine
        .sysroot
        .path()
        .join("ostree/deploy/default/var/cache/apt-ostree");
    assert!(cache.join("lists").is_dir());
    let before = machine.state();
    let told = machine.ok(&["cleanup", "--repomd"]);
    assert!(told.starts_with("The package lists are removed"), "{told}");
    assert!(!cache.join("lists").exists() && !cache.join("apt/pkgcache.bin").exists());
    assert_eq!(machine.state(), before);
    let error = machine.fails(1, &["search", "top"]);
    assert!(error.contains("refresh-md"), "{error}");
    // They count as old at once.
    assert_eq!(machine.ok(&["refresh-md"]), "The package lists are fetched.\n");
    repository.web().stop();
    assert!(machine.ok(&["search", "htop"]).contains("htop : "));
}
