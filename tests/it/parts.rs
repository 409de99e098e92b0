//! Single ranges of a blob, from a real registry and from servers that lie or break off.

use crate::support::home::Home;
use crate::support::image::Image;
use crate::support::layer::Layer;
use crate::support::registry::{Certificate, Registry, Setup};
use crate::support::relay::{Behaviour, Relay};
use crate::support::scripted::{Request, Scripted, answer, part};
use apt_ostree::image::parts::Parts;
use apt_ostree::image::proxy::ImageSource;
use oci_spec::image::Digest;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An image with one layer, opened at its registry, and the layer's bytes.
struct Opened {
    // Dropped in this order: the source needs its runtime.
    source: ImageSource,
    runtime: tokio::runtime::Runtime,
    digest: Digest,
    blob: Arc<Vec<u8>>,
}

impl Opened {
    fn at(home: &Home, reference: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let reference = reference.parse().expect("reference");
        let source = runtime
            .block_on(ImageSource::open_with(&reference, &home.options()))
            .unwrap_or_else(|error| panic!("{error:#}"));
        let layer = source.layers()[0].clone();
        let (mut reader, driver) = runtime
            .block_on(source.blob(&layer.digest, layer.size))
            .expect("blob");
        let mut blob = Vec::new();
        reader.read_to_end(&mut blob).expect("blob");
        runtime.block_on(driver).expect("blob");
        Self {
            source,
            runtime,
            digest: layer.digest,
            blob: Arc::new(blob),
        }
    }

    fn parts(&self) -> anyhow::Result<Option<Box<dyn Parts>>> {
        self.source.parts(&self.digest, self.blob.len() as u64)
    }

    fn expect_parts(&self) -> Box<dyn Parts> {
        let parts = self.parts().unwrap_or_else(|error| panic!("{error:#}"));
        parts.expect("parts")
    }

    fn close(self) {
        self.runtime.block_on(self.source.close());
    }
}

fn push(home: &Home, registry: &Registry) {
    let directory = tempfile::tempdir().expect("image");
    Image::new()
        .layer(Layer::new().noise("one", 600_000))
        .write(directory.path(), "x")
        .push(home, &registry.name("os:1"), &[]);
}

/// A registry with an image that anybody may read, and the opened image.
fn plain(home: &Home) -> (Registry, Opened) {
    let registry = Registry::start();
    push(home, &registry);
    home.insecure(&[&registry.location()]);
    let opened = Opened::at(home, &registry.reference("os:1"));
    (registry, opened)
}

/// Sends whatever is asked of the registry from now on to these places, mirrors first.
fn redirect(home: &Home, registry: &Registry, locations: &[&str]) {
    let (last, mirrors) = locations.split_last().expect("locations");
    let mut text = format!(
        "[[registry]]\nprefix = \"{}\"\nlocation = \"{last}\"\ninsecure = true\n",
        registry.location()
    );
    for mirror in mirrors {
        text += &format!("[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true\n");
    }
    home.registries(&text);
}

fn read(parts: &dyn Parts, range: Range<u64>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    parts.read(range)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn ranges_come_as_they_are_asked_for() {
    let home = Home::new();
    let (_registry, opened) = plain(&home);
    let parts = opened.expect_parts();
    let size = opened.blob.len() as u64;
    let ranges = [0..1, 100..5000, size - 300..size, 0..size, 7..7];
    std::thread::scope(|scope| {
        for range in &ranges {
            let (parts, blob) = (parts.as_ref(), &opened.blob);
            scope.spawn(move || {
                let expected = &blob[range.start as usize..range.end as usize];
                assert!(read(parts, range.clone()).unwrap() == expected, "{range:?}");
            });
        }
    });
    let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    assert_eq!(parts.received(), wanted);
    assert!(read(parts.as_ref(), size - 1..size + 1).is_err());
    let absent: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let absent = opened.source.parts(&absent, 100).unwrap().unwrap();
    let error = read(absent.as_ref(), 0..10).unwrap_err();
    assert!(format!("{error:#}").contains("404"), "{error:#}");
    opened.close();
}

#[test]
fn what_is_in_no_registry_or_a_blocked_one_has_no_parts() {
    let home = Home::new();
    let directory = tempfile::tempdir().unwrap();
    let image = Image::new().layer(Layer::new().noise("one", 1000));
    let opened = Opened::at(&home, &image.write(directory.path(), "x").reference());
    assert!(opened.parts().unwrap().is_none());
    let (registry, opened) = plain(&home);
    home.registries(&format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\nblocked = true\n",
        registry.location()
    ));
    assert!(opened.parts().unwrap().is_none());
}

