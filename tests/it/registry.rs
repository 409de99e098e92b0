//! Reading images from a real registry through real skopeo.

use crate::support::home::Home;
use crate::support::image::{Damage, Image, OciImage, blob_path, sha256};
use crate::support::layer::{Layer, Packing};
use crate::support::registry::Registry;
use crate::support::relay::{Behaviour, Relay};
use crate::support::write;
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::image::proxy::{ImageSource, SourceOptions};
use apt_ostree::image::reference::ImageReference;
use std::io::Read;

/// Opens an image and reads all its layers, at the same time, each in a thread of its own.
pub(crate) fn fetch(reference: &str, options: &SourceOptions) -> anyhow::Result<Vec<Vec<u8>>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let reference = reference.parse()?;
    let source = runtime.block_on(ImageSource::open_with(&reference, options))?;
    let mut running = Vec::new();
    for layer in source.layers() {
        let (mut blob, driver) = runtime.block_on(source.blob(&layer.digest, layer.size))?;
        let reader = std::thread::spawn(move || {
            let mut data = Vec::new();
            blob.read_to_end(&mut data).map(|_| data)
        });
        running.push((reader, driver));
    }
    let mut layers = Vec::new();
    for (reader, driver) in running {
        runtime.block_on(driver)?;
        layers.push(reader.join().expect("reader")?);
    }
    runtime.block_on(source.close());
    Ok(layers)
}

pub(crate) fn fault(error: &anyhow::Error) -> &Fault {
    Fault::find(error).unwrap_or_else(|| panic!("no fault: {error:#}"))
}

/// An image with three layers of some size and the registry that has it.
fn served(home: &Home) -> (Registry, Vec<Vec<u8>>) {
    let registry = Registry::start();
    let directory = tempfile::tempdir().expect("image");
    let layers = ["one", "two", "three"].map(|name| Layer::new().noise(name, 600_000));
    let image = layers.into_iter().fold(Image::new(), Image::layer);
    let image = image.write(directory.path(), "x");
    image.push(home, &registry.name("os:1"), &[]);
    home.insecure(&[&registry.location()]);
    let expected = fetch(&image.reference(), &home.options()).expect("image");
    assert_eq!(expected.len(), 3);
    (registry, expected)
}

#[test]
fn layers_arrive_whole_and_at_the_same_time() {
    let home = Home::new();
    let (registry, expected) = served(&home);
    assert_eq!(
        fetch(&registry.reference("os:1"), &home.options()).unwrap(),
        expected
    );
}

