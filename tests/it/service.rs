//! The service on a bus: transactions from their start to their end, for root.

use crate::support::bus::wait_until;
use crate::support::machine::Machine;
use crate::support::service::{NAME, Service, request};
use apt_ostree::daemon::proxy::{Told, Transaction};
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::ops::Outcome;
use apt_ostree::report::{Event, Silent};
use serde_json::{Value, json};

fn fault(error: &anyhow::Error) -> Fault {
    Fault::find(error)
        .unwrap_or_else(|| panic!("no fault: {error:#}"))
        .clone()
}

fn kargs(argument: &str) -> Value {
    json!({ "append": [argument] })
}

/// Waits until a transaction says that it waits for the lock of the sysroot.
fn wait_for_note(transaction: &mut Transaction) {
    loop {
        match transaction.hear().expect("an event") {
            Told::Event(Event::Note { text }) if text.contains("lock of the sysroot") => return,
            Told::Event(_) => {}
            Told::Finished => panic!("it ended: {:?}", transaction.result()),
        }
    }
}

#[test]
fn a_transaction_runs_and_everybody_hears_of_it() {
    let service = Service::start();
    let client = service.client(0);
    let outcome = client
        .begin("kargs", kargs("quiet"))
        .run(&Silent)
        .expect("success");
    assert!(
        matches!(&outcome, Outcome::Changed(text) if text.contains("quiet")),
        "{outcome:?}"
    );
    let arguments = |status: &Value| status["deployments"][0]["kernel-arguments"].to_string();
    let told: Value = serde_json::from_str(&client.service.status().expect("the status")).expect("JSON");
    assert!(arguments(&told).contains("quiet"), "{told}");
    assert_eq!(told["deployments"], service.machine.status()["deployments"]);
    assert_eq!(told["transaction"], Value::Null);

    // The same from another image: an upgrade with all its events.
    service.machine.publish("2", []);
    let mut upgrade = client.begin("upgrade", json!({}));
    assert!(upgrade.start().expect("started"));
    let mut steps = Vec::new();
    while let Told::Event(event) = upgrade.hear().expect("an event") {
        if let Event::Step { text, .. } = event {
            steps.push(text);
        }
    }
    assert!(!steps.is_empty());
    let outcome = upgrade.result().expect("success");
    assert!(matches!(outcome, Outcome::Published { .. }), "{outcome:?}");
    assert_eq!(service.machine.versions(), ["2", "1"]);
    // Nothing new: a success that changed nothing.
    let outcome = client.begin("upgrade", json!({})).run(&Silent).expect("success");
    assert!(matches!(outcome, Outcome::Unchanged(_)), "{outcome:?}");
}

#[test]
fn pinning_shows_at_once() {
    let service = Service::start();
    let client = service.client(0);
    let is_pinned = || {
        let status: Value =
            serde_json::from_str(&client.service.status().expect("the status")).expect("JSON");
        status["deployments"][0]["pinned"] == true
    };
    assert!(!is_pinned());
    client.begin("pin", json!({})).run(&Silent).expect("success");
    assert!(is_pinned());
    // Somebody else's change shows too.
    service.machine.ok(&["unpin", "0"]);
    assert!(!is_pinned());
}

#[test]
fn a_failure_keeps_its_kind_and_hint() {
    let service = Service::start();
    let client = service.client(0);
    let error = client
        .begin("pin", json!({ "index": 7 }))
        .run(&Silent)
        .expect_err("no such deployment");
    let found = fault(&error);
    assert_eq!(found.kind, Kind::NotFound);
    assert!(
        found.message.contains("index 7") && found.hint.is_some(),
        "{found:?}"
    );
}

#[test]
fn an_identical_request_joins_and_another_is_refused() {
    let service = Service::start();
    let held = service.hold_lock();
    let first = service.client(0);
    let second = service.client(0);
    let address = first.ask("kargs", kargs("a=1")).expect("the first");
    let mut watched = first.attach(&address);
    assert!(watched.start().expect("started"));
    wait_for_note(&mut watched);
    assert_eq!(second.ask("kargs", kargs("a=1")).expect("joined"), address);
    let joined = second.attach(&address);
    assert!(!joined.start().expect("attached"), "it runs already");

    for options in [kargs("a=2"), json!({ "append": ["a=1"], "reboot": true })] {
        let found = fault(&second.ask("kargs", options).expect_err("refused"));
        assert_eq!(found.kind, Kind::Busy);
        assert!(
            found.message.contains("`kargs`") && found.message.contains("uid:0"),
            "{found}"
        );
        assert!(found.hint.expect("a hint").contains("apt-ostree cancel"));
    }
    let active = second
        .service
        .active()
        .expect("an answer")
        .expect("something runs");
    assert_eq!(
        (active.title.as_str(), active.address.as_str()),
        ("kargs", address.as_str())
    );
    drop(held);
    for watcher in [watched, joined] {
        watcher.run(&Silent).expect("success");
    }
    // The end is told again to whoever comes late.
    let late = second.attach(&address);
    assert!(matches!(late.run(&Silent), Ok(Outcome::Changed(_))));
    assert_eq!(second.service.active().expect("an answer"), None);
}

