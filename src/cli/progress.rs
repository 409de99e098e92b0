//! Shows the events of an operation: bars on a terminal, plain lines in a pipe, JSON lines for programs.
//!
//! Everything goes to standard error, so that standard output stays data.

use crate::report::{Event, Report, Unit};
use clap::ValueEnum;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Bars on a terminal, plain lines elsewhere
    Auto,
    /// One line for each step
    Plain,
    /// One JSON object for each event
    Json,
    /// Nothing
    None,
}

/// Renders events in one of the forms.
pub(crate) struct Progress {
    renderer: Renderer,
    quiet: bool,
}

enum Renderer {
    Bars {
        all: MultiProgress,
        items: Mutex<HashMap<String, ProgressBar>>,
    },
    Plain {
        done: Mutex<std::collections::HashSet<String>>,
    },
    Json,
    Nothing,
}

impl Progress {
    pub(crate) fn new(form: Form, quiet: bool) -> Self {
        let bars = form == Form::Auto && std::io::stderr().is_terminal();
        let renderer = match form {
            Form::Json => Renderer::Json,
            Form::None => Renderer::Nothing,
            _ if quiet => Renderer::Nothing,
            _ if bars => Renderer::Bars {
                all: MultiProgress::new(),
                items: Mutex::default(),
            },
            _ => Renderer::Plain {
                done: Mutex::default(),
            },
        };
        Self { renderer, quiet }
    }

    /// Takes the bars off the screen.
    pub(crate) fn finish(&self) {
        if let Renderer::Bars { items, .. } = &self.renderer {
            for (_, bar) in items.lock().unwrap_or_else(PoisonError::into_inner).drain() {
                bar.finish_and_clear();
            }
        }
    }
}

impl Report for Progress {
    fn event(&self, event: Event) {
        match &self.renderer {
            Renderer::Nothing => {
                // Silence does not extend to what the user must know.
                if let (Event::Warning { text }, false) = (&event, self.quiet) {
                    write_line(&format!("warning: {text}"));
                }
            }
            Renderer::Json => {
                if let Ok(line) = serde_json::to_string(&event) {
                    write_line(&line);
                }
            }
            Renderer::Plain { done } => match event {
                Event::Step { text, .. } => write_line(&format!("{text} ...")),
                Event::Note { text } => write_line(&text),
                Event::Warning { text } => write_line(&format!("warning: {text}")),
                Event::Progress { .. }
                | Event::Doing { .. }
                | Event::Script { .. }
                | Event::Done { .. }
                | Event::Timing { .. } => {}
                Event::Bytes {
                    item,
                    done: bytes,
                    total,
                } => {
                    let first = bytes >= total
                        && done
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .insert(item.clone());
                    if first {
                        write_line(&format!("  {item} {}", HumanBytes(total)));
                    }
                }
            },
            Renderer::Bars { all, items } => {
                let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Event::Step { text, .. } => {
                        for (_, bar) in items.drain() {
                            bar.finish_and_clear();
                        }
                        print_above(all, &format!("{text} ..."));
                    }
                    Event::Note { text } => print_above(all, &text),
                    Event::Warning { text } => print_above(all, &format!("warning: {text}")),
                    Event::Progress {
                        unit: Unit::Actions,
                        done,
                        total,
                    } => {
                        let bar = items
                            .entry(String::new())
                            .or_insert_with(|| all.add(ProgressBar::new(total)).with_style(count_style()));
                        bar.set_length(total);
                        bar.set_position(done);
                    }
                    Event::Doing { text } => {
                        if let Some(bar) = items.get(&String::new()) {
                            bar.set_message(text);
                        }
                    }
                    Event::Progress { .. }
                    | Event::Script { .. }
                    | Event::Done { .. }
                    | Event::Timing { .. } => {}
                    Event::Bytes { item, done, total } => {
                        let bar = items.entry(item.clone()).or_insert_with(|| {
                            let bar = all.add(ProgressBar::new(total)).with_style(style());
                            bar.set_message(item.chars().take(23).collect::<String>());
                            bar
                        });
                        bar.set_position(done);
                        if done >= total {
                            bar.finish_and_clear();
                        }
                    }
                }
            }
        }
    }
}

fn count_style() -> ProgressStyle {
    ProgressStyle::with_template("{wide_bar} {pos:>5}/{len:5} {msg:40!}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{msg:23} {wide_bar} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {eta:>5}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn print_above(all: &MultiProgress, text: &str) {
    if all.println(text).is_err() {
        write_line(text);
    }
}

/// Writes one line at once, so that lines of several threads do not mix.
///
/// A closed standard error must not end an operation, and there is nowhere left to report it.
fn write_line(text: &str) {
    drop(std::io::stderr().lock().write_all(format!("{text}\n").as_bytes()));
}
