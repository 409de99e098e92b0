//! Named points at which a crash test ends this process.
//!
//! `APT_OSTREE_CHECKPOINT=NAME` in a debug build makes the process kill itself with `SIGKILL` when it reaches
//! that point, `NAME:pause` makes it wait there until it is killed from outside, `NAME:enospc` makes the point
//! fail as a full disk would. Release builds contain none of this.

use anyhow::Result;

/// Passes the named point, or ends the process there when a crash test asked for it.
///
/// Fails only when a test asked for `NAME:enospc`.
#[cfg(debug_assertions)]
#[expect(clippy::disallowed_methods, reason = "this module is part of host/")]
pub fn reach(name: &str) -> Result<()> {
    let Ok(wanted) = std::env::var("APT_OSTREE_CHECKPOINT") else {
        return Ok(());
    };
    let (point, action) = wanted.split_once(':').unwrap_or((&wanted, "kill"));
    if point != name {
        return Ok(());
    }
    match action {
        "pause" => {
            // The name tells a test in /proc that the point is reached.
            rustix::thread::set_name(c"checkpoint")?;
            loop {
                std::thread::park();
            }
        }
        "enospc" => Err(std::io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()).into()),
        _ => {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL)?;
            loop {
                std::thread::park();
            }
        }
    }
}

/// Passes the named point; in a release build there is nothing to do.
#[cfg(not(debug_assertions))]
pub fn reach(_name: &str) -> Result<()> {
    Ok(())
}