#[test]
fn plain_http_needs_to_be_allowed() {
    let home = Home::new();
    let (_registry, opened) = plain(&home);
    home.registries("");
    let error = read(opened.expect_parts().as_ref(), 0..10).unwrap_err();
    assert!(format!("{error:#}").contains("127.0.0.1"), "{error:#}");
}

#[test]
fn a_login_is_used_and_a_wrong_one_is_not_repeated() {
    for (password, accepted) in [("right", true), ("wr0ng-s3cret", false)] {
        let registry = Registry::start_with(&Setup {
            login: Some(("user", "right")),
            ..Setup::default()
        });
        let home = Home::new();
        home.insecure(&[&registry.location()]);
        home.podman_login(&registry.location(), "user", "right");
        push(&home, &registry);
        let opened = Opened::at(&home, &registry.reference("os:1"));
        home.podman_login(&registry.location(), "user", password);
        let outcome = read(opened.expect_parts().as_ref(), 10..20);
        match outcome {
            Ok(bytes) => assert!(accepted && bytes == opened.blob[10..20]),
            Err(error) => {
                assert!(!accepted, "{error:#}");
                assert!(!format!("{error:?}").contains("wr0ng-s3cret"));
            }
        }
    }
}

#[test]
fn certificates_are_checked_and_shown() {
    let (server, client) = (Certificate::valid(), Certificate::valid());
    let registry = Registry::start_with(&Setup {
        certificate: Some(&server),
        client_authority: Some(&client),
        ..Setup::default()
    });
    let home = Home::new();
    home.trust(&registry.location(), &server);
    home.identify(&registry.location(), &client);
    push(&home, &registry);
    let opened = Opened::at(&home, &registry.reference("os:1"));
    let bytes = read(opened.expect_parts().as_ref(), 10..20).unwrap();
    assert_eq!(bytes, opened.blob[10..20]);
    for missing in ["ca.crt", "client.*"] {
        let home = Home::new();
        home.trust(&registry.location(), &server);
        home.identify(&registry.location(), &client);
        let opened = Opened::at(&home, &registry.reference("os:1"));
        let folder = home
            .path()
            .join(".config/containers/certs.d")
            .join(registry.location());
        for name in ["ca.crt", "client.cert", "client.key"] {
            if name.starts_with(missing.trim_end_matches('*')) {
                std::fs::remove_file(folder.join(name)).unwrap();
            }
        }
        read(opened.expect_parts().as_ref(), 10..20).expect_err(missing);
    }
}

#[test]
fn mirrors_go_first_and_the_registry_has_what_they_lack() {
    let home = Home::new();
    let (registry, opened) = plain(&home);
    let blob = Arc::clone(&opened.blob);
    let lacking = Scripted::start(|_| answer("404 Not Found", &[], b"no"));
    let having = Scripted::start(move |request| part(request, &blob));
    let gone = "127.0.0.1:1";
    redirect(
        &home,
        &registry,
        &[
            gone,
            &lacking.location(),
            &having.location(),
            &registry.location(),
        ],
    );
    let parts = opened.expect_parts();
    for range in [10..20, 30..40] {
        let expected = opened.blob[range.start as usize..range.end as usize].to_vec();
        assert_eq!(read(parts.as_ref(), range).unwrap(), expected);
    }
    assert_eq!(lacking.take_requests().len(), 1);
    assert_eq!(having.take_requests().len(), 2);
    assert_eq!(having.connections(), 1);
}

#[test]
fn a_server_without_ranges_is_asked_once() {
    let home = Home::new();
    let (registry, opened) = plain(&home);
    let blob = Arc::clone(&opened.blob);
    let server = Scripted::start(move |_| answer("200 OK", &[], &blob));
    redirect(&home, &registry, &[&server.location()]);
    for _ in 0..2 {
        let parts = opened.expect_parts();
        let error = read(parts.as_ref(), 0..10).unwrap_err();
        assert!(format!("{error:#}").contains("single ranges"), "{error:#}");
        assert_eq!(parts.received(), 0);
    }
    assert_eq!(server.take_requests().len(), 1);
}

