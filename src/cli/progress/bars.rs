//! Progress on a terminal: finished steps become lines, below them the step that runs is drawn again and again.
//!
//! The cursor always waits at the begin of the line below what is drawn and no mode of the terminal is changed, so that
//! whatever ends the process leaves a terminal that needs no mending. Each change is one write.

use super::layout;
use super::stage::Stage;
use super::ticker::Show;
use crate::cli::terminal::Style;
use crate::report::Event;
use std::io::Write;
use std::time::{Duration, Instant};

/// Draws on a terminal.
pub(super) struct Bars<T> {
    terminal: T,
    /// Returns the columns and rows at this time.
    size: fn() -> (usize, usize),
    style: Style,
    stage: Option<Stage>,
    /// The widths of the lines that are drawn.
    drawn: Vec<usize>,
}

impl<T: Write + Send> Bars<T> {
    pub(super) fn new(terminal: T, size: fn() -> (usize, usize), style: Style) -> Self {
        Self {
            terminal,
            size,
            style,
            stage: None,
            drawn: Vec::new(),
        }
    }

    /// Returns the columns that are used and the rows; the last column stays free, since some terminals wrap there.
    fn room(&self) -> (usize, usize) {
        let (columns, rows) = (self.size)();
        (columns.saturating_sub(1).max(1), rows.saturating_sub(1).max(1))
    }

    /// Writes lines that stay, and what is drawn anew below them.
    fn draw(&mut self, lines: &[String], now: Instant) {
        let (columns, rows) = self.room();
        let live = match &self.stage {
            Some(stage) => layout::live(stage, now, (columns, rows), self.style),
            None => Vec::new(),
        };
        // A terminal that became narrower has wrapped what was drawn.
        let before: usize = self
            .drawn
            .iter()
            .map(|width| width.div_ceil(columns + 1).max(1))
            .sum();
        let mut text = up(before);
        for line in lines.iter().chain(&live) {
            text = format!("{text}\r{line}\x1b[K\n");
        }
        // Line by line: to erase all that is below makes some terminals keep it above their first line.
        let left_over = before.saturating_sub(lines.len() + live.len());
        text = format!("{text}\r{}{}", "\x1b[K\n".repeat(left_over), up(left_over));
        self.drawn = live.iter().map(|line| layout::width(line)).collect();
        // A terminal that is gone must not end an operation, and there is nowhere left to report it.
        drop(
            self.terminal
                .write_all(text.as_bytes())
                .and_then(|()| self.terminal.flush()),
        );
    }

    /// Returns the lines that stay of a step, when it is done or another takes its place.
    fn end(&mut self, done: Option<(String, String)>) -> Vec<String> {
        let columns = self.room().0;
        let Some(stage) = self.stage.take() else {
            return Vec::new();
        };
        let (text, tail) = done.unwrap_or_else(|| (self.style.printable(&stage.text), String::new()));
        let mut lines = vec![layout::with_tail(&text, &tail, columns, self.style)];
        if let Some(slow) = layout::slow_scripts(&stage) {
            lines.push(layout::cut(&slow, columns, self.style));
        }
        lines
    }
}

impl<T: Write + Send> Show for Bars<T> {
    fn event(&mut self, event: Event, now: Instant) {
        let columns = self.room().0;
        let lines = match &event {
            Event::Step { text, work } => {
                let lines = self.end(None);
                self.stage = Some(Stage::new(text, work, now));
                lines
            }
            Event::Done {
                text,
                work,
                milliseconds,
            } => {
                let took = Duration::from_millis(*milliseconds);
                let told = layout::finished(text, work, took, self.style);
                self.end(Some(told))
            }
            Event::Note { text } => layout::wrapped(text, columns, self.style),
            Event::Warning { text } => {
                let mut lines = layout::wrapped(&format!("warning: {text}"), columns, self.style);
                if let Some(rest) = lines.first().and_then(|line| line.strip_prefix("warning:")) {
                    lines[0] = self.style.yellow("warning:") + rest;
                }
                lines
            }
            other => {
                if let Some(stage) = &mut self.stage {
                    stage.take(other, now);
                }
                return;
            }
        };
        self.draw(&lines, now);
    }

    fn tick(&mut self, now: Instant) {
        if self.stage.is_some() {
            self.draw(&[], now);
        }
    }

    fn finish(&mut self) {
        self.stage = None;
        if !self.drawn.is_empty() {
            self.draw(&[], Instant::now());
        }
    }
}

