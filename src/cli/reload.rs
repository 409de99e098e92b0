//! `reload` on the command line.

use crate::cli::Context;
use crate::cli::perform;
use crate::host::password_agent::PasswordAgent;
use anyhow::Result;
use clap::Args;

/// Let the service read its settings and the deployments again
#[derive(Args, Debug)]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let service = perform::require_service(context.global)?;
    let _agent = PasswordAgent::for_this_terminal()?;
    service.reload_config()?;
    service.reload()?;
    Ok(0)
}