#[test]
fn an_answer_with_another_range_or_length_is_refused() {
    let home = Home::new();
    let (registry, opened) = plain(&home);
    let size = opened.blob.len();
    for (told, body) in [
        (format!("Content-Range: bytes 11-20/{size}"), 10),
        (format!("Content-Range: bytes 10-19/{}", size + 1), 10),
        (format!("Content-Range: bytes 10-19/{size}"), 11),
        (format!("Content-Range: bytes 10-19/{size}"), 9),
        (
            format!("Content-Range: bytes 10-19/{size}\r\nContent-Encoding: gzip"),
            10,
        ),
        ("X-Nothing: 1".to_owned(), 10),
    ] {
        let shown = format!("{told} with {body} bytes");
        let server = Scripted::start(move |_| answer("206 Partial Content", &[&told], &vec![1; body]));
        redirect(&home, &registry, &[&server.location()]);
        // What was found out about the registry is kept as long as the image is open.
        let opened = Opened {
            source: reopened(&home, &registry, &opened),
            runtime: tokio::runtime::Runtime::new().unwrap(),
            digest: opened.digest.clone(),
            blob: Arc::clone(&opened.blob),
        };
        redirect(&home, &registry, &[&server.location()]);
        let error = read(opened.expect_parts().as_ref(), 10..20).expect_err(&shown);
        assert!(
            format!("{error:#}").contains("another range"),
            "{shown}: {error:#}"
        );
    }
}

fn reopened(home: &Home, registry: &Registry, opened: &Opened) -> ImageSource {
    home.insecure(&[&registry.location()]);
    let reference = registry.reference("os:1").parse().expect("reference");
    let source = opened
        .runtime
        .block_on(ImageSource::open_with(&reference, &home.options()));
    source.expect("image")
}

#[test]
fn more_bytes_than_asked_for_are_not_handed_on() {
    let home = Home::new();
    let (registry, opened) = plain(&home);
    let size = opened.blob.len();
    let blob = Arc::clone(&opened.blob);
    let server = Scripted::start(move |request| {
        let (first, end) = request.range().expect("a range");
        let mut text = format!(
            "HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes {first}-{}/{size}\r\n\r\n",
            end - 1
        )
        .into_bytes();
        text.extend(b"1000\r\n");
        text.extend(&blob[first..first + 0x1000]);
        text.extend(b"\r\n0\r\n\r\n");
        text
    });
    redirect(&home, &registry, &[&server.location()]);
    let parts = opened.expect_parts();
    assert_eq!(read(parts.as_ref(), 10..20).unwrap(), opened.blob[10..20]);
    assert_eq!(read(parts.as_ref(), 20..30).unwrap(), opened.blob[20..30]);
    assert_eq!(parts.received(), 20);
}

#[test]
fn a_range_that_breaks_off_goes_on_from_there() {
    let home = Home::new();
    let (registry, opened) = plain(&home);
    let relay = Relay::start(registry.port());
    redirect(&home, &registry, &[&relay.location()]);
    let parts = opened.expect_parts();
    let size = opened.blob.len() as u64;
    relay.behave_times(Behaviour::CutAfter(200_000), 2);
    assert!(read(parts.as_ref(), 0..size).unwrap() == *opened.blob);
    assert_eq!(parts.received(), size);
    relay.behave(Behaviour::CutAfter(0));
    read(parts.as_ref(), 0..size).unwrap_err();
}

#[test]
fn a_server_that_hangs_is_given_up() {
    let home = Home::new();
    let (registry, opened) = plain(&home);
    let relay = Relay::start(registry.port());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut options = home.options();
    options.limits.stall = std::time::Duration::from_millis(300);
    options.limits.answer = std::time::Duration::from_secs(2);
    let reference = registry.reference("os:1").parse().unwrap();
    let source = runtime
        .block_on(ImageSource::open_with(&reference, &options))
        .unwrap();
    redirect(&home, &registry, &[&relay.location()]);
    let layer = source.layers()[0].clone();
    let parts = source.parts(&layer.digest, layer.size).unwrap().unwrap();
    relay.behave(Behaviour::HangAfter(200_000));
    let bytes = read(parts.as_ref(), 0..layer.size).unwrap();
    assert!(bytes == *opened.blob);
    relay.behave(Behaviour::HangAfter(0));
    let error = read(parts.as_ref(), 0..layer.size).unwrap_err();
    assert!(format!("{error:#}").contains("in time"), "{error:#}");
}

