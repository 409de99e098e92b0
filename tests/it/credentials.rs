//! Private registries, TLS and registries.conf.

use crate::registry::{fault, fetch};
use crate::support::home::Home;
use crate::support::image::Image;
use crate::support::registry::{Certificate, Registry, Setup, free_port};
use crate::support::write;
use apt_ostree::fault::Kind;

/// A registry that asks for a password, with an image pushed by somebody who knows it.
fn private() -> Registry {
    let registry = Registry::start_with(&Setup {
        login: Some(("user", "right")),
        ..Setup::default()
    });
    let pusher = Home::new();
    pusher.podman_login(&registry.location(), "user", "right");
    let directory = tempfile::tempdir().expect("directory");
    Image::bootable("1")
        .write(directory.path(), "x")
        .push(&pusher, &registry.name("os:1"), &[]);
    registry
}

#[test]
fn what_podman_login_wrote_is_enough() {
    let registry = private();
    let home = Home::new();
    home.insecure(&[&registry.location()]);
    home.podman_login(&registry.location(), "user", "right");
    assert_eq!(
        fetch(&registry.reference("os:1"), &home.options()).unwrap().len(),
        1
    );
}

#[test]
fn no_or_a_wrong_password_is_a_clear_fault_without_the_secret() {
    let registry = private();
    let home = Home::new();
    home.insecure(&[&registry.location()]);
    for login in [false, true] {
        if login {
            home.podman_login(&registry.location(), "user", "wr0ng-s3cret");
        }
        let error = fetch(&registry.reference("os:1"), &home.options()).unwrap_err();
        let fault = fault(&error);
        assert_eq!(fault.kind, Kind::Unreachable, "{error:#}");
        assert!(fault.message.contains("os:1"), "{fault}");
        let hint = fault.hint.as_deref().unwrap();
        assert!(
            hint.contains(&format!("podman login {}", registry.location())),
            "{hint}"
        );
        assert!(!format!("{error:?}").contains("wr0ng-s3cret"));
    }
}

#[test]
fn the_credentials_of_ostree_go_first_and_those_of_podman_fill_in() {
    let registry = private();
    let home = Home::new();
    home.insecure(&[&registry.location()]);
    let location = registry.location();
    home.podman_login(&location, "user", "wrong");
    home.ostree_login("usr/lib/ostree/auth.json", &location, "user", "right");
    fetch(&registry.reference("os:1"), &home.options()).unwrap();
    // A file that goes before the right one, wrong in its turn.
    home.ostree_login("etc/ostree/auth.json", &location, "user", "wrong");
    fetch(&registry.reference("os:1"), &home.options()).unwrap_err();
    home.ostree_login("run/ostree/auth.json", &location, "user", "right");
    fetch(&registry.reference("os:1"), &home.options()).unwrap();
    home.ostree_login("run/ostree/auth.json", "elsewhere.example", "user", "wrong");
    home.podman_login(&location, "user", "right");
    fetch(&registry.reference("os:1"), &home.options()).unwrap();
}

#[test]
fn a_credentials_file_that_does_not_parse_is_named() {
    let home = Home::new();
    write(home.path().join("root/etc/ostree/auth.json"), "{");
    let error = fetch("ostree-unverified-registry:r.example/os:1", &home.options()).unwrap_err();
    assert_eq!(fault(&error).kind, Kind::Invalid);
    assert!(fault(&error).message.contains("etc/ostree/auth.json"));
}

#[test]
fn a_mirror_answers_for_a_registry_that_does_not() {
    let registry = Registry::start();
    let home = Home::new();
    let directory = tempfile::tempdir().unwrap();
    let image = Image::bootable("1").write(directory.path(), "x");
    image.push(&home, &registry.name("mirrored/os:1"), &[]);
    home.registries(&format!(
        "[[registry]]\nlocation = \"registry.invalid/team\"\n[[registry.mirror]]\n\
         location = \"{}/mirrored\"\ninsecure = true\n",
        registry.location()
    ));
    fetch(
        "ostree-unverified-registry:registry.invalid/team/os:1",
        &home.options(),
    )
    .unwrap();
}

#[test]
fn plain_http_needs_to_be_allowed() {
    let registry = Registry::start();
    let home = Home::new();
    let directory = tempfile::tempdir().unwrap();
    let image = Image::bootable("1").write(directory.path(), "x");
    image.push(&home, &registry.name("os:1"), &[]);
    fetch(&registry.reference("os:1"), &home.options()).unwrap_err();
    home.insecure(&[&registry.location()]);
    fetch(&registry.reference("os:1"), &home.options()).unwrap();
}

#[test]
fn a_certificate_is_checked() {
    for (certificate, accepted) in [(Certificate::valid(), true), (Certificate::expired(), false)] {
        let registry = Registry::start_with(&Setup {
            certificate: Some(&certificate),
            ..Setup::default()
        });
        let home = Home::new();
        let directory = tempfile::tempdir().unwrap();
        let image = Image::bootable("1").write(directory.path(), "x");
        image.push(&home, &registry.name("os:1"), &[]);
        home.trust(&registry.location(), &certificate);
        let outcome = fetch(&registry.reference("os:1"), &home.options());
        match accepted {
            true => assert!(outcome.is_ok(), "{outcome:?}"),
            false => assert_eq!(fault(&outcome.unwrap_err()).kind, Kind::Unreachable),
        }
    }
}

#[test]
fn nobody_listening_is_a_clear_fault() {
    let home = Home::new();
    let location = format!("127.0.0.1:{}", free_port());
    home.insecure(&[&location]);
    let error = fetch(
        &format!("ostree-unverified-registry:{location}/os:1"),
        &home.options(),
    )
    .unwrap_err();
    assert_eq!(fault(&error).kind, Kind::Unreachable, "{error:#}");
}

#[test]
fn an_absent_tag_names_those_that_exist() {
    let registry = Registry::start();
    let home = Home::new();
    home.insecure(&[&registry.location()]);
    let directory = tempfile::tempdir().unwrap();
    let image = Image::bootable("1").write(directory.path(), "x");
    image.push(&home, &registry.name("os:stable"), &[]);
    let error = fetch(&registry.reference("os:stabel"), &home.options()).unwrap_err();
    let fault = fault(&error);
    assert_eq!(fault.kind, Kind::NotFound, "{error:#}");
    assert!(
        format!("{fault} {:?}", fault.hint).contains("stable"),
        "{fault:?}"
    );
}

#[test]
fn an_absent_repository_is_a_clear_fault() {
    let registry = Registry::start();
    let home = Home::new();
    home.insecure(&[&registry.location()]);
    let error = fetch(&registry.reference("nothing:1"), &home.options()).unwrap_err();
    // A skopeo before protocol 0.2.4 cannot tell this from other failures.
    let kind = fault(&error).kind;
    assert!(matches!(kind, Kind::NotFound | Kind::Unreachable), "{error:#}");
}
