//! What the terminal can show: colour, Unicode, how much fits; the one place where that is found out.

use crate::host::environment;
use std::io::IsTerminal;
use std::os::fd::AsFd;

/// How text may look on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Whether colours and bold letters are understood and wanted; meaning never hangs on them.
    pub(crate) coloured: bool,
    /// Whether characters beyond ASCII are understood.
    pub(crate) unicode: bool,
}

impl Style {
    /// Returns how text may look on this stream: no colour outside of terminals, on dumb ones, and with `NO_COLOR`.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        Self {
            coloured: stream.is_terminal() && !is_dumb() && environment::variable("NO_COLOR").is_none(),
            unicode: is_unicode(),
        }
    }

    /// Returns how text may look on standard output.
    pub(crate) fn of_output() -> Self {
        Self::of(&std::io::stdout())
    }

    /// Returns no colour and no character beyond ASCII.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self {
            coloured: false,
            unicode: false,
        }
    }

    /// Returns the mark before a deployment: of the booted one, or the room it takes.
    pub(crate) fn mark(self, booted: bool) -> &'static str {
        match (booted, self.unicode) {
            (true, true) => "●",
            (true, false) => "*",
            _ => " ",
        }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.painted("1", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.painted("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.painted("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.painted("33", text)
    }

    fn painted(self, code: &str, text: &str) -> String {
        if self.coloured && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Returns text without control characters, and without what the locale cannot show; line breaks stay.
    pub(crate) fn printable(self, text: &str) -> String {
        text.chars()
            .filter_map(|letter| match letter {
                '\n' => Some('\n'),
                '\t' => Some(' '),
                letter if letter.is_control() => None,
                letter if letter.is_ascii() || self.unicode => Some(letter),
                '…' => Some('.'),
                _ => Some('?'),
            })
            .collect()
    }
}

/// Returns whether lines on the terminal can be drawn over.
pub(crate) fn can_redraw(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && !is_dumb()
}

/// Returns the columns and rows of a terminal; those of the first ones when it does not tell.
pub(crate) fn size(stream: impl AsFd) -> (usize, usize) {
    match rustix::termios::tcgetwinsize(stream) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => (80, 24),
    }
}

fn is_dumb() -> bool {
    environment::variable("TERM").is_none_or(|name| name == "dumb")
}

fn is_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| environment::variable(name));
    locale.is_some_and(|locale| {
        let locale = locale.to_string_lossy().to_ascii_uppercase();
        locale.contains("UTF-8") || locale.contains("UTF8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_stream_understands_is_written() {
        let plain = Style::plain();
        let rich = Style {
            coloured: true,
            unicode: true,
        };
        assert_eq!(rich.red("x"), "\x1b[31mx\x1b[0m");
        assert_eq!((plain.red("x"), rich.red("")), ("x".to_owned(), String::new()));
        let text = "a\x1b[2Jé\tb\r\nc\u{9b}…";
        assert_eq!(rich.printable(text), "a[2Jé b\nc…");
        assert_eq!(plain.printable(text), "a[2J? b\nc.");
    }
}
