//! What a person who names an image sees on the command line.

use crate::support::apt_ostree;
use crate::support::home::Home;
use crate::support::image::Image;
use crate::support::keys::Key;
use crate::support::registry::Registry;
use crate::support::repo::TestRepo;

/// Pulls with the program itself; returns its exit status and what it said.
fn pull(home: &Home, repo: &TestRepo, reference: &str) -> (i32, String) {
    let output = apt_ostree(home)
        .args(["image", "pull", "--repo"])
        .arg(repo.path())
        .arg(reference)
        .output()
        .expect("apt-ostree");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().expect("an exit status"),
        String::from_utf8(said).expect("UTF-8"),
    )
}

#[test]
fn a_bare_name_says_which_form_was_chosen() {
    let (home, repo, registry, key) = (
        Home::new(),
        TestRepo::new(),
        Registry::start(),
        Key::new("trusted"),
    );
    let directory = tempfile::tempdir().unwrap();
    let image = Image::bootable("1").write(directory.path(), "x");
    home.insecure(&[&registry.location()]);
    home.lookaside(&registry.location(), &home.path().join("lookaside"));
    key.push_signed(&home, &image, &registry.name("os:1"));
    let name = format!("{}/os:1", registry.location());
    let (status, said) = pull(&home, &repo, &name);
    assert!(
        status == 0 && said.contains(&registry.reference("os:1")),
        "{status}: {said}"
    );
    home.policy(key.policy(&registry.location()));
    let signed = format!("ostree-image-signed:docker://{name}");
    let (status, said) = pull(&home, &repo, &name);
    assert!(status == 0 && said.contains(&signed), "{status}: {said}");
    home.policy(Key::new("other").policy(&registry.location()));
    let (status, said) = pull(&home, &repo, &name);
    assert!(status == 1 && said.contains("hint:"), "{status}: {said}");
    assert!(said.contains("policy.json"), "{said}");
}

#[test]
fn nonsense_is_a_usage_error() {
    let (home, repo) = (Home::new(), TestRepo::new());
    for reference in ["docker-daemon:os:1", "ftp://r.example/os", "r.example/OS", ""] {
        let (status, said) = pull(&home, &repo, reference);
        assert!(
            status == 2 && said.contains("error:"),
            "{reference}: {status}: {said}"
        );
    }
    home.policy("nothing");
    let (status, said) = pull(&home, &repo, "r.example/os");
    assert!(status == 1 && said.contains("policy.json"), "{status}: {said}");
    assert!(repo.refs().is_empty());
}
