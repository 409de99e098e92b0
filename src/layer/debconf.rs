//! Answers to the questions of packages, given before anything is unpacked.
//!
//! Answers may be secrets: they go in by standard input, and no message repeats one.

use crate::fault::{Fault, Kind};
use crate::host::runner::Cmd;
use anyhow::Result;
use fn_error_context::context;

/// The program that takes the answers.
pub(crate) const PROGRAM: &str = "debconf-set-selections";

/// Stores answers, in the form of debconf-set-selections(1), in the database of the root that `cmd` runs [`PROGRAM`] in.
///
/// Fails with the number of a line that is no answer, and when the image has no debconf.
#[context("Storing the debconf answers")]
pub(crate) fn answer(cmd: Cmd, answers: &[u8]) -> Result<()> {
    check(answers)?;
    let output = cmd.input(answers).output()?;
    if output.status.success() {
        return Ok(());
    }
    // What it writes repeats the lines.
    Err(Fault::new(
        Kind::Invalid,
        format!(
            "debconf-set-selections of the image refused the answers ({})",
            output.status
        ),
    )
    .hint("check the file with `debconf-set-selections --checkonly FILE`")
    .into())
}

/// Fails at the first line that is not `owner question type value`, a comment or empty.
pub(crate) fn check(answers: &[u8]) -> Result<(), Fault> {
    let text = std::str::from_utf8(answers)
        .map_err(|_| Fault::new(Kind::Invalid, "The debconf answers are not UTF-8"))?;
    let mut continues = false;
    for (number, line) in text.lines().enumerate() {
        let begins = !continues;
        continues = line.ends_with('\\');
        if !begins || line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        if line.split_whitespace().count() < 3 {
            return Err(Fault::new(
                Kind::Invalid,
                format!("Line {} of the debconf answers is no answer", number + 1),
            )
            .hint("each line is `PACKAGE QUESTION TYPE VALUE`, as `debconf-get-selections` prints it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_answer_is_named_without_its_text() {
        check(
            b"# comment\n\nfoo foo/name string hello\nfoo foo/long string a \\\n b\nfoo foo/empty string\n",
        )
        .unwrap();
        let fault = check(b"foo foo/name string x\nsecret\n").unwrap_err();
        assert!(
            fault.message.contains("Line 2") && !fault.message.contains("secret"),
            "{fault}"
        );
    }
}