#[test]
fn a_late_watcher_is_told_where_things_stand() {
    let service = Service::start();
    let relay = crate::support::relay::Relay::start(service.machine.registry.port());
    let machine = &service.machine;
    machine
        .home
        .insecure(&[&machine.registry.location(), &relay.location()]);
    machine.ok(&["rebase", &relay.reference("os:stable")]);
    machine.publish("2", []);
    relay.behave(crate::support::relay::Behaviour::HangAfter(3000));
    let client = service.client(0);
    let address = client.ask("upgrade", json!({})).expect("granted");
    let mut first = client.attach(&address);
    first.start().expect("started");
    let step = loop {
        if let Told::Event(event @ Event::Step { .. }) = first.hear().expect("an event") {
            break event;
        }
    };
    let mut late = client.attach(&address);
    assert!(!late.start().expect("attached"));
    let Told::Event(told) = late.hear().expect("an event") else {
        panic!("it ended");
    };
    assert!(matches!(told, Event::Step { .. }), "{told:?} instead of {step:?}");
    late.canceller().cancel().expect("cancelled");
    let error = late.run(&Silent).expect_err("cancelled");
    assert_eq!(fault(&error).kind, Kind::Cancelled, "{error:#}");
    assert_eq!(service.machine.versions(), ["1", "1"]);
    service.machine.assert_sound();
}

#[test]
fn cancelling_stops_the_work_and_leaves_the_host_as_it_was() {
    let service = Service::start();
    let before = service.machine.state();
    let held = service.hold_lock();
    let client = service.client(0);
    let mut transaction = client.begin("kargs", kargs("a=1"));
    transaction.start().expect("started");
    wait_for_note(&mut transaction);
    assert_eq!(service.workers().len(), 1);
    assert!(
        client.service.cancel().expect("an answer"),
        "there was something to cancel"
    );
    let error = transaction.run(&Silent).expect_err("cancelled");
    assert_eq!(fault(&error).kind, Kind::Cancelled, "{error:#}");
    assert_eq!(service.workers().len(), 0);
    assert!(
        !client.service.cancel().expect("an answer"),
        "nothing is left to cancel"
    );
    drop(held);
    assert_eq!(service.machine.state(), before);
}

#[test]
fn the_callers_death_cancels_before_the_start_and_not_after() {
    let service = Service::start();
    let held = service.hold_lock();
    let watcher = service.client(0);

    let client = service.client(0);
    let address = client.ask("kargs", kargs("a=1")).expect("granted");
    let left = watcher.attach(&address);
    drop(client);
    let error = (|| loop {
        match left.result() {
            Err(error) if fault(&error).kind != Kind::Busy => return error,
            _ => std::thread::yield_now(),
        }
    })();
    assert_eq!(fault(&error).kind, Kind::Cancelled, "{error:#}");
    assert_eq!(service.workers().len(), 0);

    let client = service.client(0);
    let mut transaction = client.begin("kargs", kargs("a=1"));
    transaction.start().expect("started");
    wait_for_note(&mut transaction);
    drop((client, transaction));
    drop(held);
    service.wait_until_idle();
    let status = service.machine.status();
    assert!(
        status["deployments"][0]["kernel-arguments"]
            .to_string()
            .contains("a=1"),
        "{status}"
    );
}

#[test]
fn a_killed_process_is_a_failure_that_says_so() {
    let service = Service::start();
    let held = service.hold_lock();
    let client = service.client(0);
    let mut transaction = client.begin("kargs", kargs("a=1"));
    transaction.start().expect("started");
    wait_for_note(&mut transaction);
    for worker in service.workers() {
        rustix::process::kill_process(worker, rustix::process::Signal::KILL).expect("killed");
    }
    let error = transaction.run(&Silent).expect_err("killed");
    assert!(
        format!("{error:#}").contains("ended without a result"),
        "{error:#}"
    );
    drop(held);
    client
        .begin("kargs", kargs("a=1"))
        .run(&Silent)
        .expect("the next one works");
}

