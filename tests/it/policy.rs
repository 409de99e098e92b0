//! The signature policy, with real keys, real signatures and a real registry.

use crate::registry::{fault, fetch};
use crate::support::home::Home;
use crate::support::image::{Image, OciImage};
use crate::support::keys::Key;
use crate::support::layer::Layer;
use crate::support::registry::Registry;
use apt_ostree::fault::Kind;
use apt_ostree::image::policy::Policy;
use apt_ostree::image::proxy::ImageSource;
use apt_ostree::image::reference;

/// A registry, a home that trusts `key` for it, and an image that is not pushed yet.
struct Signed {
    home: Home,
    registry: Registry,
    key: Key,
    image: OciImage,
    _directory: tempfile::TempDir,
}

impl Signed {
    fn new() -> Self {
        let home = Home::new();
        let registry = Registry::start();
        let key = Key::new("trusted");
        home.insecure(&[&registry.location()]);
        home.lookaside(&registry.location(), &home.path().join("lookaside"));
        home.policy(key.policy(&registry.location()));
        let directory = tempfile::tempdir().expect("directory");
        let image = Image::bootable("1").layer(Layer::new().noise("usr/data", 300_000));
        let image = image.write(directory.path(), "x");
        Self {
            home,
            registry,
            key,
            image,
            _directory: directory,
        }
    }

    fn reference(&self, name: &str) -> String {
        format!("ostree-image-signed:{}", self.registry.name(name))
    }

    fn refused(&self, reference: &str) -> apt_ostree::fault::Fault {
        let error = fetch(reference, &self.home.options()).expect_err("accepted");
        let fault = fault(&error).clone();
        assert_eq!(fault.kind, Kind::Denied, "{error:#}");
        fault
    }
}

#[test]
fn a_signed_image_is_accepted() {
    let signed = Signed::new();
    signed
        .key
        .push_signed(&signed.home, &signed.image, &signed.registry.name("os:1"));
    let layers = fetch(&signed.reference("os:1"), &signed.home.options()).unwrap();
    assert_eq!(layers.len(), 2);
}

#[test]
fn an_image_without_a_signature_is_refused_under_either_form() {
    let signed = Signed::new();
    signed
        .image
        .push(&signed.home, &signed.registry.name("os:1"), &[]);
    let fault = signed.refused(&signed.reference("os:1"));
    assert!(fault.message.contains("policy.json"), "{fault}");
    signed.refused(&signed.registry.reference("os:1"));
}

#[test]
fn another_key_is_refused() {
    let signed = Signed::new();
    let other = Key::new("other");
    other.push_signed(&signed.home, &signed.image, &signed.registry.name("os:1"));
    signed.refused(&signed.reference("os:1"));
}

#[test]
fn a_tampered_image_is_refused() {
    let signed = Signed::new();
    signed
        .key
        .push_signed(&signed.home, &signed.image, &signed.registry.name("os:1"));
    let directory = tempfile::tempdir().unwrap();
    let tampered = Image::bootable("2").write(directory.path(), "x");
    tampered.push(&signed.home, &signed.registry.name("os:1"), &[]);
    // The old signature lies where the new manifest's would be.
    let lookaside = signed.home.path().join("lookaside");
    let old = lookaside.join(format!("os@{}", signed.image.manifest_digest.replace(':', "=")));
    let new = lookaside.join(format!("os@{}", tampered.manifest_digest.replace(':', "=")));
    std::fs::rename(old, new).unwrap();
    signed.refused(&signed.reference("os:1"));
}

#[test]
fn a_signature_for_another_name_is_refused() {
    let signed = Signed::new();
    signed
        .key
        .push_signed(&signed.home, &signed.image, &signed.registry.name("os:old"));
    signed
        .image
        .push(&signed.home, &signed.registry.name("os:new"), &[]);
    fetch(&signed.reference("os:old"), &signed.home.options()).unwrap();
    signed.refused(&signed.reference("os:new"));
}

#[test]
fn a_signed_image_can_be_pinned_by_digest() {
    let signed = Signed::new();
    signed
        .key
        .push_signed(&signed.home, &signed.image, &signed.registry.name("os:1"));
    let name = signed
        .registry
        .name(&format!("os@{}", signed.image.manifest_digest));
    fetch(&format!("ostree-image-signed:{name}"), &signed.home.options()).unwrap();
}

#[test]
fn a_bare_name_takes_the_form_the_policy_demands() {
    let signed = Signed::new();
    let policy = Policy::load_in(&signed.home.surroundings()).unwrap();
    let text = format!("{}/os:1", signed.registry.location());
    let resolved = reference::resolve(&text, &policy).unwrap();
    assert_eq!(resolved.reference.to_string(), signed.reference("os:1"));
    assert!(resolved.chosen_form_note.unwrap().contains("demands signatures"));
    let resolved = reference::resolve("elsewhere.example/os:1", &policy).unwrap();
    assert_eq!(
        resolved.reference.to_string(),
        "ostree-unverified-registry:elsewhere.example/os:1"
    );
    assert!(resolved.chosen_form_note.unwrap().contains("does not demand"));
}

#[test]
fn a_signed_reference_refuses_a_policy_that_accepts_anything() {
    let home = Home::new();
    let error = fetch("ostree-image-signed:docker://r.example/os:1", &home.options()).unwrap_err();
    let fault = fault(&error);
    assert_eq!(fault.kind, Kind::Denied);
    assert!(fault.message.contains("insecureAcceptAnything"), "{fault}");
}

#[test]
fn a_policy_that_rejects_is_obeyed_for_every_form() {
    let home = Home::new();
    home.policy(r#"{"default": [{"type": "reject"}]}"#);
    for form in ["ostree-image-signed:docker://", "ostree-unverified-registry:"] {
        let error = fetch(&format!("{form}r.example/os:1"), &home.options()).unwrap_err();
        assert_eq!(fault(&error).kind, Kind::Denied, "{error:#}");
    }
}

#[test]
fn a_policy_that_does_not_parse_is_named_with_its_line() {
    let home = Home::new();
    let path = home.policy("{\n\"default\": [{\"type\": \"insecureAcceptAnything\"}\n");
    let error = fetch("ostree-unverified-registry:r.example/os:1", &home.options()).unwrap_err();
    let fault = fault(&error);
    assert_eq!(fault.kind, Kind::Invalid);
    assert!(fault.message.contains(path.to_str().unwrap()), "{fault}");
    assert!(fault.message.contains("line"), "{fault}");
}

#[test]
fn a_missing_policy_names_the_package_to_install() {
    let home = Home::new();
    let surroundings = home
        .surroundings()
        .with("CONTAINERS_POLICY_JSON", "/nonexistent/policy.json");
    let error = Policy::load_in(&surroundings).unwrap_err();
    let fault = fault(&error);
    assert_eq!(fault.kind, Kind::NotFound);
    assert!(fault.hint.as_deref().unwrap().contains("containers-common"));
}

#[test]
fn an_ostree_remote_is_understood_and_refused() {
    let reference = "ostree-remote-image:keys:docker://r.example/os:1";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let parsed = reference.parse().unwrap();
    let error = runtime
        .block_on(ImageSource::open_with(&parsed, &Home::new().options()))
        .unwrap_err();
    assert_eq!(fault(&error).kind, Kind::Unsupported);
}
