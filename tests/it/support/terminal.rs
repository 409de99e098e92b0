//! A real terminal: tmux in a size of its own, a command in it, and what stands on the screen.

use super::home::Home;
use super::run;
use apt_ostree::host::runner::Cmd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the terminal and the locale can do.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub columns: usize,
    pub rows: usize,
    pub colour: bool,
    pub unicode: bool,
}

/// A terminal with a shell command that runs in it; both end when it is dropped.
pub struct Terminal {
    folder: TempDir,
    pub kind: Kind,
}

/// What the shell writes behind the command.
const ENDED: &str = "ended with";

impl Terminal {
    /// Starts a command in the environment of a home directory, such as `apt-ostree status`; `apt-ostree` is the
    /// program under test.
    pub fn run(home: &Home, kind: Kind, command: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let terminal = Self { folder, kind };
        let program = PathBuf::from(env!("CARGO_BIN_EXE_apt-ostree"));
        let programs = program.parent().expect("a folder").display();
        let locale = if kind.unicode { "C.UTF-8" } else { "C" };
        let colour = if kind.colour {
            "unset NO_COLOR"
        } else {
            "export NO_COLOR=1"
        };
        let script = format!(
            "PATH={programs}:$PATH; unset LC_CTYPE LANG; export LC_ALL={locale}; {colour}\n{command}\n\
             printf '{ENDED} %s\\n' $?; read -r _\n"
        );
        let file = terminal.folder.path().join("script");
        std::fs::write(&file, script).expect("the script");
        home.surroundings()
            .cmd("tmux")
            .args(["-u", "-f", "/dev/null", "-S"])
            .arg(terminal.socket())
            .args(["new-session", "-d"])
            .args(["-x", &kind.columns.to_string(), "-y", &kind.rows.to_string()])
            .args(["bash", "--norc"])
            .arg(&file)
            .run()
            .unwrap_or_else(|error| panic!("{error:#}"));
        terminal
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        Cmd::new("tmux")
            .args(["-u", "-S"])
            .arg(self.socket())
            .args(arguments)
            .run_text()
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Returns the lines of the screen, and of what has left it above.
    pub fn lines(&self) -> Vec<String> {
        let text = self.tmux(&["capture-pane", "-p", "-S", "-"]);
        text.trim_end().lines().map(str::to_owned).collect()
    }

    /// Returns the text with the sequences for colours.
    pub fn with_colours(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e", "-S", "-"])
    }

    /// Returns the first screen on which `wanted` is true; fails the test when none comes.
    pub fn wait(&self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let start = Instant::now();
        loop {
            let lines = self.lines();
            if wanted(&lines) {
                return lines;
            }
            let late = start.elapsed() > Duration::from_secs(120);
            assert!(
                !late,
                "{what} never came on {:?}:\n{}",
                self.kind,
                lines.join("\n")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a line that contains `text`, and returns the screen.
    pub fn wait_for(&self, text: &str) -> Vec<String> {
        self.wait(text, |lines| lines.iter().any(|line| line.contains(text)))
    }

    /// Waits for the end of the command, and returns the screen and the exit status.
    pub fn wait_for_end(&self) -> (Vec<String>, i32) {
        let mut lines = self.wait_for(ENDED);
        let last = lines.pop().expect("a line");
        let status = last
            .strip_prefix(ENDED)
            .unwrap_or_else(|| panic!("{last} after {lines:?}"));
        (lines, status.trim().parse().expect("a number"))
    }

    /// Presses a key, as tmux names it, for example `C-c`.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Returns whether the cursor can be seen.
    pub fn cursor_is_visible(&self) -> bool {
        self.tmux(&["display-message", "-p", "#{cursor_flag}"]).trim() == "1"
    }

    /// Gives the terminal another width.
    pub fn resize(&self, columns: usize) {
        self.tmux(&["resize-window", "-x", &columns.to_string()]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let socket = self.socket().display().to_string();
        run("tmux", ["-S", &socket, "kill-server"]);
    }
}
