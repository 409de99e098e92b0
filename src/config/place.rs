//! Mistakes in fragments, and where they are.

use crate::fault::{Fault, Kind};
use std::fmt;
use std::path::PathBuf;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// The file as the host names it, for example `/etc/apt-ostree/config.d/50-site.toml`.
    pub(super) file: PathBuf,
    /// Line and column, counted from 1; none when the file as a whole is wrong.
    pub(super) place: Option<(usize, usize)>,
    /// What is wrong, without a full stop.
    pub(super) text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Returns line and column of a byte of the text, both counted from 1; the column counts characters.
pub(super) fn of(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[start..].chars().count() + 1,
    )
}

/// Returns the fault that tells of all mistakes.
pub(super) fn fault(mistakes: &[Mistake]) -> Fault {
    let message = match mistakes {
        [only] => format!("The configuration has a mistake: {only}"),
        many => {
            let lines: Vec<String> = many.iter().map(|mistake| format!("\n  {mistake}")).collect();
            format!("The configuration has {} mistakes:{}", many.len(), lines.concat())
        }
    };
    Fault::new(Kind::Invalid, message).hint("correct it, and look at the result with `apt-ostree config`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        for (text, offset, expected) in [
            ("", 0, (1, 1)),
            ("abc", 2, (1, 3)),
            ("a\nbc", 3, (2, 2)),
            ("ä = 1", 3, (1, 3)),
            ("ä", 1, (1, 1)),
            ("a\n", 99, (2, 1)),
        ] {
            assert_eq!(of(text, offset), expected, "{text:?} {offset}");
        }
    }

    #[test]
    fn one_mistake_is_one_line_and_more_are_a_list() {
        let mistake = |place| Mistake {
            file: "/etc/x.toml".into(),
            place,
            text: "no".to_owned(),
        };
        let one = fault(&[mistake(Some((2, 3)))]);
        assert_eq!(
            one.message,
            "The configuration has a mistake: /etc/x.toml:2:3: no"
        );
        let two = fault(&[mistake(None), mistake(Some((1, 1)))]);
        assert_eq!(two.message.lines().count(), 3);
        assert!(two.message.contains("2 mistakes") && two.message.contains("\n  /etc/x.toml: no"));
    }
}
