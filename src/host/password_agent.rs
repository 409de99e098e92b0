//! polkit's agent on a terminal, which asks a person for the password that an action needs.

use crate::host::environment;
use crate::host::runner::{Beside, Cmd};
use anyhow::{Context, Result};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::sync::Arc;

/// Asks for passwords on the terminal of this process while it lives.
#[derive(Debug)]
pub struct PasswordAgent {
    _program: Option<Beside>,
}

impl PasswordAgent {
    /// Starts the agent; nothing for root, without a terminal, and where polkit is not installed.
    ///
    /// Returns once polkit knows the agent. An agent of the session, where there is one, stays in charge.
    pub fn for_this_terminal() -> Result<Self> {
        let asks = !rustix::process::geteuid().is_root()
            && std::io::stdin().is_terminal()
            && std::io::stderr().is_terminal()
            && environment::has_program("pkttyagent");
        if !asks {
            return Ok(Self { _program: None });
        }
        let (ready, told) = pipe_with(PipeFlags::CLOEXEC).context("Making a pipe")?;
        let program = Cmd::new("pkttyagent")
            .args(["--fallback", "--notify-fd=3", "--process"])
            .arg(std::process::id().to_string())
            .descriptor(Arc::new(told), 3)
            .beside()?;
        // The agent closes its end when it is registered, and so does its own end.
        File::from(ready)
            .read_to_end(&mut Vec::new())
            .context("Waiting for polkit's agent")?;
        Ok(Self {
            _program: Some(program),
        })
    }
}
