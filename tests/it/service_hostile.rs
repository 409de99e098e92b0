//! The service and clients that keep to no rule: none of them stops it, makes it grow or changes the host.

use crate::support::bus::wait_until;
use crate::support::load::Load;
use crate::support::raw_bus::Raw;
use crate::support::service::{NAME, Service, USER};
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use zbus::Message;
use zbus::zvariant::{Fd, ObjectPath, Signature, Value};

/// The most memory that the service may ever have, in KiB.
const MOST: u64 = 96 << 10;

/// How much more it may have after a round than after the one before, in KiB.
const GROWTH: u64 = 8 << 10;

const SYSROOT: (&str, &str) = ("/org/aptostree/dev/Sysroot", "org.aptostree.dev.Sysroot1");
const OS: (&str, &str) = ("/org/aptostree/dev/OS", "org.aptostree.dev.OS1");

/// How the service was before anybody did anything to it.
struct Calm {
    pid: u32,
    load: Load,
    state: BTreeMap<String, String>,
    status: Json,
}

fn status(service: &Service) -> Json {
    let told = service.client(USER).service.status().expect("an answer");
    serde_json::from_str(&told).expect("JSON")
}

impl Calm {
    fn of(service: &Service) -> Self {
        let status = status(service);
        Self {
            pid: service.pid(),
            load: Load::of(service.pid()),
            state: service.machine.state(),
            status,
        }
    }

    /// Fails the test unless everything is as it was.
    fn assert(&self, service: &Service) {
        service.wait_until_idle();
        assert_eq!(status(service), self.status);
        assert_eq!(service.machine.state(), self.state);
        assert!(service.workers().is_empty());
        let load = Load::of(self.pid);
        assert!(load.peak < MOST, "{load:?}");
        assert!(
            load.resident < self.load.resident + GROWTH,
            "{:?} became {load:?}",
            self.load
        );
    }

    /// Fails the test unless all descriptors are given back, those of the sockets of transactions too.
    fn assert_closed(&self, service: &Service) {
        self.assert(service);
        wait_until("the end of what was opened", || {
            Load::of(self.pid).descriptors <= self.load.descriptors
        });
    }
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,24}",
        prop::sample::select(vec![
            "",
            "@0",
            "@-1",
            "@99999999999999999999",
            "/etc/shadow",
            "../../etc/shadow",
            "--reboot",
            "a=b",
            "7",
            "https://127.0.0.1:1/a.deb",
            "%s%n",
            "$(reboot)",
            "ostree-unverified-registry:127.0.0.1:1/a",
        ])
        .prop_map(str::to_owned),
        (0..60_000usize).prop_map(|length| "x".repeat(length)),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(vec![
            "append", "delete", "packages", "install", "files", "debconf", "stateroot", "reboot", "revision", "index",
            "initiating-command-line", "id", "scripts", "script-timeout", "reference", "no-wait", "deploy-index",
        ])
        .prop_map(str::to_owned),
        1 => word(),
    ]
}

/// Returns anything that the bus can carry.
fn value() -> impl Strategy<Value = Value<'static>> {
    let null = || Value::from(Fd::from(OwnedFd::from(File::open("/dev/null").expect("a file"))));
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<u8>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
        vec(word(), 0..6).prop_map(Value::from),
        (0..60_000usize).prop_map(|length| Value::from(vec![7u8; length])),
        (0..8_000usize).prop_map(|length| Value::from(vec![String::new(); length])),
        Just(()).prop_map(|()| Value::from(ObjectPath::from_static_str_unchecked("/a"))),
        Just(()).prop_map(|()| Value::from(Signature::U8)),
        Just(()).prop_map(move |()| null()),
        (1..20usize).prop_map(move |count| {
            let files = std::iter::repeat_with(|| OwnedFd::from(File::open("/dev/null").expect("a file")));
            Value::from(files.take(count).map(Fd::from).collect::<Vec<_>>())
        }),
        (1..70usize)
            .prop_map(|depth| (0..depth).fold(Value::from(true), |inner, _| Value::Value(Box::new(inner)))),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            hash_map(word(), inner, 0..5).prop_map(Value::from),
        ]
    })
}

