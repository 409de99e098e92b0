//! Sources that fail in the middle of a host's life: a clear fault, nothing changed, and the next pull works.
//!
//! What is wrong inside an image is the subject of `import_faults`.

use crate::support::home::Home;
use crate::support::image::{Damage, Image, OciImage};
use crate::support::keys::Key;
use crate::support::layer::Layer;
use crate::support::registry::{Certificate, Registry, Setup, free_port};
use crate::support::relay::{Behaviour, Relay};
use crate::support::repo::TestRepo;
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::image::pull::{PullOptions, Pulled, pull};
use apt_ostree::report::Silent;
use tempfile::TempDir;

/// A repository that holds one image already.
struct Scene {
    home: Home,
    repo: TestRepo,
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let (home, repo) = (Home::new(), TestRepo::new());
        let directory = tempfile::tempdir().expect("directory");
        let scene = Self {
            home,
            repo,
            directory,
        };
        let first = scene.written(&Image::bootable("1"), "first");
        scene.pull(&first.reference()).expect("first image");
        scene
    }

    /// Writes an image into an OCI directory of its own.
    fn written(&self, image: &Image, name: &str) -> OciImage {
        image.write(&self.directory.path().join(name), "x")
    }

    fn pull(&self, reference: &str) -> anyhow::Result<Pulled> {
        let options = PullOptions {
            require_bootable: true,
            require_kernel: true,
            source: self.home.options(),
            ..PullOptions::default()
        };
        pull(&self.repo.open(), &reference.parse()?, &options, &Silent)
    }

    /// Pulls what must be refused, and checks that nothing changed.
    fn refused(&self, reference: &str, kinds: &[Kind]) -> Fault {
        let before = self.repo.refs();
        assert!(!before.is_empty());
        let error = self.pull(reference).expect_err(reference);
        let fault = Fault::find(&error).unwrap_or_else(|| panic!("{reference}: no fault: {error:#}"));
        assert!(kinds.contains(&fault.kind), "{:?}: {error:#}", fault.kind);
        assert_eq!(self.repo.refs(), before, "{reference}: refs changed");
        self.repo.assert_sound();
        fault.clone()
    }

    /// Pulls what must work after all, and checks the repository.
    fn accepted(&self, reference: &str) -> Pulled {
        let pulled = self
            .pull(reference)
            .unwrap_or_else(|error| panic!("{reference}: {error:#}"));
        self.repo.assert_sound();
        pulled
    }
}

#[test]
fn damaged_layers_change_nothing() {
    for damage in [
        Damage::WrongDigest,
        Damage::WrongSize(9),
        Damage::WrongSize(-9),
        Damage::Truncated,
        Damage::TruncatedInside,
        Damage::Missing,
    ] {
        let scene = Scene::new();
        let layer = || Layer::new().noise("usr/noise", 200_000);
        let bad = scene.written(&Image::bootable("2").damaged_layer(layer(), damage), "bad");
        scene.refused(&bad.reference(), &[Kind::Invalid, Kind::NotFound]);
        let mended = Image::bootable("2").layer(layer()).write(&bad.path, "x");
        assert_eq!(
            scene.accepted(&mended.reference()).image.version(),
            Some("2".to_owned())
        );
    }
}

#[test]
fn a_source_that_does_not_have_the_image_changes_nothing() {
    let scene = Scene::new();
    let registry = Registry::start();
    scene.home.insecure(&[&registry.location()]);
    let good = scene.written(&Image::bootable("2"), "good");
    let gone = [Kind::NotFound, Kind::Unreachable];
    scene.refused(&registry.reference("os:1"), &gone);
    good.push(&scene.home, &registry.name("os:1"), &[]);
    scene.refused(&registry.reference("os:2"), &[Kind::NotFound]);
    scene.refused("ostree-unverified-image:oci:/nonexistent/os:1", &[Kind::NotFound]);
    scene.refused(
        "ostree-unverified-image:oci-archive:/nonexistent.tar",
        &[Kind::NotFound],
    );
    let reference = format!("ostree-unverified-image:oci:{}:other", good.path.display());
    scene.refused(&reference, &gone);
    scene.refused(
        &format!("ostree-unverified-registry:127.0.0.1:{}/os:1", free_port()),
        &[Kind::Unreachable],
    );
    scene.accepted(&registry.reference("os:1"));
}

/// A registry behind a relay, with an image of which one layer is large enough to break off in the middle.
fn relayed(scene: &Scene) -> (Registry, Relay) {
    let registry = Registry::start();
    let relay = Relay::start(registry.port());
    scene.home.insecure(&[&registry.location(), &relay.location()]);
    let image = Image::bootable("2")
        .layer(Layer::new().noise("usr/one", 400_000))
        .layer(Layer::new().noise("usr/two", 400_000));
    scene
        .written(&image, "large")
        .push(&scene.home, &registry.name("os:1"), &[]);
    (registry, relay)
}

