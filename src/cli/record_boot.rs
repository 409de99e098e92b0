//! `record-boot` on the command line: what the unit `apt-ostree-bootstatus.service` runs.

use crate::cli::{Context, status};
use crate::ops::record_boot;
use anyhow::Result;
use clap::Args;

/// Note this boot of the booted deployment, and show that deployment
#[derive(Args, Debug)]
pub(crate) struct Arguments {}

/// Ends with 0 whatever goes wrong: no boot may fail for its record.
pub(crate) fn run(_arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    if let Err(error) = record_boot::run(context.global.sysroot.as_deref()) {
        context
            .report
            .warning(&format!("The boot is not recorded: {error:#}."));
    }
    if let Err(error) = status::run(&status::Arguments::booted(), context) {
        context
            .report
            .warning(&format!("The booted deployment cannot be shown: {error:#}."));
    }
    Ok(0)
}
