//! Progress in a pipe or a log: one line for each step, and lines in between for steps that take long.

use super::layout;
use super::stage::Stage;
use super::ticker::Show;
use crate::cli::terminal::Style;
use crate::report::Event;
use std::io::Write;
use std::time::{Duration, Instant};

/// A step that takes long tells so often how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Writes lines.
pub(super) struct Plain<T> {
    out: T,
    style: Style,
    stage: Option<Stage>,
    told: Instant,
}

impl<T: Write + Send> Plain<T> {
    pub(super) fn new(out: T, style: Style) -> Self {
        Self {
            out,
            style,
            stage: None,
            told: Instant::now(),
        }
    }

    fn line(&mut self, text: &str) {
        let text = format!("{}\n", self.style.printable(text));
        // A closed standard error must not end an operation, and there is nowhere left to report it.
        drop(
            self.out
                .write_all(text.as_bytes())
                .and_then(|()| self.out.flush()),
        );
    }

    /// Writes what stays of a step that ended.
    fn end(&mut self, text: Option<String>) {
        if let Some(stage) = self.stage.take() {
            self.line(&text.unwrap_or_else(|| stage.text.clone()));
            if let Some(slow) = layout::slow_scripts(&stage) {
                self.line(&slow);
            }
        }
    }
}

impl<T: Write + Send> Show for Plain<T> {
    fn event(&mut self, event: Event, now: Instant) {
        match &event {
            Event::Step { text, work } => {
                self.end(None);
                self.stage = Some(Stage::new(text, work, now));
                self.told = now;
            }
            Event::Done {
                text,
                work,
                milliseconds,
            } => {
                let took = Duration::from_millis(*milliseconds);
                let (text, tail) = layout::finished(text, work, took, self.style);
                self.end(Some(text + &tail));
            }
            Event::Note { text } => self.line(text),
            Event::Warning { text } => self.line(&format!("warning: {text}")),
            other => {
                if let Some(stage) = &mut self.stage {
                    stage.take(other, now);
                }
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        let Some(stage) = self
            .stage
            .as_ref()
            .filter(|_| now.duration_since(self.told) >= TELL_EVERY)
        else {
            return;
        };
        let line = layout::in_words(stage, now);
        self.line(&line);
        self.told = now;
    }

    fn finish(&mut self) {
        self.stage = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Unit, Work};

    #[test]
    fn a_line_for_each_step_and_one_every_ten_seconds() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let style = Style {
            coloured: false,
            unicode: false,
        };
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out, style);
        let step = |text: &str, work: &[Work]| Event::Step {
            text: text.to_owned(),
            work: work.to_owned(),
        };
        let work = [Work::new(Unit::Bytes, 400 << 20), Work::new(Unit::Layers, 2)];
        plain.event(step("Fetching layers", &work), at(0));
        for second in 1..=22 {
            let (unit, done, total) = (Unit::Bytes, second * (10 << 20), 400 << 20);
            plain.event(Event::Progress { unit, done, total }, at(second));
            plain.tick(at(second));
        }
        let done = Event::Done {
            text: "Fetched 2 layers".to_owned(),
            work: work.to_vec(),
            milliseconds: 40_000,
        };
        plain.event(done, at(40));
        plain.event(step("Merging layers", &[]), at(40));
        plain.tick(at(49));
        plain.tick(at(51));
        plain.event(step("Storing\x1b[2J", &[]), at(52));
        plain.event(
            Event::Warning {
                text: "Old.".to_owned(),
            },
            at(52),
        );
        plain.finish();
        plain.tick(at(70));
        let expected = "\
Fetching layers: 25 %, 100/400 MiB, 10 MiB/s, 30 s left, 0/2 layers
Fetching layers: 50 %, 200/400 MiB, 10 MiB/s, 20 s left, 0/2 layers
Fetched 2 layers, 400 MiB in 40 s
Merging layers: 11 s so far
Merging layers
warning: Old.
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