/// Returns where a call goes: mostly to a method that there is.
fn target() -> impl Strategy<Value = ((&'static str, &'static str), &'static str)> {
    let os = [
        "Upgrade",
        "Rebase",
        "Deploy",
        "Install",
        "Uninstall",
        "OverrideReplace",
        "OverrideRemove",
        "OverrideReset",
        "Reset",
        "Initramfs",
        "InitramfsEtc",
        "Rollback",
        "Cleanup",
        "Kargs",
        "FinalizeDeployment",
        "ApplyLive",
        "Usroverlay",
        "RefreshMd",
        "upgrade",
        "NoSuchMethod",
    ];
    let sysroot = [
        "RegisterClient",
        "UnregisterClient",
        "GetOS",
        "GetStatus",
        "Reload",
        "ReloadConfig",
        "Cancel",
        "Pin",
        "Unpin",
        "ImagePull",
        "ImageRemove",
        "ImagePrune",
        "NoSuchMethod",
    ];
    let elsewhere = prop::sample::select(vec![
        (("/", "org.aptostree.dev.Transaction1"), "Start"),
        (("/org/aptostree/dev/OS/none", OS.1), "Upgrade"),
        (("/org/aptostree/dev/OS", SYSROOT.1), "Pin"),
        (
            ("/org/aptostree/dev/Sysroot", "org.freedesktop.DBus.Properties"),
            "Get",
        ),
        (
            ("/org/aptostree/dev/Sysroot", "org.freedesktop.DBus.Properties"),
            "Set",
        ),
        (
            (
                "/org/aptostree/dev/Sysroot",
                "org.freedesktop.DBus.Introspectable",
            ),
            "Introspect",
        ),
        (("/org/aptostree/dev/Sysroot", "no.such.Interface"), "Get"),
    ]);
    prop_oneof![
        6 => prop::sample::select(os.to_vec()).prop_map(|method| (OS, method)),
        4 => prop::sample::select(sysroot.to_vec()).prop_map(|method| (SYSROOT, method)),
        1 => elsewhere,
    ]
}

/// Calls with what may or may not be arguments; returns whether the connection survived.
fn call(
    bus: &zbus::blocking::Connection,
    ((path, interface), method): ((&str, &str), &str),
    shape: u8,
    words: (String, Vec<String>),
    options: HashMap<String, Value<'static>>,
) -> bool {
    let (to, on) = (Some(NAME), Some(interface));
    let reply = match shape {
        0 => bus.call_method(to, path, on, method, &()),
        1 => bus.call_method(to, path, on, method, &(options,)),
        2 => bus.call_method(to, path, on, method, &(words.0, options)),
        3 => bus.call_method(to, path, on, method, &(words.1, options)),
        4 => bus.call_method(to, path, on, method, &(words.0, words.1)),
        _ => bus.call_method(to, path, on, method, &(options, true)),
    };
    // What this side cannot even write was never sent.
    !matches!(reply, Err(zbus::Error::InputOutput(_)))
}

#[test]
fn no_arguments_of_a_call_do_harm() {
    const ROUNDS: usize = 4;
    const CONNECTIONS: usize = 8;
    const CALLS: usize = 20;
    let service = Service::start();
    let mut runner = TestRunner::deterministic();
    let calls = (
        target(),
        0..6u8,
        (word(), vec(word(), 0..4)),
        hash_map(name(), value(), 0..4),
    );
    let mut calm = Calm::of(&service);
    for round in 0..ROUNDS {
        for connection in 0..CONNECTIONS {
            let uid = if connection % 4 == 3 { USER } else { 0 };
            let mut bus = service.bus.connect_as(uid);
            for _ in 0..CALLS {
                let (target, shape, words, options) = calls.new_tree(&mut runner).expect("a call").current();
                if !call(&bus, target, shape, words, options) {
                    bus = service.bus.connect_as(uid);
                }
            }
        }
        calm.assert(&service);
        if round == 0 {
            // What is kept from the first times is no growth.
            calm.load = Load::of(service.pid());
        }
    }
}

