//! `countme` on the command line, for its timer.

use crate::cli::Context;
use crate::host::{clock, environment};
use crate::ops::countme::{self, Counted};
use anyhow::Result;
use clap::Args;
use std::path::{Path, PathBuf};

/// Let this host be counted, if the settings say so and it was not counted in this week
#[derive(Args, Debug)]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let root = match &context.global.sysroot {
        None => PathBuf::from("/"),
        Some(_) => {
            let host = context.host("countme")?;
            host.settings_root(&host.stateroot(context.global.stateroot.as_deref())?)
        }
    };
    let state = environment::variable("STATE_DIRECTORY").unwrap_or_else(|| countme::STATE.into());
    match countme::run(&root, Path::new(&state), clock::seconds())? {
        Counted::Off => writeln!(context.out, "Counting is off: `countme.enabled` is `false`.")?,
        Counted::Already => writeln!(context.out, "Counted in this week before.")?,
        Counted::Now(uri) => writeln!(context.out, "Counted: {uri}")?,
    }
    Ok(0)
}
