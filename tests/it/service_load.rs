//! The service under load: many who read while something changes, and many who want to change something.

use crate::support::bus::wait_until;
use crate::support::crowd::Crowd;
use crate::support::layer::Layer;
use crate::support::load::Load;
use crate::support::machine::Machine;
use crate::support::service::{Client, Service};
use apt_ostree::daemon::proxy::Told;
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::ops::Outcome;
use apt_ostree::report::{Event, Silent};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How many read.
const READERS: usize = 200;

/// How often everybody reads before anything is measured: what is kept from the first times is no growth.
const WARMING: usize = 5;

/// The most memory that the service may ever have, in KiB.
const MOST: u64 = 64 << 10;

/// How much more it may have after the work than before it, in KiB.
const GROWTH: u64 = 8 << 10;

/// How long who was refused waits before it tries again.
const AGAIN: Duration = Duration::from_millis(50);

#[test]
fn two_hundred_read_while_an_upgrade_runs() {
    let service = Service::start();
    let machine = &service.machine;
    let old = machine.status()["deployments"].clone();
    machine.publish("2", [Layer::new().noise("usr/share/noise", 32 << 20)]);
    let crowd = zbus::block_on(Crowd::gather(&service.bus, READERS));
    for _ in 0..WARMING {
        let heard = zbus::block_on(crowd.read());
        assert_eq!(heard.deployments(), std::slice::from_ref(&old));
    }
    let before = Load::of(service.pid());

    let held = service.hold_lock();
    let client = service.client(0);
    let mut upgrade = client.begin("upgrade", json!({}));
    upgrade.start().expect("started");
    loop {
        match upgrade.hear().expect("an event") {
            Told::Event(Event::Note { text }) if text.contains("lock of the sysroot") => break,
            told => assert_ne!(told, Told::Finished),
        }
    }
    // Everybody, while it certainly runs.
    let waiting = zbus::block_on(crowd.read());
    assert_eq!(waiting.deployments(), std::slice::from_ref(&old));
    let told = format!("{:?}", waiting.statuses);
    assert!(told.contains("upgrade"), "nobody is told what runs: {told}");

    let end = Arc::<AtomicBool>::default();
    let ended = Arc::clone(&end);
    let upgrade = std::thread::spawn(move || {
        drop(held);
        let outcome = upgrade.run(&Silent);
        ended.store(true, Ordering::SeqCst);
        outcome
    });
    let during = zbus::block_on(crowd.read_until(&end, Duration::from_millis(500)));
    let outcome = upgrade.join().expect("the thread").expect("success");
    assert!(matches!(outcome, Outcome::Published { .. }), "{outcome:?}");

    let new = machine.status()["deployments"].clone();
    assert_eq!(machine.versions(), ["2", "1"]);
    for seen in during.deployments() {
        assert!(seen == old || seen == new, "neither what was nor what is: {seen}");
    }
    let versions = |list: &[&str]| list.iter().map(|&version| version.to_owned()).collect::<Vec<_>>();
    for (all, default) in &during.properties {
        assert!(
            *all == versions(&["1"]) || *all == versions(&["2", "1"]),
            "{all:?}"
        );
        assert!(["1", "2"].contains(&default.as_str()), "{default}");
    }
    for _ in 0..WARMING {
        let after = zbus::block_on(crowd.read());
        assert_eq!(after.deployments(), std::slice::from_ref(&new));
        assert_eq!(
            after.properties,
            BTreeSet::from([(versions(&["2", "1"]), "2".to_owned())])
        );
    }
    let after = Load::of(service.pid());
    assert!(after.peak < MOST, "{after:?}");
    assert!(
        after.resident < before.resident + GROWTH,
        "{before:?} became {after:?}"
    );
    // Those who leave take along what was kept for them.
    drop(crowd);
    wait_until("the end of what was kept for readers", || {
        Load::of(service.pid()).descriptors <= before.descriptors + 1
    });
    machine.assert_sound();
}

/// What one writer does to the kernel arguments.
fn change(number: usize) -> (&'static str, String) {
    if number % 5 == 4 {
        ("delete", format!("old{number}"))
    } else {
        ("append", format!("new{number}=1"))
    }
}

/// Asks until the place for a transaction is free; returns whether others had it first.
fn insist(client: &Client, options: &Json) -> bool {
    let mut was_refused = false;
    loop {
        let done = client
            .ask("kargs", options.clone())
            .and_then(|address| client.attach(&address).run(&Silent));
        match done {
            Ok(Outcome::Changed(_)) => return was_refused,
            Ok(outcome) => panic!("{options}: {outcome:?}"),
            Err(error) => match Fault::find(&error) {
                Some(fault) if fault.kind == Kind::Busy => was_refused = true,
                _ => panic!("{options}: {error:#}"),
            },
        }
        std::thread::sleep(AGAIN);
    }
}

fn arguments(machine: &Machine) -> Vec<String> {
    let status = machine.status();
    let text = match &status["deployments"][0]["kernel-arguments"] {
        Json::String(text) => text.clone(),
        Json::Array(words) => words
            .iter()
            .filter_map(Json::as_str)
            .collect::<Vec<_>>()
            .join(" "),
        other => panic!("{other}"),
    };
    let mut words: Vec<String> = text
        .split_whitespace()
        .filter(|word| word.starts_with("old") || word.starts_with("new"))
        .map(str::to_owned)
        .collect();
    words.sort();
    words
}

#[test]
fn fifty_writers_lose_nothing() {
    const WRITERS: usize = 50;
    let service = Service::start();
    let machine = &service.machine;
    let old: Vec<String> = (0..WRITERS)
        .filter(|number| change(*number).0 == "delete")
        .map(|number| format!("--append=old{number}"))
        .collect();
    let words: Vec<&str> = ["kargs"]
        .into_iter()
        .chain(old.iter().map(String::as_str))
        .collect();
    machine.ok(&words);
    assert_eq!(arguments(machine).len(), WRITERS / 5);
    service.client(0).service.status().expect("the status");
    let before = Load::of(service.pid());

    // Half of them over the bus, half of them beside the service; all of them with the one lock.
    let refused = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let service = &service;
                scope.spawn(move || {
                    let (how, argument) = change(number);
                    if number % 2 == 0 {
                        return insist(&service.client(0), &json!({ how: [argument] }));
                    }
                    service.machine.ok(&["kargs", &format!("--{how}={argument}")]);
                    false
                })
            })
            .collect();
        let refused = writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer that succeeds"));
        refused.filter(|was_refused| *was_refused).count()
    });
    assert!(refused > 0, "nobody competed");
    let mut expected: Vec<String> = (0..WRITERS)
        .map(change)
        .filter(|(how, _)| *how == "append")
        .map(|(_, argument)| argument)
        .collect();
    expected.sort();
    assert_eq!(arguments(machine), expected);
    service.wait_until_idle();
    let told: Json =
        serde_json::from_str(&service.client(0).service.status().expect("the status")).expect("JSON");
    assert_eq!(told["deployments"], machine.status()["deployments"]);
    machine.assert_sound();
    machine.ok(&["fsck"]);
    let after = Load::of(service.pid());
    assert!(after.peak < MOST, "{after:?}");
    assert!(
        after.resident < before.resident + GROWTH,
        "{before:?} became {after:?}"
    );
}
