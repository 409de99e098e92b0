//! What watchers and other clients see of the service, and what hostile ones cannot do to it.

use crate::support::bus::{stream_as, wait_until};
use crate::support::service::{NAME, Service, USER};
use apt_ostree::daemon::proxy::Told;
use apt_ostree::report::{Event, Silent};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use zbus::zvariant::OwnedValue;

/// Room that the kernel has for what nobody reads, with a good margin.
const PIPE: usize = 8 << 20;

/// Connects to a transaction and says who it is, and no more.
fn greet(address: &str, uid: u32) -> Option<UnixStream> {
    let path = address.strip_prefix("unix:path=").expect("an address");
    let mut stream = stream_as(Path::new(path), uid);
    let id = hex::encode(uid.to_string());
    write!(stream, "\0AUTH EXTERNAL {id}\r\n").ok()?;
    let mut line = String::new();
    BufReader::new(stream.try_clone().expect("a copy"))
        .read_line(&mut line)
        .ok()?;
    if !line.starts_with("OK ") {
        return None;
    }
    stream.write_all(b"BEGIN\r\n").expect("a greeting");
    Some(stream)
}

/// Returns the bytes of a call that is answered with some text.
fn introspect() -> Vec<u8> {
    let call = zbus::message::Message::method_call("/", "Introspect").expect("a call");
    let call = call
        .interface("org.freedesktop.DBus.Introspectable")
        .expect("an interface");
    call.build(&()).expect("a message").data().to_vec()
}

#[test]
fn everybody_is_told_what_changes() {
    let service = Service::start();
    let client = service.client(USER);
    let rule = zbus::MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender(NAME)
        .expect("a sender")
        .member("PropertiesChanged")
        .expect("a member")
        .build();
    let mut signals =
        zbus::blocking::MessageIterator::for_match_rule(rule, &client.bus, Some(64)).expect("a subscription");
    let mut next = |wanted: &[(&str, &str)]| {
        let mut missing: BTreeSet<(String, String)> = wanted
            .iter()
            .map(|(path, name)| ((*path).to_owned(), (*name).to_owned()))
            .collect();
        while !missing.is_empty() {
            let message = signals.next().expect("a signal").expect("a message");
            let path = message.header().path().expect("a path").to_string();
            let (_, changed, _): (String, HashMap<String, OwnedValue>, Vec<String>) =
                message.body().deserialize().expect("properties");
            for name in changed.into_keys() {
                missing.remove(&(path.clone(), name));
            }
        }
    };
    let (sysroot, os, default) = (
        "/org/aptostree/dev/Sysroot",
        "/org/aptostree/dev/OS",
        "/org/aptostree/dev/OS/default",
    );
    service
        .client(0)
        .begin("kargs", json!({ "append": ["a=1"] }))
        .run(&Silent)
        .expect("success");
    next(&[
        (sysroot, "ActiveTransaction"),
        (sysroot, "ActiveTransactionPath"),
        (sysroot, "Deployments"),
        (os, "DefaultDeployment"),
        (default, "DefaultDeployment"),
    ]);
    // Somebody else's change, without the service.
    service.machine.ok(&["pin", "0"]);
    next(&[(sysroot, "Deployments"), (default, "DefaultDeployment")]);
    service.machine.ok(&["unpin", "0"]);
    service.machine.sysroot.admin("os-init", &["second-os"]);
    wait_until("the object of the new stateroot", || {
        let properties = Some("org.freedesktop.DBus.Properties");
        let path = "/org/aptostree/dev/OS/second_2dos";
        let body = ("org.aptostree.dev.OS1", "Name");
        let reply = client.bus.call_method(Some(NAME), path, properties, "Get", &body);
        reply.is_ok_and(|reply| {
            let name: OwnedValue = reply.body().deserialize().expect("a value");
            String::try_from(name).expect("text") == "second-os"
        })
    });
}

