//! Typed progress events: what an operation tells its watcher while it runs.
//!
//! The library never prints. Whoever starts an operation hands it a [`Report`]: the command line renders bars,
//! plain lines or JSON, the service passes the events on, tests record. An operation is a row of steps, one at a time;
//! whatever is told between a [`Event::Step`] and the next belongs to that step.
//!
//! The events as JSON are an interface: `docs/commands.md` lists them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One thing worth telling while an operation runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// A step of the operation begins, and the one before has ended.
    Step {
        /// What begins, as a gerund phrase such as `Fetching layers`.
        text: String,
        /// What the step consists of, as far as it is known; the first unit is the one to draw a bar for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        work: Vec<Work>,
    },
    /// How far the current step is in one of its units; never falls, and never passes the total.
    ///
    /// The total may become another one: of a layer that is here in part, less is to be fetched than was thought.
    Progress {
        /// What is counted.
        unit: Unit,
        /// So many are done.
        done: u64,
        /// So many there are.
        total: u64,
    },
    /// Bytes of one of the things the current step works on at the same time; it is finished when `done` is `total`.
    Bytes {
        /// What is transferred: a layer's digest or a package's name.
        item: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// What the current step is at now.
    Doing {
        /// For example `Setting up nginx`.
        text: String,
    },
    /// A maintainer script ended.
    Script {
        /// The package's name.
        package: String,
        /// `preinst`, `postinst`, `prerm`, `postrm` or `triggers`.
        script: String,
        /// How long it took, in thousandths of a second.
        milliseconds: u64,
    },
    /// The current step succeeded.
    Done {
        /// What was done, such as `Fetched 5 layers`.
        text: String,
        /// What was done in all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        work: Vec<Work>,
        /// How long it took, in thousandths of a second.
        milliseconds: u64,
    },
    /// A fact worth one line.
    Note {
        /// A full sentence.
        text: String,
    },
    /// Something the user should look at; the operation goes on.
    Warning {
        /// A full sentence.
        text: String,
    },
    /// How long a part of the operation took; for programs, not for people.
    Timing {
        /// The part.
        step: String,
        /// Thousandths of a second.
        milliseconds: u64,
    },
}

/// What a step counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes that are fetched.
    Bytes,
    /// Layers of an image.
    Layers,
    /// Debian packages.
    Packages,
    /// Things that are done to a package: it is unpacked, set up, removed.
    Actions,
    /// Maintainer scripts of packages; triggers are not known beforehand and not among them.
    Scripts,
    /// Objects of the repository that are checked.
    Objects,
}

/// So many of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What is counted.
    pub unit: Unit,
    /// How many there are.
    pub total: u64,
}

impl Work {
    /// Returns `total` of `unit`.
    pub fn new(unit: Unit, total: u64) -> Self {
        Self { unit, total }
    }
}

/// Receives the events of an operation, from any of its threads.
pub trait Report: Send + Sync {
    /// Takes one event; must not block for long.
    fn event(&self, event: Event);

    /// Reports a fact.
    fn note(&self, text: &str) {
        self.event(Event::Note {
            text: text.to_owned(),
        });
    }

    /// Reports how long a part of the operation took.
    fn timing(&self, step: &str, took: Duration) {
        self.event(Event::Timing {
            step: step.to_owned(),
            milliseconds: milliseconds(took),
        });
    }

    /// Reports that a maintainer script ended, and how long it took.
    fn script(&self, package: &str, script: &str, took: Duration) {
        self.event(Event::Script {
            package: package.to_owned(),
            script: script.to_owned(),
            milliseconds: milliseconds(took),
        });
    }

    /// Reports something the user should look at.
    fn warning(&self, text: &str) {
        self.event(Event::Warning {
            text: text.to_owned(),
        });
    }
}

impl dyn Report + '_ {
    /// Reports that a step begins of which nothing can be counted.
    ///
    /// A step that is left without [`Step::done`] failed, or the next one takes its place.
    pub fn step(&self, text: &str) -> Step<'_> {
        self.begin(text, &[])
    }

    /// Reports that a step begins, and what it consists of.
    pub fn begin(&self, text: &str, work: &[Work]) -> Step<'_> {
        self.event(Event::Step {
            text: text.to_owned(),
            work: work.to_owned(),
        });
        Step {
            report: self,
            work: Mutex::new(work.to_owned()),
            counts: Mutex::default(),
            begun: Instant::now(),
        }
    }
}

/// A step that has begun; may be told of from several threads.
pub struct Step<'a> {
    report: &'a dyn Report,
    work: Mutex<Vec<Work>>,
    counts: Mutex<BTreeMap<Unit, u64>>,
    begun: Instant,
}

impl Step<'_> {
    /// Reports that `more` of `unit` are done; what goes beyond the total that was told is not counted.
    pub fn advance(&self, unit: Unit, more: u64) {
        self.tell(unit, |_| {}, more);
    }

    /// Reports that `less` of `unit` are to be done than was told; what is done already is not taken back.
    pub fn expect_less(&self, unit: Unit, less: u64) {
        self.tell(unit, |total| *total = total.saturating_sub(less), 0);
    }

    /// Reports that `more` of `unit` are to be done than was told.
    pub fn expect_more(&self, unit: Unit, more: u64) {
        self.tell(unit, |total| *total = total.saturating_add(more), 0);
    }

    fn tell(&self, unit: Unit, change: impl FnOnce(&mut u64), more: u64) {
        // Told under the lock, so that no thread tells an older number after a newer one.
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(work) = work.iter_mut().find(|work| work.unit == unit) else {
            return;
        };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let done = counts.entry(unit).or_default();
        change(&mut work.total);
        work.total = work.total.max(*done);
        *done = done.saturating_add(more).min(work.total);
        self.report.event(Event::Progress {
            unit,
            done: *done,
            total: work.total,
        });
    }

    /// Reports what the step is at.
    pub fn doing(&self, text: &str) {
        self.report.event(Event::Doing {
            text: text.to_owned(),
        });
    }

    /// Reports that the step succeeded; `text` says what was done, in the past tense.
    pub fn done(self, text: &str) {
        self.report.event(Event::Done {
            text: text.to_owned(),
            milliseconds: milliseconds(self.begun.elapsed()),
            work: self.work.into_inner().unwrap_or_else(PoisonError::into_inner),
        });
    }
}

