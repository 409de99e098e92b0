//! The step that an operation is at, as its events tell it: how far, how fast, how long still.

use crate::report::{Event, Unit, Work};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The rate is that of so many last seconds.
const WINDOW: Duration = Duration::from_secs(10);

/// Nothing is said about a rate before so much time has passed.
const RATE_AFTER: Duration = Duration::from_secs(1);

/// Nothing is said about the time that is left before so much time has passed.
const LEFT_AFTER: Duration = Duration::from_secs(3);

/// Two samples are at least so far apart.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// So much of one unit is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) unit: Unit,
    pub(super) done: u64,
    pub(super) total: u64,
}

impl Count {
    /// Returns how much is done in hundredths, rounded down: 100 means all of it.
    pub(super) fn percent(&self) -> u64 {
        let hundredths = u128::from(self.done) * 100 / u128::from(self.total.max(1));
        u64::try_from(hundredths).unwrap_or(100).min(100)
    }
}

/// One of the things that are fetched at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) done: u64,
    pub(super) total: u64,
}

/// A step that has begun.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) text: String,
    begun: Instant,
    counts: Vec<Count>,
    items: Vec<Item>,
    doing: Option<(String, Instant)>,
    samples: VecDeque<(Instant, u64)>,
    scripts: Vec<(String, Duration)>,
}

impl Stage {
    pub(super) fn new(text: &str, work: &[Work], now: Instant) -> Self {
        let counts = work.iter().filter(|work| work.total > 0).map(|work| Count {
            unit: work.unit,
            done: 0,
            total: work.total,
        });
        Self {
            text: text.to_owned(),
            begun: now,
            counts: counts.collect(),
            items: Vec::new(),
            doing: None,
            samples: VecDeque::from([(now, 0)]),
            scripts: Vec::new(),
        }
    }