fn padded(member: &str, path: &str, padding: usize) -> Message {
    let call = Message::method_call(path, member).expect("a call");
    let call = call
        .destination(NAME)
        .expect("a name")
        .interface(SYSROOT.1)
        .expect("an interface");
    let options = HashMap::from([("id", Value::from(vec![7u8; padding]))]);
    call.build(&(options,)).expect("a message")
}

#[test]
fn a_message_that_is_too_long_is_never_held() {
    let service = Service::start();
    let calm = Calm::of(&service);
    let long = padded("RegisterClient", SYSROOT.0, 24 << 20);
    let endless = padded("RegisterClient", &format!("/{}", "a".repeat(4 << 20)), 4 << 20);
    for uid in [0, USER] {
        let mut hostile = Raw::on_bus(&service.bus.socket(), uid);
        for _ in 0..8 {
            hostile.send(&long).expect("the bus takes it");
            hostile.send(&endless).expect("the bus takes it");
        }
        calm.assert(&service);
    }
    // Who only made a mistake is told, and may go on; so is who sends just as much as there is room for.
    let client = service.client(0);
    let call = |length: usize| {
        let options = HashMap::from([("id", Value::from("x".repeat(length)))]);
        let reply = client.bus.call_method(
            Some(NAME),
            SYSROOT.0,
            Some(SYSROOT.1),
            "RegisterClient",
            &(options,),
        );
        reply.map(drop)
    };
    let error = call(128 << 10).expect_err("refused");
    assert!(matches!(&error, zbus::Error::MethodError(..)), "{error:?}");
    call(127 << 10).expect("registered");
    client.service.status().expect("the status");
    // Descriptors that come along with too much are closed.
    for _ in 0..50 {
        let files = vec![Fd::from(OwnedFd::from(File::open("/dev/null").expect("a file")))];
        let options = HashMap::from([
            ("files", Value::from(files)),
            ("id", Value::from("x".repeat(1 << 20))),
        ]);
        let reply = client
            .bus
            .call_method(Some(NAME), OS.0, Some(OS.1), "Upgrade", &(options,));
        reply.expect_err("refused");
    }
    drop(client);
    calm.assert_closed(&service);
}

/// Begins a transaction that nobody starts, and returns its socket.
fn waiting(service: &Service) -> (crate::support::service::Client, PathBuf) {
    let client = service.client(0);
    let address = client
        .ask("kargs", json!({ "append": ["a=1"] }))
        .expect("granted");
    let path = address.strip_prefix("unix:path=").expect("an address");
    (client, PathBuf::from(path))
}

fn properties() -> Message {
    let call = Message::method_call("/", "GetAll").expect("a call");
    let call = call
        .interface("org.freedesktop.DBus.Properties")
        .expect("an interface");
    call.build(&"org.aptostree.dev.Transaction1").expect("a message")
}

