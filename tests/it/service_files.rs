//! Package files that a client hands over open to the service.

use crate::support::debian_machine::DebianMachine;
use crate::support::package::Package;
use crate::support::polkit::Polkit;
use crate::support::service::{Client, NAME, Service, USER};
use apt_ostree::daemon::proxy::Transaction;
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::ops::Outcome;
use apt_ostree::report::Silent;
use serde_json::json;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use zbus::zvariant::{Fd, Value};

fn kind(error: &anyhow::Error) -> Option<Kind> {
    Fault::find(error).map(|fault| fault.kind)
}

/// Calls `Install` as a client would that is not ours.
fn install(client: &Client, words: &[&str], files: Vec<OwnedFd>) -> zbus::Result<String> {
    let files: Vec<Fd<'_>> = files.into_iter().map(Fd::from).collect();
    let options = HashMap::from([("files", Value::from(files))]);
    let os = Some("org.aptostree.dev.OS1");
    let reply = client.bus.call_method(
        Some(NAME),
        "/org/aptostree/dev/OS",
        os,
        "Install",
        &(words, options),
    )?;
    reply.body().deserialize()
}

#[test]
fn a_user_installs_a_file_that_is_handed_over() {
    let service = Service::of(DebianMachine::new(&[]));
    let polkit = Polkit::start(&service.bus);
    let client = service.client(USER);
    let package = Package::new("tool", "1.0").file("usr/bin/tool", 0o755, "#!/bin/sh\n");
    let file = service.machine.file(&package);
    polkit.allow(&["install-uninstall-packages"]);
    let denied = client
        .ask("install", json!({ "packages": [file] }))
        .expect_err("no repository vouches for it");
    assert!(
        denied.to_string().contains("install-local-packages"),
        "{denied:#}"
    );
    polkit.allow(&["install-uninstall-packages", "install-local-packages"]);
    let outcome = client
        .begin("install", json!({ "packages": [file] }))
        .run(&Silent)
        .expect("success");
    assert!(matches!(outcome, Outcome::Published { .. }), "{outcome:?}");
    assert!(service.machine.has(0, "usr/bin/tool"));
    assert!(service.machine.list("requested-local-packages")[0].contains("tool"));
    service.machine.assert_sound();
}

#[test]
fn paths_are_refused() {
    let service = Service::start();
    let client = service.client(0);
    for word in ["/etc/shadow", "./a.deb", "a.deb", "/proc/self/fd/0"] {
        let error = install(&client, &[word], Vec::new()).expect_err("refused");
        let zbus::Error::MethodError(name, Some(text), _) = &error else {
            panic!("{error}");
        };
        assert_eq!(name.as_str(), "org.aptostree.dev.Error.Denied");
        assert!(
            text.contains(word) && text.contains("opens no path") && text.contains("hint:"),
            "{text}"
        );
    }
}

#[test]
fn what_is_no_plain_file_fails_and_holds_nothing_up() {
    let service = Service::start();
    let client = service.client(0);
    let folder = tempfile::tempdir().expect("a folder");
    let (pipe, _writer) = rustix::pipe::pipe().expect("a pipe");
    let directory = File::open(folder.path()).expect("the folder").into();
    let endless = File::open("/dev/zero").expect("a device").into();
    for descriptor in [pipe, directory, endless] {
        let address = install(&client, &["@0"], vec![descriptor]).expect("granted");
        let error = client.attach(&address).run(&Silent).expect_err("no package");
        assert_eq!(kind(&error), Some(Kind::Usage), "{error:#}");
        assert!(error.to_string().contains("no plain file"), "{error:#}");
    }
    let empty = File::open(service.log()).expect("a file").into();
    let address = install(&client, &["@0"], vec![empty]).expect("granted");
    let error = client.attach(&address).run(&Silent).expect_err("no package");
    assert_eq!(kind(&error), Some(Kind::Invalid), "{error:#}");
    assert!(
        error.to_string().contains("service.log"),
        "it is called by its name: {error:#}"
    );
}

#[test]
fn requests_with_files_do_not_join() {
    let service = Service::start();
    let _held = service.hold_lock();
    let client = service.client(0);
    let file = || vec![OwnedFd::from(File::open(service.log()).expect("a file"))];
    let address = install(&client, &["@0"], file()).expect("granted");
    let error = install(&client, &["@0"], file()).expect_err("another file");
    assert!(error.to_string().contains("Error.Busy"), "{error}");
    let waiting: Transaction = client.attach(&address);
    waiting.canceller().cancel().expect("cancelled");
}
