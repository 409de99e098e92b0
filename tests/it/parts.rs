//! Single ranges of a blob from registries: real ones, mirrors, with logins, certificates and tokens.

use crate::support::home::Home;
use crate::support::image::Image;
use crate::support::layer::Layer;
use crate::support::ranges::{Opened, plain, push, read, redirect};
use crate::support::registry::{Certificate, Registry, Setup};
use crate::support::scripted::{Scripted, answer, part};
use apt_ostree::image::proxy::SourceOptions;
use oci_spec::image::Digest;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
fn the_variables_of_go_name_authorities_and_proxies() {
    let server = Certificate::valid();
    let registry = Registry::start_with(&Setup {
        certificate: Some(&server),
        ..Setup::default()
    });
    let home = Home::new();
    let options = |home: &Home, name: &str, value: &std::path::Path| SourceOptions {
        surroundings: home.surroundings().with(name, value),
        ..home.options()
    };
    home.trust(&registry.location(), &server);
    push(&home, &registry);
    let reference = registry.reference("os:1");
    let file = server.file();
    for (name, value) in [
        ("SSL_CERT_FILE", file.as_path()),
        ("SSL_CERT_DIR", file.parent().unwrap()),
    ] {
        let other = Home::new();
        let opened = Opened::with(&options(&other, name, value), &reference);
        let bytes = read(opened.expect_parts().as_ref(), 10..20).unwrap();
        assert_eq!(bytes, opened.blob[10..20], "{name}");
    }

    let opened = Opened::at(&home, &reference);
    let blob = Arc::clone(&opened.blob);
    let proxy = Scripted::start(move |request| match request.line.starts_with("CONNECT ") {
        true => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        false => part(request, &blob),
    });
    let address = format!("http://user:s3cret@{}", proxy.location());
    let opened = Opened::with(&options(&home, "http_proxy", address.as_ref()), &reference);
    redirect(&home, &registry, &["registry.invalid"]);
    let bytes = read(opened.expect_parts().as_ref(), 10..20).unwrap();
    assert_eq!(bytes, opened.blob[10..20]);
    let asked = proxy.take_requests();
    assert_eq!(asked[0].line, "CONNECT registry.invalid:80");
    assert_eq!(asked[0].header("proxy-authorization"), "Basic dXNlcjpzM2NyZXQ=");
    assert_eq!(asked.last().unwrap().header("host"), "registry.invalid");
    assert_eq!(asked.last().unwrap().header("proxy-authorization"), "");
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
