//! `reload` on the command line.

use crate::cli::Context;
use crate::cli::perform;
use crate::host::password_agent::PasswordAgent;
use anyhow::Result;
use clap::Args;

/// Let the service read its settings again
///
/// For changes to /etc/apt-ostree/config.d, and to deployments that another program made. Takes effect at once;
/// a change that is being made goes on.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree reload
      Let new settings take effect")]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let service = perform::require_service(context.global)?;
    let _agent = PasswordAgent::for_this_terminal()?;
    service.reload_config()?;
    service.reload()?;
    Ok(0)
}