#[test]
fn a_peer_that_does_not_read_holds_nobody_up_and_fills_nothing() {
    let service = Service::start();
    let client = service.client(0);
    let held = service.hold_lock();
    let address = client
        .ask("kargs", json!({ "append": ["a=1"] }))
        .expect("granted");
    let transaction = client.attach(&address);
    transaction.start().expect("started");
    let mut deaf = greet(&address, USER).expect("a watcher");
    deaf.set_nonblocking(true).expect("a mode");
    let call = introspect();
    let mut sent = 0;
    loop {
        match deaf.write(&call) {
            Ok(count) => sent += count,
            // The service reads no more before it is read from.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < PIPE, "the service reads whatever comes");
    }
    let mut second = client.attach(&address);
    assert!(!second.start().expect("an answer"));
    drop(held);
    while second.hear().expect("an event") != Told::Finished {}
    transaction.run(&Silent).expect("success");
    drop(deaf);
}

#[test]
fn a_peer_that_breaks_the_rules_is_cut_off() {
    let service = Service::start();
    let client = service.client(0);
    let address = client
        .ask("kargs", json!({ "append": ["a=1"] }))
        .expect("granted");
    let is_cut_off = |mut stream: UnixStream| {
        let mut rest = Vec::new();
        // An end or an error, but no waiting.
        stream.read_to_end(&mut rest).ok();
    };
    // A message of 100 MiB is announced.
    let mut large = greet(&address, USER).expect("a watcher");
    let mut call = introspect();
    call[4..8].copy_from_slice(&(100_u32 << 20).to_le_bytes());
    large.write_all(&call).expect("written");
    is_cut_off(large);
    // Nonsense instead of a message, and instead of a greeting.
    let mut garbage = greet(&address, USER).expect("a watcher");
    garbage.write_all(&[0xff; 64]).expect("written");
    is_cut_off(garbage);
    let mut rude = stream_as(
        Path::new(address.strip_prefix("unix:path=").expect("a path")),
        USER,
    );
    rude.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    is_cut_off(rude);
    // A uid that is not theirs.
    let path = address.strip_prefix("unix:path=").expect("a path");
    let mut liar = stream_as(Path::new(path), USER);
    write!(liar, "\0AUTH EXTERNAL {}\r\n", hex::encode("0")).expect("written");
    let mut line = String::new();
    BufReader::new(liar).read_line(&mut line).expect("an answer");
    assert!(line.starts_with("REJECTED"), "{line}");

    client
        .attach(&address)
        .run(&Silent)
        .expect("the transaction is as it was");
}

#[test]
fn one_user_cannot_keep_another_from_watching() {
    let service = Service::start();
    let client = service.client(0);
    let address = client
        .ask("kargs", json!({ "append": ["a=1"] }))
        .expect("granted");
    let mut peers: Vec<UnixStream> = std::iter::from_fn(|| greet(&address, USER)).take(100).collect();
    assert!(
        (1..100).contains(&peers.len()),
        "{} watchers of one user",
        peers.len()
    );
    let transaction = client.attach(&address);
    // A place that is given back can be taken.
    peers.pop();
    wait_until("a free place", || greet(&address, USER).is_some());
    let mut steps = 0;
    transaction.start().expect("started");
    let mut transaction = transaction;
    while let Told::Event(event) = transaction.hear().expect("an event") {
        steps += usize::from(matches!(event, Event::Step { .. }));
    }
    assert!(transaction.result().is_ok(), "after {steps} steps");
}

#[test]
fn a_socket_is_gone_with_its_transaction() {
    let mut service = Service::start();
    let client = service.client(0);
    let address = client
        .ask("kargs", json!({ "append": ["a=1"] }))
        .expect("granted");
    let path = address.strip_prefix("unix:path=").expect("a path").to_owned();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("a socket").permissions());
    assert_eq!(mode & 0o777, 0o666, "anybody may watch");
    service.stop();
    assert!(!Path::new(&path).exists());
}