    /// Takes in what an event tells of the step.
    pub(super) fn take(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Progress { unit, done, total } => {
                let count = self.counts.iter_mut().find(|count| count.unit == *unit);
                if let Some(count) = count {
                    count.done = (*done).min(*total);
                    count.total = *total;
                }
                if *unit == Unit::Bytes {
                    self.sample(now, *done);
                }
            }
            Event::Bytes { item, done, total } => {
                self.items.retain(|known| known.name != *item);
                if done < total {
                    self.items.push(Item {
                        name: item.clone(),
                        done: *done,
                        total: *total,
                    });
                }
            }
            Event::Doing { text } => self.doing = Some((text.clone(), now)),
            Event::Script {
                package,
                script,
                milliseconds,
            } => self.scripts.push((
                format!("{script} of {package}"),
                Duration::from_millis(*milliseconds),
            )),
            _ => {}
        }
    }

    fn sample(&mut self, now: Instant, done: u64) {
        match self.samples.back_mut() {
            Some((when, before)) if now.duration_since(*when) < SAMPLE_EVERY && *when > self.begun => {
                *before = done;
            }
            _ => self.samples.push_back((now, done)),
        }
        // One sample from before the window stays: what came since is what came in the window.
        while self
            .samples
            .get(1)
            .is_some_and(|(when, _)| now.duration_since(*when) > WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// Returns what there is a bar for.
    pub(super) fn bar(&self) -> Option<Count> {
        self.counts.first().copied()
    }

    /// Returns all that is counted.
    pub(super) fn counts(&self) -> &[Count] {
        &self.counts
    }

    /// Returns the items that have begun and are not finished, the largest first.
    pub(super) fn items(&self) -> Vec<&Item> {
        let mut items: Vec<&Item> = self.items.iter().collect();
        items.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.name.cmp(&b.name)));
        items
    }

    /// Returns what the step is at, and for how long.
    pub(super) fn doing(&self, now: Instant) -> Option<(&str, Duration)> {
        let (text, since) = self.doing.as_ref()?;
        Some((text, now.duration_since(*since)))
    }

    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        now.duration_since(self.begun)
    }

    /// Returns the bytes a second of the last seconds; nothing where no bytes are counted or it is too early to say.
    pub(super) fn rate(&self, now: Instant) -> Option<u64> {
        let count = self.bar().filter(|count| count.unit == Unit::Bytes)?;
        if self.elapsed(now) < RATE_AFTER {
            return None;
        }
        let start = now
            .checked_sub(WINDOW)
            .map_or(self.begun, |start| start.max(self.begun));
        let (_, before) = self.samples.iter().rev().find(|(when, _)| *when <= start)?;
        let milliseconds = now.duration_since(start).as_millis().max(1);
        let bytes = u128::from(count.done.saturating_sub(*before));
        u64::try_from(bytes * 1000 / milliseconds).ok()
    }

    /// Returns how long the rest takes at this rate; nothing where that cannot be known.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let count = self.bar()?;
        let rate = self.rate(now).filter(|rate| *rate > 0)?;
        if self.elapsed(now) < LEFT_AFTER || count.done == count.total {
            return None;
        }
        Some(Duration::from_secs((count.total - count.done).div_ceil(rate)))
    }

    /// Returns the scripts that took longer than `limit`, the slowest first.
    pub(super) fn slow_scripts(&self, limit: Duration) -> Vec<&(String, Duration)> {
        let mut slow: Vec<_> = self.scripts.iter().filter(|(_, took)| *took >= limit).collect();
        slow.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(stage: &mut Stage, done: u64, now: Instant) {
        let total = 1000;
        let unit = Unit::Bytes;
        stage.take(&Event::Progress { unit, done, total }, now);
    }

    #[test]
    fn rate_and_time_left_are_told_only_when_they_are_known() {
        let begin = Instant::now();
        let at = |seconds: f32| begin + Duration::from_secs_f32(seconds);
        let mut stage = Stage::new("Fetching", &[Work::new(Unit::Bytes, 1000)], begin);
        bytes(&mut stage, 50, at(0.5));
        assert_eq!((stage.rate(at(0.9)), stage.left(at(0.9))), (None, None));
        bytes(&mut stage, 200, at(2.0));
        assert_eq!((stage.rate(at(2.0)), stage.left(at(2.0))), (Some(100), None));
        bytes(&mut stage, 400, at(4.0));
        assert_eq!(stage.rate(at(4.0)), Some(100));
        assert_eq!(stage.left(at(4.0)), Some(Duration::from_secs(6)));
        // A connection that hangs has no time left to tell.
        assert_eq!((stage.rate(at(30.0)), stage.left(at(30.0))), (Some(0), None));
        bytes(&mut stage, 1000, at(31.0));
        assert_eq!(stage.rate(at(31.0)), Some(60));
        assert_eq!(stage.left(at(31.0)), None);
        assert_eq!(stage.bar().unwrap().percent(), 100);
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let begin = Instant::now();
        let mut stage = Stage::new("Fetching", &[Work::new(Unit::Bytes, 1_000_000)], begin);
        let second = |n: u64| begin + Duration::from_secs(n);
        for n in 1..=20 {
            let (unit, done, total) = (Unit::Bytes, n * 1000, 1_000_000);
            stage.take(&Event::Progress { unit, done, total }, second(n));
        }
        assert_eq!(stage.rate(second(20)), Some(1000));
        for n in 21..=40 {
            let (unit, done, total) = (Unit::Bytes, 20_000 + (n - 20) * 10, 1_000_000);
            stage.take(&Event::Progress { unit, done, total }, second(n));
        }
        assert_eq!(stage.rate(second(40)), Some(10));
        assert!(stage.samples.len() < 15, "{}", stage.samples.len());
    }

    #[test]
    fn items_are_those_in_work_and_the_largest_comes_first() {
        let now = Instant::now();
        let mut stage = Stage::new("Fetching", &[], now);
        for (item, done, total) in [
            ("a", 1, 10),
            ("b", 1, 30),
            ("c", 20, 20),
            ("a", 10, 10),
            ("d", 2, 40),
        ] {
            let item = item.to_owned();
            stage.take(&Event::Bytes { item, done, total }, now);
        }
        let names: Vec<&str> = stage.items().iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["d", "b"]);
        assert_eq!(stage.bar(), None);
    }
}
