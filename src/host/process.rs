//! Which run of which program: a process id alone is given to others later.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A process of one boot of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// When it was started, in the kernel's ticks since the boot.
    pub start: u64,
    /// The boot.
    pub boot: String,
}

impl Process {
    /// Returns this process.
    pub fn current() -> Result<Self> {
        let pid = std::process::id();
        Ok(Self {
            pid,
            start: start_of(pid).context("Reading when this process was started")?,
            boot: boot_id()?,
        })
    }

    /// Returns whether it still runs.
    pub fn is_alive(&self) -> bool {
        start_of(self.pid) == Some(self.start) && boot_id().is_ok_and(|boot| boot == self.boot)
    }
}

/// Returns the id of this boot of the machine.
pub fn boot_id() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("Reading the boot id")?;
    Ok(text.trim().to_owned())
}

/// Returns the 22nd field of the process's `stat`, counted behind the name, which may hold anything.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_start_or_boot_is_another_process() {
        let me = Process::current().unwrap();
        assert!(me.is_alive());
        let other = |change: fn(&mut Process)| {
            let mut process = me.clone();
            change(&mut process);
            process
        };
        assert!(!other(|process| process.start += 1).is_alive());
        assert!(!other(|process| process.boot.push('x')).is_alive());
        assert!(!other(|process| process.pid = u32::MAX).is_alive());
    }
}