/// A registry that asks for the login `user:s3cret` and sends on to `storage`.
fn guarded(storage: String) -> Scripted {
    Scripted::start(move |request| {
        if request.header("authorization") != "Basic dXNlcjpzM2NyZXQ=" {
            return answer("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], b"");
        }
        let location = format!("Location: http://{storage}/blob?signature=s1gned");
        answer("307 Temporary Redirect", &[&location], b"")
    })
}

#[test]
fn a_redirect_to_another_host_is_remembered_and_told_no_login() {
    let home = Home::new();
    let (registry, opened) = plain(&home);
    let blob = Arc::clone(&opened.blob);
    let served = Arc::new(AtomicUsize::new(0));
    let storage = Scripted::start({
        let served = Arc::clone(&served);
        move |request| match served.fetch_add(1, Ordering::SeqCst) {
            // The signature of the address has expired.
            2 => answer("403 Forbidden", &[], b""),
            _ => part(request, &blob),
        }
    });
    let front = guarded(storage.location());
    redirect(&home, &registry, &[&front.location()]);
    home.podman_login(&front.location(), "user", "s3cret");
    let parts = opened.expect_parts();
    for range in [10..20, 20..30, 30..40, 40..50] {
        let expected = opened.blob[range.start as usize..range.end as usize].to_vec();
        assert_eq!(read(parts.as_ref(), range).unwrap(), expected);
    }
    let asked = storage.take_requests();
    assert_eq!(asked.len(), 5);
    let told = |request: &Request| request.headers.contains_key("authorization");
    assert!(!asked.iter().any(told), "{asked:?}");
    // Once without the login, once with it, and once more for another address.
    assert_eq!(front.take_requests().len(), 3);
    assert_eq!((front.connections(), storage.connections()), (1, 1));
}

#[test]
fn an_error_behind_a_redirect_names_the_host_alone() {
    let home = Home::new();
    let (registry, opened) = plain(&home);
    let storage = Scripted::start(|_| answer("400 Bad Request", &[], b""));
    let front = guarded(storage.location());
    redirect(&home, &registry, &[&front.location()]);
    home.podman_login(&front.location(), "user", "s3cret");
    let error = read(opened.expect_parts().as_ref(), 0..10).unwrap_err();
    let shown = format!("{error:?}");
    assert!(shown.contains("400"), "{shown}");
    for secret in ["s1gned", "s3cret", "dXNlcjpzM2NyZXQ="] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn redirects_without_end_are_given_up() {
    let home = Home::new();
    let (registry, opened) = plain(&home);
    let front = Scripted::start(|_| answer("302 Found", &["Location: /again"], b""));
    redirect(&home, &registry, &[&front.location()]);
    let error = read(opened.expect_parts().as_ref(), 0..10).unwrap_err();
    assert!(format!("{error:#}").contains("too often"), "{error:#}");
}

/// A token service that gives `token-N` to the user, and a registry that takes the tokens from `valid` on.
fn with_tokens(blob: Arc<Vec<u8>>, valid: Arc<AtomicUsize>) -> (Scripted, Scripted) {
    let given = AtomicUsize::new(0);
    let service = Scripted::start(move |request| {
        if request.header("authorization") != "Basic dXNlcjpzM2NyZXQ=" {
            return answer("401 Unauthorized", &[], b"");
        }
        let number = given.fetch_add(1, Ordering::SeqCst);
        answer(
            "200 OK",
            &[],
            format!("{{\"token\": \"token-{number}\"}}").as_bytes(),
        )
    });
    let realm = service.location();
    let registry = Scripted::start(move |request| {
        let token = request.header("authorization").strip_prefix("Bearer token-");
        let number = token.and_then(|token| token.parse::<usize>().ok());
        if number.is_some_and(|number| number >= valid.load(Ordering::SeqCst)) {
            return part(request, &blob);
        }
        let asked = format!("WWW-Authenticate: Bearer realm=\"http://{realm}/token\",service=\"test\"");
        answer("401 Unauthorized", &[&asked], b"{}")
    });
    (service, registry)
}

#[test]
fn a_token_is_had_for_the_login_kept_and_renewed() {
    let home = Home::new();
    let (registry, opened) = plain(&home);
    let valid = Arc::new(AtomicUsize::new(0));
    let (service, front) = with_tokens(Arc::clone(&opened.blob), Arc::clone(&valid));
    redirect(&home, &registry, &[&front.location()]);
    home.podman_login(&format!("{}/os", front.location()), "user", "s3cret");
    let parts = opened.expect_parts();
    for range in [10..20, 20..30] {
        let expected = opened.blob[range.start as usize..range.end as usize].to_vec();
        assert_eq!(read(parts.as_ref(), range).unwrap(), expected);
    }
    let asked = service.take_requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].line,
        "GET /token?service=test&scope=repository%3Aos%3Apull&account=user"
    );
    valid.store(1, Ordering::SeqCst);
    assert_eq!(read(parts.as_ref(), 0..10).unwrap(), opened.blob[0..10]);
    assert_eq!(service.take_requests().len(), 1);
    // A registry that takes no token at all is not asked for ever.
    valid.store(100, Ordering::SeqCst);
    let error = read(parts.as_ref(), 0..10).unwrap_err();
    assert_eq!(service.take_requests().len(), 1);
    for secret in ["token-", "s3cret"] {
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
}
