//! Ends a child process whose id is not known, because another library started it.

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that carries a child's mark.
const VARIABLE: &str = "APT_OSTREE_CHILD";

/// A mark put into the environment of one child of this process, by which that child is found again.
#[derive(Debug)]
pub struct Mark(String);

impl Mark {
    /// Returns a mark that no other child of this process carries.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{}.{number}", getpid().as_raw_nonzero()))
    }

    /// Puts the mark on a command that is not started yet.
    pub fn put_on(&self, command: &mut std::process::Command) {
        command.env(VARIABLE, &self.0);
    }

    /// Kills the child that carries the mark, if it still runs; whoever started it reaps it.
    pub fn kill(&self) {
        let Ok(processes) = std::fs::read_dir("/proc") else {
            tracing::warn!(
                "/proc cannot be read, so the child {} is left to end by itself",
                self.0
            );
            return;
        };
        let pids = processes
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter_map(Pid::from_raw);
        for pid in pids {
            // The descriptor first, the check second: the id cannot go to another process in between.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
                continue;
            };
            if !self.is_on(pid) {
                continue;
            }
            if let Err(error) = pidfd_send_signal(&process, Signal::KILL) {
                tracing::debug!("killing the child {}: {error}", self.0);
            }
        }
    }

    fn is_on(&self, pid: Pid) -> bool {
        let pid = pid.as_raw_nonzero();
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
            return false;
        };
        let parent = format!("PPid:\t{}", getpid().as_raw_nonzero());
        if !status.lines().any(|line| line == parent) {
            return false;
        }
        let wanted = format!("{VARIABLE}={}", self.0);
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|variables| variables.split(|b| *b == 0).any(|v| v == wanted.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::surroundings::Surroundings;

    #[test]
    fn only_the_marked_child_is_killed() {
        let start = |mark: &Mark| {
            let mut command = Surroundings::current().server_command("sleep");
            mark.put_on(command.arg("60"));
            command.spawn().expect("sleep")
        };
        let (first, second) = (Mark::unique(), Mark::unique());
        let (mut killed, mut kept) = (start(&first), start(&second));
        first.kill();
        assert!(!killed.wait().expect("wait").success());
        assert!(kept.try_wait().expect("wait").is_none());
        second.kill();
        kept.wait().expect("wait");
    }
}
