//! Starts other programs: one place, so that each failure names the command and its last words.
//!
//! Arguments are passed as a list and never through a shell. Secrets go in by file or standard input only.

use crate::fault::{Fault, Kind};
use anyhow::{Context, Result, bail};
use cap_std_ext::cmdext::CapStdExtCommandExt;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Bytes of standard error that a failure repeats.
const LAST_WORDS: usize = 1024;

/// Bytes at which a line that is followed is cut.
pub const LONGEST_LINE: usize = 8192;

/// How long pipes are read that a program's own children keep open after its end.
const LEFT_BEHIND: Duration = Duration::from_secs(2);

/// A program with its arguments, to be run to its end.
#[derive(Debug)]
pub struct Cmd {
    command: Command,
    input: Option<Vec<u8>>,
    output: Option<File>,
    grace: Option<Duration>,
    longest_line: usize,
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
            grace: None,
            longest_line: LONGEST_LINE,
        }
    }

    /// Lets the program be seen under another name than the file it is started from.
    #[must_use]
    pub fn shown_as(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.arg0(name);
        self
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

    /// Gives the child an open file under this number.
    #[must_use]
    pub fn descriptor(mut self, file: Arc<OwnedFd>, number: i32) -> Self {
        self.command.take_fd_n(file, number);
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
    /// The program ends with this process, so that nothing goes on behind a verb that a signal ended.
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
        // The thread that waits here is the one that starts it.
        self.command.lifecycle_bind_to_parent_thread();
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

    /// Lets [`Cmd::follow`] ask by SIGINT when it is told to stop, and kill only what still runs after `grace`.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Lets [`Cmd::follow`] cut lines at this many bytes instead of [`LONGEST_LINE`].
    #[must_use]
    pub fn longest_line(mut self, bytes: usize) -> Self {
        self.longest_line = bytes;
        self
    }

    /// Starts the program beside this process, on the same terminal, until what is returned is dropped.
    ///
    /// It ends with the calling thread at the latest. Fails when it cannot be started.
    pub fn beside(mut self) -> Result<Beside> {
        self.command.stdin(Stdio::null()).stdout(Stdio::null());
        self.command.lifecycle_bind_to_parent_thread();
        let child = self
            .command
            .spawn()
            .map_err(|error| start_error(&self.command, error))?;
        Ok(Beside(child))
    }

    /// Runs the program to its end on this process's own terminal and returns its status.
    ///
    /// Fails when the program cannot be started.
    pub fn on_terminal(mut self) -> Result<ExitStatus> {
        let shown = self.shown();
        self.command.lifecycle_bind_to_parent_thread();
        let mut child = self
            .command
            .spawn()
            .map_err(|error| start_error(&self.command, error))?;
        child.wait().with_context(|| format!("Waiting for `{shown}`"))
    }

    /// Runs the program to its end and hands over each line it writes, while it runs.
    ///
    /// It is killed with its process group when it writes nothing to standard output for as long as `silence`, if
    /// that is given, and when `stop` is sent; see [`Cmd::grace`] for a gentler way.
    /// Lines are cut at [`LONGEST_LINE`] bytes, and what is not UTF-8 is replaced. Whoever keeps its pipes open after
    /// its end is listened to for a short while only.
    ///
    /// A signal from the terminal does not reach it: whoever sends `stop` decides. It ends with the calling thread.
    pub fn follow(
        mut self,
        silence: Option<Duration>,
        stop: oneshot::Receiver<()>,
        mut line: impl FnMut(Line<'_>),
    ) -> Result<Ending> {
        let shown = self.shown();
        self.command.process_group(0);
        self.command.lifecycle_bind_to_parent_thread();
        let has_input = self.input.is_some();
        self.command
            .stdin(if has_input { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("Starting the runtime")?;
        runtime.block_on(async {
            let mut command = tokio::process::Command::from(self.command);
            command.kill_on_drop(true);
            let mut child = command
                .spawn()
                .map_err(|error| start_error(command.as_std(), error))?;
            drop(command);
            let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
                bail!("`{shown}` was started without pipes");
            };
            if let (Some(input), Some(mut pipe)) = (self.input, child.stdin.take()) {
                tokio::spawn(async move {
                    // A program that does not want its input has a status to tell why.
                    pipe.write_all(&input).await.ok();
                });
            }
            let mut output = Lines::of(output, self.longest_line);
            let mut errors = Lines::of(errors, self.longest_line);
            let limit = || silence.map(|silence| Instant::now() + silence);
            let mut overdue = limit();
            let mut killed = None;
            let mut status = None;
            // A sender that is dropped stops nothing.
            let stop = async {
                if stop.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::pin!(stop);
            while output.open || errors.open {
                let cut_off = tokio::select! {
                    biased;
                    () = &mut stop, if killed.is_none() => match self.grace {
                        None => Some(Ending::Stopped),
                        Some(grace) => {
                            signal(&child, Signal::INT).with_context(|| format!("Stopping `{shown}`"))?;
                            killed = Some(Instant::now() + grace);
                            None
                        }
                    },
                    // First what the program tells of itself, then what the programs it runs say.
                    read = output.next(), if output.open => {
                        if let Some(text) = read? {
                            line(Line::Output(&text));
                            overdue = limit();
                        }
                        None
                    }
                    read = errors.next(), if errors.open => {
                        if let Some(text) = read? {
                            line(Line::Error(&text));
                        }
                        None
                    }
                    ended = child.wait(), if status.is_none() => {
                        status = Some(ended.with_context(|| format!("Waiting for `{shown}`"))?);
                        killed = Some(Instant::now() + LEFT_BEHIND);
                        None
                    }
                    () = sleep_until(overdue), if status.is_none() => Some(Ending::Overdue),
                    () = sleep_until(killed) => match status {
                        Some(status) => return Ok(Ending::Exited(status)),
                        None => Some(Ending::Stopped),
                    },
                };
                if let Some(ending) = cut_off {
                    signal(&child, Signal::KILL).with_context(|| format!("Ending `{shown}`"))?;
                    child
                        .wait()
                        .await
                        .with_context(|| format!("Waiting for `{shown}`"))?;
                    return Ok(ending);
                }
            }
            let status = child
                .wait()
                .await
                .with_context(|| format!("Waiting for `{shown}`"))?;
            Ok(Ending::Exited(status))
        })
    }

    fn shown(&self) -> String {
        std::iter::once(self.command.get_program())
            .chain(self.command.get_args())
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Sends a signal: SIGINT to the child alone, which knows how to end what it started, any other to its group.
///
/// Does nothing when the child has ended.
fn signal(child: &Child, signal: Signal) -> Result<()> {
    let Some(pid) = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
    else {
        return Ok(());
    };
    if signal == Signal::INT {
        kill_process(pid, signal)?;
    } else {
        kill_process_group(pid, signal)?;
    }
    Ok(())
}

/// A program that runs beside this process until this is dropped.
#[derive(Debug)]
pub struct Beside(std::process::Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if let Err(error) = ended {
            tracing::warn!("a program that ran beside this one could not be ended: {error}");
        }
    }
}

/// Waits for a time, or for ever.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// A line that a program wrote, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// To standard output.
    Output(&'a str),
    /// To standard error.
    Error(&'a str),
}

/// How a program that was followed came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself.
    Exited(ExitStatus),
    /// It was killed because it told nothing for too long.
    Overdue,
    /// It was killed because somebody asked for it.
    Stopped,
}

/// The lines of one stream.
struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    longest: usize,
    open: bool,
}

impl<R: tokio::io::AsyncRead + Unpin> Lines<R> {
    fn of(stream: R, longest: usize) -> Self {
        Self {
            reader: BufReader::new(stream),
            line: Vec::new(),
            longest,
            open: true,
        }
    }

    /// Returns the next line; nothing at the end. Nothing is lost when the wait for it is given up.
    async fn next(&mut self) -> Result<Option<String>> {
        loop {
            let available = self
                .reader
                .fill_buf()
                .await
                .context("Reading what a program writes")?;
            if available.is_empty() {
                self.open = false;
                return Ok((!self.line.is_empty()).then(|| self.take()));
            }
            let room = self.longest - self.line.len();
            let end = available.iter().take(room).position(|byte| *byte == b'\n');
            let length = end.unwrap_or(available.len().min(room));
            self.line.extend_from_slice(&available[..length]);
            let is_whole = end.is_some() || self.line.len() == self.longest;
            self.reader.consume(length + usize::from(end.is_some()));
            if is_whole {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> String {
        let bytes = std::mem::take(&mut self.line);
        String::from_utf8_lossy(&bytes).into_owned()
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
    fn lines_are_handed_over_and_a_silent_or_stopped_program_is_killed() {
        let follow = |script: &str, silence, stop| {
            let mut seen = Vec::new();
            let cmd = Cmd::new("sh").args(["-c", script]);
            let ending = cmd.follow(Some(silence), stop, |line| seen.push(format!("{line:?}")));
            (ending.unwrap(), seen)
        };
        let (_keep, never) = oneshot::channel();
        let script = "echo one; echo two >&2; printf three; exit 3";
        let (ending, mut seen) = follow(script, Duration::from_secs(60), never);
        assert!(matches!(ending, Ending::Exited(status) if status.code() == Some(3)));
        seen.sort();
        assert_eq!(seen, ["Error(\"two\")", "Output(\"one\")", "Output(\"three\")"]);
        let (_keep, never) = oneshot::channel();
        let script = "exec sleep 1000";
        assert_eq!(
            follow(script, Duration::from_millis(50), never).0,
            Ending::Overdue
        );
        let (sender, stop) = oneshot::channel();
        sender.send(()).unwrap();
        assert_eq!(follow(script, Duration::from_secs(60), stop).0, Ending::Stopped);
    }

    #[test]
    fn a_program_with_grace_is_asked_first_and_killed_later() {
        let follow = |script: &str, grace| {
            let mut seen = Vec::new();
            let (sender, stop) = oneshot::channel();
            let mut sender = Some(sender);
            let cmd = Cmd::new("sh").args(["-c", script]).input("ready\n").grace(grace);
            let ending = cmd.follow(None, stop, |line| {
                seen.push(format!("{line:?}"));
                sender.take().map(|sender| sender.send(()));
            });
            (ending.unwrap(), seen)
        };
        let polite = "trap 'echo bye; exit 4' INT; read -r word; echo $word; while :; do sleep 0.01; done";
        let (ending, seen) = follow(polite, Duration::from_secs(60));
        assert!(matches!(ending, Ending::Exited(status) if status.code() == Some(4)));
        assert_eq!(seen, ["Output(\"ready\")", "Output(\"bye\")"]);
        let deaf = "trap '' INT; cat; while :; do sleep 0.01; done";
        assert_eq!(follow(deaf, Duration::from_millis(50)).0, Ending::Stopped);
    }

    #[test]
    fn what_a_program_leaves_behind_does_not_hold_up_its_end() {
        let (_keep, never) = oneshot::channel();
        let cmd = Cmd::new("sh").args(["-c", "sleep 1000 & echo $!; exit 5"]);
        let mut left = 0;
        let ending = cmd.follow(None, never, |line| {
            if let Line::Output(pid) = line {
                left = pid.parse().unwrap();
            }
        });
        assert!(matches!(ending, Ok(Ending::Exited(status)) if status.code() == Some(5)));
        kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn input_reaches_the_program() {
        let text = Cmd::new("cat").input("hello").run_text().unwrap();
        assert_eq!(text, "hello");
    }
}