#[test]
fn opening_costs_one_manifest_request() {
    let home = Home::new();
    let (registry, _) = served(&home);
    let relay = Relay::start(registry.port());
    home.insecure(&[&relay.location()]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let reference = relay.reference("os:1").parse().unwrap();
    let source = runtime
        .block_on(ImageSource::open_with(&reference, &home.options()))
        .unwrap();
    runtime.block_on(source.close());
    let requests = relay.take_requests();
    let manifests = requests
        .iter()
        .filter(|request| request.contains("/manifests/"))
        .count();
    assert_eq!(manifests, 1, "{requests:?}");
    assert!(
        !requests.iter().any(|request| request.contains("/blobs/")),
        "{requests:?}"
    );
}

#[test]
fn a_layer_that_breaks_off_is_fetched_again() {
    let home = Home::new();
    let (registry, expected) = served(&home);
    let relay = Relay::start(registry.port());
    home.insecure(&[&relay.location()]);
    relay.behave_times(Behaviour::CutAfter(300_000), 2);
    assert_eq!(
        fetch(&relay.reference("os:1"), &home.options()).unwrap(),
        expected
    );
}

#[test]
fn a_layer_that_keeps_breaking_off_is_a_clear_fault() {
    let home = Home::new();
    let (registry, _) = served(&home);
    let relay = Relay::start(registry.port());
    home.insecure(&[&relay.location()]);
    relay.behave(Behaviour::CutAfter(300_000));
    let error = fetch(&relay.reference("os:1"), &home.options()).unwrap_err();
    assert_eq!(fault(&error).kind, Kind::Unreachable, "{error:#}");
    assert!(fault(&error).hint.is_some());
}

#[test]
fn a_registry_that_hangs_is_given_up() {
    let home = Home::new();
    let (registry, _) = served(&home);
    let relay = Relay::start(registry.port());
    home.insecure(&[&relay.location()]);
    relay.behave(Behaviour::HangAfter(300_000));
    let mut options = home.options();
    options.limits.stall = std::time::Duration::from_secs(1);
    options.limits.answer = std::time::Duration::from_secs(3);
    let start = std::time::Instant::now();
    let error = fetch(&relay.reference("os:1"), &options).unwrap_err();
    assert_eq!(fault(&error).kind, Kind::Unreachable, "{error:#}");
    assert!(
        start.elapsed() < std::time::Duration::from_secs(40),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_tag_that_moves_during_a_fetch_does_not_mix_images() {
    let home = Home::new();
    let (registry, expected) = served(&home);
    let relay = Relay::start(registry.port());
    home.insecure(&[&relay.location(), &registry.location()]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let reference = relay.reference("os:1").parse().unwrap();
    let source = runtime
        .block_on(ImageSource::open_with(&reference, &home.options()))
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let other = Image::new().layer(Layer::new().noise("other", 1000));
    other
        .write(directory.path(), "x")
        .push(&home, &registry.name("os:1"), &[]);
    relay.behave_times(Behaviour::CutAfter(300_000), 1);
    for (layer, expected) in source.layers().iter().zip(&expected) {
        let (mut blob, driver) = runtime.block_on(source.blob(&layer.digest, layer.size)).unwrap();
        let mut data = Vec::new();
        blob.read_to_end(&mut data).unwrap();
        runtime.block_on(driver).unwrap();
        assert_eq!(&data, expected);
    }
}

#[test]
fn an_image_pinned_by_digest_must_be_that_image() {
    let home = Home::new();
    let (registry, expected) = served(&home);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let reference: ImageReference = registry.reference("os:1").parse().unwrap();
    let source = runtime
        .block_on(ImageSource::open_with(&reference, &home.options()))
        .unwrap();
    let pinned = reference.with_digest(source.manifest_digest()).unwrap();
    assert_eq!(fetch(&pinned.to_string(), &home.options()).unwrap(), expected);
    // The registry's own storage now answers that digest with other bytes.
    let manifest = registry.blob(source.manifest_digest());
    let text = std::fs::read_to_string(&manifest).unwrap().replacen(
        "\"schemaVersion\":2",
        "\"schemaVersion\": 2",
        1,
    );
    std::fs::write(&manifest, text).unwrap();
    fetch(&pinned.to_string(), &home.options()).unwrap_err();
}

#[test]
fn an_index_gives_this_architecture_and_can_be_pinned() {
    let home = Home::new();
    let registry = Registry::start();
    home.insecure(&[&registry.location()]);
    let directory = tempfile::tempdir().unwrap();
    let mine = Image::bootable("1").write(directory.path(), "mine");
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": mine.manifest_digest,
            "size": std::fs::metadata(blob_path(directory.path(), &mine.manifest_digest)).unwrap().len(),
            "platform": { "architecture": Image::new().architecture_name(), "os": "linux" },
        }],
    })
    .to_string();
    let digest = sha256(index.as_bytes());
    write(blob_path(directory.path(), &digest), &index);
    let top = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": index.len(),
        "annotations": { "org.opencontainers.image.ref.name": "all" },
    }]});
    write(directory.path().join("index.json"), top.to_string());
    let all = OciImage {
        path: directory.path().to_owned(),
        tag: "all".to_owned(),
        manifest_digest: digest.clone(),
    };
    all.push(&home, &registry.name("os:1"), &["--all"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for name in ["os:1".to_owned(), format!("os@{digest}")] {
        let reference = registry.reference(&name).parse().unwrap();
        let source = runtime
            .block_on(ImageSource::open_with(&reference, &home.options()))
            .unwrap();
        assert_eq!(source.manifest_digest(), mine.manifest_digest, "{name}");
    }
}

#[test]
fn damaged_layers_are_faults_and_not_retried_for_ever() {
    let home = Home::new();
    for damage in [
        Damage::WrongDigest,
        Damage::WrongSize(7),
        Damage::WrongSize(-7),
        Damage::Truncated,
        Damage::Missing,
    ] {
        let directory = tempfile::tempdir().unwrap();
        let image = Image::new()
            .layer(Layer::new().noise("good", 10_000))
            .damaged_layer(Layer::new().noise("bad", 300_000), damage)
            .write(directory.path(), "x");
        let error = fetch(&image.reference(), &home.options()).unwrap_err();
        let kind = fault(&error).kind;
        assert!(
            matches!(kind, Kind::Invalid | Kind::NotFound),
            "{damage:?}: {error:#}"
        );
    }
}

#[test]
fn a_layer_damaged_in_the_registry_is_a_fault() {
    for (change, expected) in [
        ("flip", Kind::Invalid),
        ("cut", Kind::Unreachable),
        ("grow", Kind::Invalid),
    ] {
        let home = Home::new();
        let (registry, _) = served(&home);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let reference = registry.reference("os:1").parse().unwrap();
        let source = runtime
            .block_on(ImageSource::open_with(&reference, &home.options()))
            .unwrap();
        let file = registry.blob(source.layers()[1].digest.as_ref());
        let mut data = std::fs::read(&file).unwrap();
        match change {
            "flip" => data[1000] ^= 0xff,
            "cut" => data.truncate(200_000),
            _ => data.extend_from_slice(&[0; 300_000]),
        }
        std::fs::write(&file, data).unwrap();
        let error = fetch(&registry.reference("os:1"), &home.options()).unwrap_err();
        // From protocol 0.2.8 on skopeo tells the size beforehand, so there a cut blob is known to be corrupt.
        let kind = fault(&error).kind;
        assert!(kind == expected || kind == Kind::Invalid, "{change}: {error:#}");
    }
}

#[test]
fn no_skopeo_is_left_behind() {
    let home = Home::new();
    let (registry, _) = served(&home);
    fetch(&registry.reference("os:1"), &home.options()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let reference = registry.reference("os:1").parse().unwrap();
    let source = runtime
        .block_on(ImageSource::open_with(&reference, &home.options()))
        .unwrap();
    // Dropped in the middle of a transfer, as Ctrl-C does.
    let layer = source.layers()[0].clone();
    let (blob, driver) = runtime.block_on(source.blob(&layer.digest, layer.size)).unwrap();
    let marks = format!("{}/", home.path().display());
    assert_eq!(processes_with_home(&marks), 1);
    drop((blob, driver, source));
    drop(runtime);
    let start = std::time::Instant::now();
    while processes_with_home(&marks) > 0 {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(5),
            "a skopeo is left"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Counts the processes whose environment names the test's home directory.
fn processes_with_home(home: &str) -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0;
    };
    processes
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("environ")).ok())
        .filter(|environment| String::from_utf8_lossy(environment).contains(home))
        .count()
}

#[test]
fn every_transport_is_read() {
    let home = Home::new();
    let directory = tempfile::tempdir().unwrap();
    let image = Image::bootable("1")
        .layer(Layer::new().noise("usr/share/one", 300_000))
        .layer(Layer::new().noise("usr/share/two", 300_000).packed(Packing::None))
        .write(&directory.path().join("oci"), "x");
    let at = |name: &str| directory.path().join(name).display().to_string();
    for name in [
        format!("oci:{}:x", at("again")),
        format!("oci-archive:{}", at("image.oci.tar")),
        format!("docker-archive:{}", at("image.docker.tar")),
        format!("dir:{}", at("plain")),
        "containers-storage:localhost/os:1".to_owned(),
    ] {
        image.push(&home, &name, &[]);
        let layers = fetch(&format!("ostree-unverified-image:{name}"), &home.options())
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(layers.len(), 3, "{name}");
    }
}
