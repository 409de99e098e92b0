//! Starts other programs: one place, so that each failure names the command and its last words.
//!
//! Arguments are passed as a list and never through a shell. Secrets go in by file or standard input only.

use crate::fault::{Fault, Kind};
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Bytes of standard error that a failure repeats.
const LAST_WORDS: usize = 1024;

/// A program with its arguments, to be run to its end.
#[derive(Debug)]
pub struct Cmd {
    command: Command,
    input: Option<Vec<u8>>,
    output: Option<File>,
}

impl Cmd {
    /// Returns a command that runs `program`, found on `PATH`.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that starts programs"
    )]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            command: Command::new(program),
            input: None,
            output: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments in their order.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the child's environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes a variable from the child's environment.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets the child's working directory.
    #[must_use]
    pub fn current_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Feeds `input` to the child's standard input; without this it is empty.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Lets the child write its standard output into a file, from the file's position on; nothing is returned of it.
    #[must_use]
    pub fn output_to(mut self, file: File) -> Self {
        self.output = Some(file);
        self
    }

    /// Runs the program to its end and returns its standard output.
    ///
    /// Fails when the program cannot be started or ends with another status than 0; the error names the command
    /// and ends with the last lines it wrote to standard error.
    pub fn run(self) -> Result<Vec<u8>> {
        let shown = self.shown();
        let output = self.output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.trim_end();
        let mut start = words.len().saturating_sub(LAST_WORDS);
        while !words.is_char_boundary(start) {
            start += 1;
        }
        bail!("`{shown}` failed ({}): {}", output.status, &words[start..]);
    }

    /// Runs the program as [`Cmd::run`] does and returns its standard output as text.
    pub fn run_text(self) -> Result<String> {
        let shown = self.shown();
        String::from_utf8(self.run()?).with_context(|| format!("Reading what `{shown}` printed"))
    }

    /// Runs the program to its end and returns its status and output, whatever the status is.
    ///
    /// Fails when the program cannot be started.
    pub fn output(mut self) -> Result<Output> {
        let shown = self.shown();
        self.command.stdin(if self.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        self.command
            .stdout(self.output.take().map_or_else(Stdio::piped, Stdio::from))
            .stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .map_err(|error| start_error(&self.command, error))?;
        let writer = match (self.input.take(), child.stdin.take()) {
            (Some(input), Some(mut pipe)) => Some(std::thread::spawn(move || pipe.write_all(&input))),
            _ => None,
        };
        let output = child
            .wait_with_output()
            .with_context(|| format!("Waiting for `{shown}`"))?;
        if let Some(writer) = writer {
            match writer.join() {
                // A program that has read enough may close its input early; its status tells how it went.
                Ok(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    return Err(error).with_context(|| format!("Writing to `{shown}`"));
                }
                Ok(_) => {}
                Err(_) => bail!("The thread that writes to `{shown}` panicked"),
            }
        }
        Ok(output)
    }

    fn shown(&self) -> String {
        std::iter::once(self.command.get_program())
            .chain(self.command.get_args())
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn start_error(command: &Command, error: std::io::Error) -> anyhow::Error {
    let program: OsString = command.get_program().to_owned();
    let program = program.to_string_lossy();
    if error.kind() == std::io::ErrorKind::NotFound {
        return Fault::new(
            Kind::NotFound,
            format!("The program `{program}` is not installed"),
        )
        .hint(format!("install the Debian package that holds `{program}`"))
        .into();
    }
    anyhow::Error::from(error).context(format!("Starting `{program}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_command_and_last_words() {
        let error = Cmd::new("sh")
            .args(["-c", "echo no such luck >&2; exit 3"])
            .run()
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("no such luck") && text.contains("exit status: 3"),
            "{text}"
        );
    }

    #[test]
    fn missing_program_is_a_fault() {
        let error = Cmd::new("no-such-program-here").run().unwrap_err();
        assert_eq!(Fault::find(&error).map(|fault| fault.kind), Some(Kind::NotFound));
    }

    #[test]
    fn input_reaches_the_program() {
        let text = Cmd::new("cat").input("hello").run_text().unwrap();
        assert_eq!(text, "hello");
    }
}
