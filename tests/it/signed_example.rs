//! `Containerfile.examples/signed`: its files do what its comment says.

use crate::registry::{fault, fetch};
use crate::support::home::Home;
use crate::support::image::Image;
use crate::support::keys::Key;
use crate::support::registry::Registry;
use crate::support::{run, write};
use apt_ostree::fault::Kind;
use apt_ostree::image::policy::{Policy, Verdict};
use apt_ostree::image::reference;
use std::path::{Path, PathBuf};

const KEY: &str = "/usr/share/keyrings/os-images.asc";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("Containerfile.examples/signed/files")
        .join(name.trim_start_matches('/'))
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_policy_demands_signatures_of_the_repository_and_of_nothing_else() {
    let policy = Policy::parse(
        Path::new("policy.json"),
        text("etc/containers/policy.json").as_bytes(),
    )
    .unwrap();
    for (name, verdict) in [
        (
            "docker://registry.example/os/debian:13",
            Verdict::DemandsSignature,
        ),
        ("docker://registry.example/other", Verdict::AcceptsAnything),
        ("docker://docker.io/library/debian", Verdict::AcceptsAnything),
        ("containers-storage:localhost/base", Verdict::AcceptsAnything),
        ("oci:/srv/os", Verdict::AcceptsAnything),
    ] {
        let reference = format!("ostree-unverified-image:{name}").parse().unwrap();
        assert_eq!(policy.verdict(&reference), verdict, "{name}");
    }
    let resolved = reference::resolve("registry.example/os/debian:13", &policy).unwrap();
    assert_eq!(
        resolved.reference.to_string(),
        "ostree-image-signed:docker://registry.example/os/debian:13"
    );
}

#[test]
fn the_key_is_a_key() {
    let home = tempfile::tempdir().unwrap();
    let path = file(KEY).display().to_string();
    let shown = run(
        "gpg",
        [
            "--homedir",
            home.path().to_str().unwrap(),
            "--show-keys",
            "--with-colons",
            &path,
        ],
    );
    assert!(shown.starts_with("pub:"), "{shown}");
    assert!(!text(KEY).contains("PRIVATE"));
}

/// The example's own files, with the registry, the key and the lookaside of the test in the place of its own.
fn install(home: &Home, registry: &Registry, key: &Key) {
    let place = |text: String| text.replace("registry.example/os", &format!("{}/os", registry.location()));
    let policy =
        place(text("etc/containers/policy.json")).replace(KEY, key.public().to_str().expect("UTF-8"));
    home.policy(policy);
    let lookaside = format!("file://{}", home.path().join("lookaside").display());
    let registries = text("etc/containers/registries.d/os.yaml")
        .replace("https://registry.example/signatures", &lookaside)
        .replace("file:///var/lib/containers/sigstore", &lookaside);
    write(
        home.path().join(".config/containers/registries.d/os.yaml"),
        place(registries),
    );
    home.insecure(&[&registry.location()]);
}

#[test]
fn a_host_with_these_files_takes_signed_images_only() {
    let (home, registry, key) = (Home::new(), Registry::start(), Key::new("os"));
    install(&home, &registry, &key);
    let directory = tempfile::tempdir().unwrap();
    let image = Image::bootable("1").write(directory.path(), "x");
    key.push_signed(&home, &image, &registry.name("os/debian:13"));
    image.push(&home, &registry.name("os/unsigned:13"), &[]);
    image.push(&home, &registry.name("other:13"), &[]);
    let signed = |name: &str| format!("ostree-image-signed:{}", registry.name(name));
    fetch(&signed("os/debian:13"), &home.options()).unwrap();
    let error = fetch(&signed("os/unsigned:13"), &home.options()).unwrap_err();
    assert_eq!(fault(&error).kind, Kind::Denied, "{error:#}");
    fetch(&registry.reference("other:13"), &home.options()).unwrap();
}
