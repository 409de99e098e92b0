//! The D-Bus service: adapters that authorise, parse and start a transaction, and a client's side in [`proxy`].
//!
//! ```text
//! org.aptostree.dev                        the name on the system bus
//!   /org/aptostree/dev/Sysroot             org.aptostree.dev.Sysroot1
//!   /org/aptostree/dev/OS                  org.aptostree.dev.OS1, of the stateroot that a verb would choose
//!   /org/aptostree/dev/OS/<stateroot>      org.aptostree.dev.OS1
//! <run-dir>/transaction-<random>.sock      one transaction, peer to peer
//!   /                                      org.aptostree.dev.Transaction1
//! ```
//!
//! Invariants: one transaction at a time; each runs in a process of its own (`worker`), which ends with the service;
//! a caller is known by its name on the bus and the user id that the bus has for it, never by a process id; nothing
//! that a client does or leaves undone holds up another client.

mod announce;
mod arguments;
mod authority;
mod bounded;
mod caller;
mod carry;
mod clients;
mod error;
mod files;
mod os;
mod peer;
pub mod proxy;
mod reader;
mod result;
mod service;
mod slot;
mod socket;
mod start;
mod sysroot;
mod transaction;
mod variant;
mod worker;

pub use authority::ACTIONS;

use crate::host::log::{self, LevelFilter};
use anyhow::{Context, Result};
use arguments::Arguments;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// The name on the bus, and the beginning of the names of interfaces, errors and polkit actions.
pub const BUS_NAME: &str = "org.aptostree.dev";

/// The object of the sysroot.
pub const SYSROOT_PATH: &str = "/org/aptostree/dev/Sysroot";

/// The object of the stateroot that a verb would choose; below it there is one object for each stateroot.
pub const OS_PATH: &str = "/org/aptostree/dev/OS";

/// Serves until the service is idle or told to end, or carries out one request; returns the exit status.
///
/// Fails when the bus does not answer, when another process owns the name, and where there is no sysroot.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            return error
                .print()
                .map_or(ExitCode::FAILURE, |()| ExitCode::from(status));
        }
    };
    log::start(LevelFilter::INFO);
    let done = if arguments.worker {
        worker::main()
    } else {
        serve(&arguments)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("Starting the runtime")?;
    runtime.block_on(start::run(arguments))
}
