//! How fast the service answers when it has nothing else to do, and under load; `hack/bench service` runs this.

use crate::support::bus::wait_until;
use crate::support::crowd::{Crowd, Heard};
use crate::support::layer::Layer;
use crate::support::load::Load;
use crate::support::machine::Machine;
use crate::support::service::Service;
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::ops::Outcome;
use apt_ostree::report::Silent;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How many read under load, each once in a `PACE`.
const READERS: usize = 200;
const PACE: Duration = Duration::from_secs(1);

/// How often one client reads while nothing else happens, and how long it rests in between.
const IDLE_READS: usize = 300;
const REST: Duration = Duration::from_millis(20);

/// How many want to change kernel arguments, and how long each rests after a refusal or a success.
const WRITERS: usize = 50;
const AGAIN: Duration = Duration::from_secs(1);

/// How many upgrades succeed before the measurement ends, how many bytes are new in each, and how long only the
/// writers have the place after each.
const UPGRADES: usize = 10;
const NEW: usize = 32 << 20;
const BETWEEN: Duration = Duration::from_secs(2);

/// How much slower the median answer under load may be.
const TARGET: f64 = 3.0;

/// Tries a transaction until it is let in, or until `end`; returns whether it was carried out.
fn insist(
    service: &Service,
    verb: &str,
    options: &serde_json::Value,
    end: &AtomicBool,
    refused: &AtomicUsize,
) -> bool {
    let client = service.client(0);
    while !end.load(Ordering::SeqCst) {
        let done = client
            .ask(verb, options.clone())
            .and_then(|address| client.attach(&address).run(&Silent));
        match done {
            Ok(Outcome::Changed(_) | Outcome::Published { .. }) => return true,
            Ok(outcome) => panic!("{verb} {options}: {outcome:?}"),
            Err(error) if Fault::find(&error).is_some_and(|fault| fault.kind == Kind::Busy) => {
                refused.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => panic!("{verb} {options}: {error:#}"),
        }
        std::thread::sleep(if verb == "upgrade" { REST } else { AGAIN });
    }
    false
}

/// Appends arguments of its own, one after another, until `end`; returns those that are there now.
fn write_until(service: &Service, writer: usize, end: &AtomicBool, refused: &AtomicUsize) -> Vec<String> {
    let mut mine = Vec::new();
    while !end.load(Ordering::SeqCst) {
        let argument = format!("w{writer}.{}=1", mine.len());
        if insist(service, "kargs", &json!({ "append": [argument] }), end, refused) {
            mine.push(argument);
        }
        std::thread::sleep(AGAIN);
    }
    mine
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    let place = (times.len() * percent / 100).min(times.len() - 1);
    times[place].as_secs_f64() * 1000.0
}

fn machine_load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").expect("the load");
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn idle(service: &Service) -> Heard {
    zbus::block_on(async {
        let crowd = Crowd::gather(&service.bus, 1).await;
        let mut heard = Heard::default();
        for _ in 0..IDLE_READS {
            heard.add(crowd.read_status().await);
            tokio::time::sleep(REST).await;
        }
        heard
    })
}

#[test]
#[ignore = "a measurement, which `hack/bench service` makes"]
fn answers_under_load() {
    let service = Service::start();
    let machine = &service.machine;
    // The readers' first answers are what a service that was just started keeps.
    let crowd = zbus::block_on(Crowd::gather(&service.bus, READERS));
    zbus::block_on(crowd.read());
    let before = Load::of(service.pid());
    let load_before = machine_load();
    let mut calm = idle(&service);
    assert_eq!(calm.statuses.len(), 1, "an idle host changed");

    let first = machine.status()["deployments"].clone();
    let images: Vec<_> = (2..2 + UPGRADES)
        .map(|version| {
            let layer = Layer::new().noise(&format!("usr/share/noise-{version}"), NEW);
            machine.publish(&version.to_string(), [layer])
        })
        .collect();
    let stable = machine.registry.name("os:stable");
    let (end, refused) = (Arc::<AtomicBool>::default(), AtomicUsize::new(0));
    let heard = Mutex::new(None);
    let (begin, mut upgrading) = (Instant::now(), Duration::ZERO);
    let mut written: BTreeSet<String> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let (service, end, refused) = (&service, &end, &refused);
                    move || write_until(service, writer, end, refused)
                })
            })
            .collect();
        scope.spawn(|| {
            let told = zbus::block_on(crowd.read_statuses(&end, PACE));
            *heard.lock().expect("the lock") = Some(told);
        });
        let upgrades = scope.spawn(|| {
            let mut upgrading = Duration::ZERO;
            for image in &images {
                image.push(&machine.home, &stable, &[]);
                let begin = Instant::now();
                let is_done = insist(&service, "upgrade", &json!({}), &end, &AtomicUsize::new(0));
                assert!(is_done, "the measurement ended early");
                upgrading += begin.elapsed();
                std::thread::sleep(BETWEEN);
            }
            upgrading
        });
        let upgraded = upgrades.join();
        end.store(true, Ordering::SeqCst);
        upgrading = upgraded.expect("all upgrades");
        let written = writers
            .into_iter()
            .flat_map(|writer| writer.join().expect("a writer that succeeds"));
        written.collect()
    });
    let mut loaded = heard.into_inner().expect("the lock").expect("the readers' times");
    let (load_after, whole) = (machine_load(), begin.elapsed());
    service.wait_until_idle();
    let after = Load::of(service.pid());
    check(machine, &first, &loaded, &mut written);
    // Nothing but the machine may have become slower meanwhile.
    wait_until("silence", || service.workers().is_empty());
    let mut calm_again = idle(&service);

    let rows = [
        ("idle before", &mut calm.times),
        ("under load", &mut loaded.times),
        ("idle after", &mut calm_again.times),
    ];
    let mut out = std::io::stdout();
    let mut medians = Vec::new();
    for (name, times) in rows {
        let (median, tail, count) = (percentile(times, 50), percentile(times, 99), times.len());
        medians.push(median);
        writeln!(
            out,
            "  {name}: median {median:.2} ms, p99 {tail:.2} ms, {count} answers"
        )
        .expect("standard output");
    }
    let ratio = medians[1] / medians[0];
    let refused = refused.into_inner();
    writeln!(
        out,
        "  {UPGRADES} upgrades in {:.0} s of {:.0} s, {} changes by {WRITERS} writers, {refused} refusals; \
         load of the machine {load_before} before, {load_after} after\n  \
         memory {} KiB before, {} KiB after, at most {} KiB\n\
         {} median under load / idle: {ratio:.2} (at most {TARGET})",
        upgrading.as_secs_f64(),
        whole.as_secs_f64(),
        written.len(),
        before.resident,
        after.resident,
        after.peak,
        if ratio <= TARGET { "ok    " } else { "MISSED" },
    )
    .expect("standard output");
    assert!(ratio <= TARGET, "the service is too slow under load");
}

/// Fails unless every change is there and every answer was true at some time.
fn check(machine: &Machine, first: &serde_json::Value, loaded: &Heard, written: &mut BTreeSet<String>) {
    let status = machine.status();
    let words = status["deployments"][0]["kernel-arguments"].to_string();
    let found: BTreeSet<String> = words
        .split(|letter: char| letter.is_whitespace() || "\",[]".contains(letter))
        .filter(|word| word.starts_with('w') && word.contains('.'))
        .map(str::to_owned)
        .collect();
    assert_eq!(found, *written, "changes are lost");
    assert_eq!(machine.versions()[0], (1 + UPGRADES).to_string());
    let all = loaded.deployments();
    assert!(all.contains(first), "nobody read before the first change");
    for deployments in &all {
        let list = deployments.as_array().expect("a list");
        assert!((1..=3).contains(&list.len()), "{deployments}");
    }
    machine.assert_sound();
}