/// Returns what moves the cursor up.
fn up(lines: usize) -> String {
    match lines {
        0 => String::new(),
        lines => format!("\x1b[{lines}A"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Unit, Work};
    use indicatif::{InMemoryTerm, TermLike};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A terminal of its own kind: what stands on it can be read.
    struct Screen(InMemoryTerm);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // A line feed of a program goes to the begin of the next line.
            let text = String::from_utf8_lossy(bytes).replace('\n', "\r\n");
            self.0.write_str(&text)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const COLOURED: Style = Style {
        coloured: true,
        unicode: true,
    };

    fn step(text: &str, work: &[Work]) -> Event {
        Event::Step {
            text: text.to_owned(),
            work: work.to_owned(),
        }
    }

    fn done(text: &str, work: &[Work], milliseconds: u64) -> Event {
        Event::Done {
            text: text.to_owned(),
            work: work.to_owned(),
            milliseconds,
        }
    }

    fn bytes(item: &str, done: u64, total: u64) -> Event {
        Event::Bytes {
            item: item.to_owned(),
            done: done << 20,
            total: total << 20,
        }
    }

    #[test]
    fn finished_steps_stay_and_what_is_drawn_goes() {
        let screen = InMemoryTerm::new(12, 60);
        let mut bars = Bars::new(Screen(screen.clone()), || (60, 12), COLOURED);
        let now = Instant::now();
        let work = [Work::new(Unit::Bytes, 100 << 20), Work::new(Unit::Layers, 2)];
        bars.event(step("Fetching the manifest", &[]), now);
        assert_eq!(screen.contents(), "Fetching the manifest…");
        bars.event(done("Fetched the manifest", &[], 300), now);
        bars.event(step("Fetching layers", &work), now);
        for event in [bytes("one", 10, 60), bytes("two", 5, 40)] {
            bars.event(event, now);
        }
        let (unit, total) = (Unit::Bytes, 100 << 20);
        let reached = Event::Progress {
            unit,
            done: 15 << 20,
            total,
        };
        bars.event(reached, now);
        bars.tick(now);
        let expected = "\
Fetched the manifest in 0.3 s
Fetching layers  [█░░░░░░░]   15 %   15/100 MiB  0/2 layers
  one                       [█░░░░░░░]   16 %     10/60 MiB
  two                       [█░░░░░░░]   12 %    5.0/40 MiB";
        assert_eq!(screen.contents(), expected);
        let warning = "The package lists are old, and nothing could be done about that.";
        bars.event(
            Event::Warning {
                text: warning.to_owned(),
            },
            now,
        );
        bars.event(bytes("two", 40, 40), now);
        bars.event(done("Fetched 2 layers", &work, 12_000), now);
        bars.event(step("Merging layers", &[]), now);
        bars.finish();
        let expected = "\
Fetched the manifest in 0.3 s
warning: The package lists are old, and nothing could be
  done about that.
Fetched 2 layers, 100 MiB in 12 s";
        assert_eq!(screen.contents(), expected);
        let formatted = String::from_utf8(screen.contents_formatted()).unwrap();
        assert!(formatted.contains("\x1b[33mwarning:"), "{formatted:?}");
    }

    static COLUMNS: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn nothing_wraps_in_any_width() {
        for columns in (20..=300).step_by(7) {
            COLUMNS.store(columns, Ordering::Relaxed);
            let screen = InMemoryTerm::new(10, u16::try_from(columns).unwrap());
            let size = || (COLUMNS.load(Ordering::Relaxed), 10);
            let mut bars = Bars::new(Screen(screen.clone()), size, COLOURED);
            let now = Instant::now();
            let work = [Work::new(Unit::Bytes, 100 << 20), Work::new(Unit::Layers, 9)];
            for text in ["One", "Two"] {
                bars.event(
                    Event::Note {
                        text: text.to_owned(),
                    },
                    now,
                );
            }
            bars.event(step("Fetching layers", &work), now);
            for item in 0..9 {
                bars.event(
                    bytes(&format!("a-rather-long-name-of-package-{item}"), item, 60),
                    now,
                );
            }
            for _ in 0..3 {
                bars.tick(now);
            }
            let shown = screen.contents();
            let lines: Vec<&str> = shown.lines().collect();
            assert_eq!(lines.len(), 7, "{columns}: {shown}");
            assert_eq!(lines[..2], ["One", "Two"]);
            assert!(lines.iter().all(|line| line.chars().count() < columns), "{shown}");
            bars.event(done("Fetched 9 layers", &work, 5000), now);
            assert_eq!(screen.contents().lines().count(), 3, "{columns}");
        }
    }

    #[test]
    fn a_small_terminal_is_not_overfilled() {
        let screen = InMemoryTerm::new(3, 40);
        let mut bars = Bars::new(Screen(screen.clone()), || (40, 3), COLOURED);
        let now = Instant::now();
        bars.event(step("Fetching layers", &[Work::new(Unit::Bytes, 1 << 30)]), now);
        for item in ["one", "two", "three", "four"] {
            bars.event(bytes(item, 1, 50), now);
        }
        for _ in 0..3 {
            bars.tick(now);
        }
        assert_eq!(screen.contents().lines().count(), 2, "{}", screen.contents());
        assert!(screen.contents().starts_with("Fetching layers"));
    }
}
