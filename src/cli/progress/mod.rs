//! Shows the events of an operation: bars on a terminal, plain lines in a pipe, JSON lines for programs.
//!
//! Everything goes to standard error, so that standard output stays data. [`stage`] knows how far a step is, [`layout`]
//! how that looks in a given width, [`bars`] and [`plain`] write it, and [`ticker`] keeps it up to date.

mod bars;
mod json;
mod layout;
mod plain;
mod stage;
mod ticker;

use crate::cli::terminal::{self, Style};
use crate::report::{Event, Report};
use bars::Bars;
use clap::ValueEnum;
use plain::Plain;
use std::io::Write;
use ticker::Ticker;

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
}

enum Renderer {
    Shown(Ticker),
    Json,
    /// Nothing but what the user must know.
    Warnings,
    Nothing,
}

impl Progress {
    pub(crate) fn new(form: Form, quiet: bool) -> Self {
        let stderr = std::io::stderr();
        let style = Style::of(&stderr);
        let renderer = match form {
            Form::Json => Renderer::Json,
            _ if quiet => Renderer::Nothing,
            Form::None => Renderer::Warnings,
            Form::Auto if terminal::can_redraw(&stderr) => {
                let size = || terminal::size(std::io::stderr());
                Renderer::Shown(Ticker::new(Bars::new(stderr, size, style)))
            }
            Form::Auto | Form::Plain => Renderer::Shown(Ticker::new(Plain::new(stderr, style))),
        };
        Self { renderer }
    }

    /// Takes what is not final off the screen.
    pub(crate) fn finish(&self) {
        if let Renderer::Shown(ticker) = &self.renderer {
            ticker.finish();
        }
    }

    /// Returns a writer for results: nothing that is drawn stands in their way.
    pub(crate) fn beside<W: Write>(&self, out: W) -> impl Write {
        Beside { progress: self, out }
    }
}

impl Report for Progress {
    fn event(&self, event: Event) {
        match (&self.renderer, event) {
            (Renderer::Shown(ticker), event) => ticker.event(event),
            (Renderer::Json, event) => json::write(&event),
            (Renderer::Warnings, Event::Warning { text }) => {
                let stderr = std::io::stderr();
                let text = Style::of(&stderr).printable(&text);
                // A closed standard error must not end an operation, and there is nowhere left to report it.
                drop(stderr.lock().write_all(format!("warning: {text}\n").as_bytes()));
            }
            (Renderer::Warnings | Renderer::Nothing, _) => {}
        }
    }
}

struct Beside<'a, W> {
    progress: &'a Progress,
    out: W,
}

impl<W: Write> Write for Beside<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.progress.finish();
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