#[test]
fn a_registry_that_dies_in_a_layer_and_comes_back_is_no_failure() {
    let scene = Scene::new();
    let (_registry, relay) = relayed(&scene);
    relay.behave_times(Behaviour::CutAfter(200_000), 2);
    let pulled = scene.accepted(&relay.reference("os:1"));
    assert_eq!(pulled.layers_fetched, 3);
}

#[test]
fn a_registry_that_stays_dead_changes_nothing() {
    let scene = Scene::new();
    let (_registry, relay) = relayed(&scene);
    relay.behave(Behaviour::CutAfter(200_000));
    let fault = scene.refused(&relay.reference("os:1"), &[Kind::Unreachable]);
    assert!(fault.hint.is_some(), "{fault}");
    relay.behave(Behaviour::Refuse);
    scene.refused(&relay.reference("os:1"), &[Kind::Unreachable]);
    relay.behave(Behaviour::Pass);
    scene.accepted(&relay.reference("os:1"));
}

#[test]
fn a_pull_of_what_is_stored_costs_one_manifest() {
    let scene = Scene::new();
    let (_registry, relay) = relayed(&scene);
    scene.accepted(&relay.reference("os:1"));
    relay.take_requests();
    assert!(scene.accepted(&relay.reference("os:1")).unchanged);
    let requests = relay.take_requests();
    let of_images: Vec<_> = requests
        .iter()
        .filter(|request| request.contains("/manifests/") || request.contains("/blobs/"))
        .collect();
    assert_eq!(of_images.len(), 1, "{requests:?}");
    assert!(of_images[0].contains("/manifests/"), "{requests:?}");
}

#[test]
fn a_refused_password_changes_nothing() {
    let scene = Scene::new();
    let registry = Registry::start_with(&Setup {
        login: Some(("user", "right")),
        ..Setup::default()
    });
    scene.home.insecure(&[&registry.location()]);
    scene.home.podman_login(&registry.location(), "user", "right");
    let good = scene.written(&Image::bootable("2"), "good");
    good.push(&scene.home, &registry.name("os:1"), &[]);
    scene.home.podman_login(&registry.location(), "user", "wrong");
    scene.refused(&registry.reference("os:1"), &[Kind::Unreachable]);
    scene.home.podman_login(&registry.location(), "user", "right");
    scene.accepted(&registry.reference("os:1"));
}

#[test]
fn an_expired_certificate_changes_nothing() {
    let scene = Scene::new();
    let certificate = Certificate::expired();
    let mut registry = Registry::start_with(&Setup {
        certificate: Some(&certificate),
        ..Setup::default()
    });
    let good = scene.written(&Image::bootable("2"), "good");
    good.push(&scene.home, &registry.name("os:1"), &[]);
    scene.home.trust(&registry.location(), &certificate);
    scene.refused(&registry.reference("os:1"), &[Kind::Unreachable]);
    certificate.renew();
    registry.stop();
    registry.resume();
    scene.home.trust(&registry.location(), &certificate);
    scene.accepted(&registry.reference("os:1"));
}

#[test]
fn a_policy_that_refuses_or_does_not_parse_changes_nothing() {
    let scene = Scene::new();
    let registry = Registry::start();
    let (key, other) = (Key::new("trusted"), Key::new("other"));
    scene.home.insecure(&[&registry.location()]);
    scene
        .home
        .lookaside(&registry.location(), &scene.home.path().join("lookaside"));
    let good = scene.written(&Image::bootable("2"), "good");
    let reference = format!("ostree-image-signed:{}", registry.name("os:1"));
    good.push(&scene.home, &registry.name("os:1"), &[]);
    scene.refused(&reference, &[Kind::Denied]);
    scene.home.policy("{ nothing");
    let fault = scene.refused(&reference, &[Kind::Invalid]);
    assert!(fault.message.contains("policy.json"), "{fault}");
    scene.home.policy(key.policy(&registry.location()));
    scene.refused(&reference, &[Kind::Denied]);
    other.push_signed(&scene.home, &good, &registry.name("os:1"));
    scene.refused(&reference, &[Kind::Denied]);
    key.push_signed(&scene.home, &good, &registry.name("os:1"));
    scene.accepted(&reference);
    let tampered = scene.written(&Image::bootable("3"), "tampered");
    tampered.push(&scene.home, &registry.name("os:1"), &[]);
    let error = scene.pull(&reference).expect_err("tampered");
    assert_eq!(
        Fault::find(&error).map(|fault| fault.kind),
        Some(Kind::Denied),
        "{error:#}"
    );
    key.push_signed(&scene.home, &tampered, &registry.name("os:1"));
    scene.accepted(&reference);
}