#[test]
fn a_killed_service_takes_the_work_along_and_the_next_one_goes_on() {
    let mut service = Service::start();
    let held = service.hold_lock();
    let before = service.machine.state();
    let client = service.client(0);
    let mut transaction = client.begin("kargs", kargs("a=1"));
    transaction.start().expect("started");
    wait_for_note(&mut transaction);
    let workers = service.workers();
    service.kill();
    let error = transaction.run(&Silent).expect_err("the service is gone");
    assert_eq!(fault(&error).kind, Kind::Unreachable, "{error:#}");
    wait_until("the end of the process", || {
        workers
            .iter()
            .all(|worker| rustix::process::test_kill_process(*worker).is_err())
    });
    drop(held);
    assert_eq!(service.machine.state(), before);
    service.restart(&[]);
    wait_until("the end of the sockets that were left behind", || {
        std::fs::read_dir(service.run_dir())
            .expect("the folder")
            .next()
            .is_none()
    });
    service
        .client(0)
        .begin("kargs", kargs("a=1"))
        .run(&Silent)
        .expect("success");
    service.machine.assert_sound();
}

#[test]
fn the_end_of_the_service_cancels_what_runs() {
    let mut service = Service::start();
    let _held = service.hold_lock();
    let client = service.client(0);
    let mut transaction = client.begin("kargs", kargs("a=1"));
    transaction.start().expect("started");
    wait_for_note(&mut transaction);
    let status = service.stop().expect("a status");
    assert!(status.success(), "{status}");
    // The end is told before the service is gone.
    while transaction.hear().expect("an event") != Told::Finished {}
}

#[test]
fn a_name_that_is_taken_ends_the_service() {
    let service = Service::start();
    let mut second = service.spawn(&[]);
    assert_eq!(second.wait().expect("a status").code(), Some(1));
    assert!(service.bus.owner(NAME).is_some(), "the first one goes on");
}

#[test]
fn an_idle_service_ends_and_a_client_keeps_it() {
    let mut service = Service::of(Machine::deployed());
    let settings = service
        .machine
        .sysroot
        .path()
        .join("etc/apt-ostree/config.d/idle.toml");
    crate::support::write(settings, "[daemon]\nidle-exit = \"1s\"\n");
    service.restart(&[]);
    let client = service.client(0);
    client.service.register("test").expect("registered");
    let held = service.hold_lock();
    let transaction = client.begin("kargs", kargs("a=1"));
    transaction.start().expect("started");
    drop(client);
    // Neither a client nor silence, but work: it may not end before the lock is given back.
    drop(held);
    let end = transaction.run(&Silent);
    assert!(matches!(end, Ok(Outcome::Changed(_))), "{end:?}");
    assert!(service.wait().success());
    assert_eq!(service.bus.owner(NAME), None);
}

#[test]
fn a_request_that_makes_no_sense_is_refused_before_anything_happens() {
    let service = Service::start();
    let client = service.client(0);
    let call = |method: &str, options: Value| -> String {
        let fields: std::collections::HashMap<String, zbus::zvariant::Value<'_>> = options
            .as_object()
            .expect("an object")
            .iter()
            .map(|(name, value)| {
                (
                    name.clone(),
                    zbus::zvariant::Value::from(value.as_str().expect("text").to_owned()),
                )
            })
            .collect();
        let os = Some("org.aptostree.dev.OS1");
        let reply = client
            .bus
            .call_method(Some(NAME), "/org/aptostree/dev/OS", os, method, &(fields,));
        match reply.expect_err("refused") {
            zbus::Error::MethodError(name, text, _) => format!("{name}: {}", text.unwrap_or_default()),
            error => panic!("{error}"),
        }
    };
    let refused = call("Upgrade", json!({ "chache-only": "yes" }));
    assert!(
        refused.starts_with("org.aptostree.dev.Error.Usage: ") && refused.contains("chache-only"),
        "{refused}"
    );
    let refused = call("Upgrade", json!({ "cache-only": "yes" }));
    assert!(refused.contains("`cache-only`"), "{refused}");
    assert!(
        call("Kargs", json!({})).contains("needs append"),
        "{}",
        call("Kargs", json!({}))
    );
    assert!(service.workers().is_empty());
    // What the command line does not take, a request never was.
    assert!(std::panic::catch_unwind(|| request("status", json!({}))).is_err());
}
