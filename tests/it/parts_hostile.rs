//! Single ranges of a blob from servers that lie, send elsewhere, break off or hang.

use crate::support::home::Home;
use crate::support::ranges::{Opened, plain, read, redirect};
use crate::support::relay::{Behaviour, Relay};
use crate::support::scripted::{Request, Scripted, answer, part};
use apt_ostree::image::proxy::ImageSource;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        // What was found out about a registry is kept as long as the image is open.
        home.insecure(&[&registry.location()]);
        let opened = Opened::at(&home, &registry.reference("os:1"));
        redirect(&home, &registry, &[&server.location()]);
        let error = read(opened.expect_parts().as_ref(), 10..20).expect_err(&shown);
        assert!(
            format!("{error:#}").contains("another range"),
            "{shown}: {error:#}"
        );
    }
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
