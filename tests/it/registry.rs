//! Reading images from a real registry through real skopeo.

use crate::support::home::Home;
use crate::support::image::Image;
use crate::support::layer::Layer;
use crate::support::registry::Registry;
use crate::support::relay::{Behaviour, Relay};
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::image::proxy::{ImageSource, SourceOptions};
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

fn fault(error: &anyhow::Error) -> &Fault {
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
