//! `cancel` on the command line.

use crate::cli::Context;
use crate::cli::perform;
use crate::daemon::proxy::{Told, Transaction};
use crate::fault::Fault;
use crate::host::password_agent::PasswordAgent;
use anyhow::Result;
use clap::Args;

/// Stop the change that is being made
///
/// Downloads, scripts and imports end, and the host stays as it was: nothing has to be undone. Whose change it
/// is does not matter, but it needs the right to do so. Waits until it has stopped.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree cancel
      Stop an upgrade that another terminal or the timer began")]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let service = perform::require_service(context.global)?;
    let Some(active) = service.active()? else {
        writeln!(context.out, "No active transaction.")?;
        return Ok(0);
    };
    // Before it is cancelled, so that its end is not missed.
    let mut watched = Transaction::attach(&active.address)?;
    let _agent = PasswordAgent::for_this_terminal()?;
    writeln!(context.out, "Cancelling transaction: {}", active.title)?;
    context.out.flush()?;
    if !service.cancel()? {
        writeln!(context.out, "It was over already.")?;
        return Ok(0);
    }
    while watched.hear()? != Told::Finished {}
    match watched.result() {
        Err(error)
            if Fault::find(&error).is_some_and(|fault| fault.kind == crate::fault::Kind::Cancelled) =>
        {
            writeln!(context.out, "Cancelled.")?;
            Ok(0)
        }
        Err(error) => Err(error.context("The transaction failed before it was cancelled")),
        Ok(_) => {
            writeln!(context.out, "It was too late: the transaction is done.")?;
            Ok(1)
        }
    }
}