/// The bytes of an item are told when so much time has passed.
const BYTES_EVERY: Duration = Duration::from_millis(100);

/// They are also told after this share of the item, so that what is told of a transfer that stalls is not far behind.
const BYTES_SHARE: u64 = 100;

/// The bytes of one item of a step, from whoever receives them; what is told never falls and never passes the total.
pub struct Item<'a> {
    step: &'a Step<'a>,
    name: String,
    total: u64,
    told: Mutex<(u64, Option<Instant>)>,
}

impl<'a> Item<'a> {
    /// Begins an item of `total` bytes.
    pub fn new(step: &'a Step<'a>, name: &str, total: u64) -> Self {
        Self {
            step,
            name: name.to_owned(),
            total,
            told: Mutex::default(),
        }
    }

    /// Returns how many bytes were not told to be here.
    pub fn left(&self) -> u64 {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.total - told.0
    }

    /// Takes note that `done` bytes are here.
    pub fn reached(&self, done: u64) {
        let done = done.min(self.total);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, when) = *told;
        let soon = when.is_some_and(|when| when.elapsed() < BYTES_EVERY);
        let little = done < self.total && done.saturating_sub(before) < self.total / BYTES_SHARE;
        if done <= before || (soon && little) {
            return;
        }
        *told = (done, Some(Instant::now()));
        self.step.report.event(Event::Bytes {
            item: self.name.clone(),
            done,
            total: self.total,
        });
        self.step.advance(Unit::Bytes, done - before);
    }
}

/// Returns a number with its noun, in the plural where that is due.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Returns bytes as people read them, such as `213 MiB`: two to four digits.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // In tenths, rounded; no floating point that turns 10 into 9.99.
    let tenths_of = |unit: u128| (u128::from(bytes) * 10 + unit / 2) / unit;
    let mut unit = 1024;
    let mut name = UNITS[0];
    for next in &UNITS[1..] {
        if tenths_of(unit) < 10_240 {
            break;
        }
        unit *= 1024;
        name = next;
    }
    match tenths_of(unit) {
        tenths if tenths < 100 => format!("{}.{} {name}", tenths / 10, tenths % 10),
        tenths => format!("{} {name}", (tenths + 5) / 10),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Drops every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Report for Silent {
    fn event(&self, _event: Event) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Event>>);

    impl Report for Recorder {
        fn event(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }

    #[test]
    fn bytes_neither_fall_nor_pass_the_total() {
        let recorder = Recorder::default();
        let report: &dyn Report = &recorder;
        let step = report.begin("Fetching", &[Work::new(Unit::Bytes, 30)]);
        let (first, second) = (Item::new(&step, "a", 10), Item::new(&step, "b", 20));
        first.reached(10);
        first.reached(4);
        first.reached(25);
        second.reached(21);
        step.advance(Unit::Layers, 1);
        step.done("Fetched");
        let progress: Vec<u64> = recorder
            .0
            .into_inner()
            .unwrap()
            .into_iter()
            .filter_map(|event| match event {
                Event::Progress { unit, done, total } => {
                    assert_eq!((unit, total), (Unit::Bytes, 30));
                    Some(done)
                }
                _ => None,
            })
            .collect();
        assert_eq!(progress, [10, 30]);
    }

    #[test]
    fn numbers_read_well() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10_239, "10 KiB"),
            (1_048_575, "1.0 MiB"),
            (223_346_688, "213 MiB"),
            (1_610_612_736, "1.5 GiB"),
            (u64::MAX, "16384 PiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!(
            (counted(1, "layer"), counted(0, "layer")),
            ("1 layer".to_owned(), "0 layers".to_owned())
        );
    }

    #[test]
    fn events_are_read_back_as_they_were_written() {
        let work = vec![Work::new(Unit::Bytes, 7), Work::new(Unit::Layers, 2)];
        for (event, json) in [
            (
                Event::Step {
                    text: "Fetching layers".to_owned(),
                    work: work.clone(),
                },
                r#"{"type":"step","text":"Fetching layers","work":[{"unit":"bytes","total":7},{"unit":"layers","total":2}]}"#,
            ),
            (
                Event::Step {
                    text: "Merging".to_owned(),
                    work: Vec::new(),
                },
                r#"{"type":"step","text":"Merging"}"#,
            ),
            (
                Event::Progress {
                    unit: Unit::Scripts,
                    done: 1,
                    total: 2,
                },
                r#"{"type":"progress","unit":"scripts","done":1,"total":2}"#,
            ),
            (
                Event::Done {
                    text: "Fetched".to_owned(),
                    work,
                    milliseconds: 5,
                },
                r#"{"type":"done","text":"Fetched","work":[{"unit":"bytes","total":7},{"unit":"layers","total":2}],"milliseconds":5}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&event).unwrap(), json);
            assert_eq!(serde_json::from_str::<Event>(json).unwrap(), event);
        }
    }
}