#[test]
fn garbage_on_the_socket_of_a_transaction_ends_only_its_connection() {
    let service = Service::start();
    let calm = Calm::of(&service);
    let (client, socket) = waiting(&service);
    let mut runner = TestRunner::deterministic();
    let noise = vec(any::<u8>(), 0..2000);
    let good: Vec<u8> = properties().data().to_vec();
    for number in 0..60 {
        let mut raw = Raw::connect(&socket, USER);
        let bytes = noise.new_tree(&mut runner).expect("bytes").current();
        // It may be cut off before all of it is written.
        match number % 6 {
            0 => raw.write(&bytes).ok(),
            1 => raw
                .write(b"\0AUTH EXTERNAL zz\r\nAUTH ANONYMOUS\r\nBEGIN\r\n")
                .ok(),
            2 => raw.write(b"\0AUTH EXTER").ok(),
            3 => raw.write(&[b'A'; 100_000]).ok(),
            kind => {
                let mut raw = Raw::greeted(&socket, USER);
                if kind == 4 {
                    raw.write(&bytes).ok();
                }
                let mut bad = good.clone();
                for (place, byte) in bytes.iter().enumerate().take(8) {
                    let place = (place * 31 + usize::from(*byte)) % bad.len();
                    bad[place] ^= byte | 1;
                }
                let longest = [&good[..4], &[0xff; 4][..], &good[8..]].concat();
                raw.write(&bad).ok();
                raw.write(&longest).ok()
            }
        };
    }
    // What has too long a message is cut off at once, and not when somebody looks for the rest of it.
    let mut raw = Raw::greeted(&socket, USER);
    raw.write(&[&good[..4], &(1u32 << 20).to_le_bytes()[..], &good[8..]].concat())
        .expect("room");
    raw.wait_for_end();
    // It still waits for its caller, who is listened to.
    let transaction = client.attach(&format!("unix:path={}", socket.display()));
    transaction.canceller().cancel().expect("cancelled");
    calm.assert(&service);
    drop((client, transaction));
    calm.assert_closed(&service);
}

#[test]
fn who_does_not_read_or_only_waits_holds_nobody_up() {
    let service = Service::start();
    let calm = Calm::of(&service);
    let (client, socket) = waiting(&service);
    // On the bus: thousands of questions, no look at an answer.
    let mut deaf = Raw::on_bus(&service.bus.socket(), USER);
    let question = Message::method_call(SYSROOT.0, "GetStatus").expect("a call");
    let question = question
        .destination(NAME)
        .expect("a name")
        .interface(SYSROOT.1)
        .expect("an interface");
    let question = question.build(&()).expect("a message");
    for _ in 0..5000 {
        deaf.send(&question).expect("the bus takes it");
    }
    // At the transaction: the same, until nothing more is taken.
    let mut deaf_there = Raw::greeted(&socket, USER);
    deaf_there.0.set_nonblocking(true).expect("a stream");
    let question = properties();
    while deaf_there.send(&question).is_ok() {}
    // And more who say nothing at all than one user may be.
    let silent: Vec<Raw> = (0..100).map(|_| Raw::connect(&socket, USER)).collect();
    let half: Vec<Raw> = (0..20)
        .map(|_| {
            let mut raw = Raw::greeted(&socket, 0);
            raw.write(&question.data()[..20]).expect("room");
            raw
        })
        .collect();
    assert_eq!(status(&service)["deployments"], calm.status["deployments"]);
    let transaction = client.attach(&format!("unix:path={}", socket.display()));
    transaction.canceller().cancel().expect("cancelled");
    calm.assert(&service);
    drop((deaf, deaf_there, silent, half, client, transaction));
    calm.assert_closed(&service);
}

#[test]
fn who_begins_and_leaves_again_and_again_takes_no_room() {
    let service = Service::start();
    let calm = Calm::of(&service);
    for number in 0..60 {
        let client = service.client(0);
        let address = client
            .ask("kargs", json!({ "append": [format!("a={number}")] }))
            .expect("granted");
        match number % 3 {
            0 => assert!(client.service.cancel().expect("an answer")),
            1 => {
                let mut raw = Raw::greeted(&PathBuf::from(&address["unix:path=".len()..]), 0);
                raw.write(&properties().data()[..30]).expect("room");
            }
            _ => {}
        }
        drop(client);
        service.wait_until_idle();
    }
    let sockets = std::fs::read_dir(service.run_dir()).expect("the folder").count();
    assert!(sockets <= 9, "{sockets} sockets are kept");
    calm.assert_closed(&service);
}
