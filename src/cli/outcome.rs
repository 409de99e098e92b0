//! What a verb prints when it is done, and the exit status it ends with.

use crate::cli::{Context, UNCHANGED, db, transaction};
use crate::deployment::staging::Published;
use crate::ops::{Outcome, reboot};
use anyhow::Result;

/// What to do with an outcome besides printing it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct After {
    /// Reboot when something changed.
    pub(crate) reboot: bool,
    /// End with 77 when nothing changed.
    pub(crate) unchanged_exit_77: bool,
    /// Print what would be done as JSON.
    pub(crate) json: bool,
}

/// Prints the outcome, reboots where asked, and returns the exit status.
pub(crate) fn finish(outcome: &Outcome, after: After, context: &mut Context<'_>) -> Result<u8> {
    match outcome {
        Outcome::Unchanged(why) => {
            writeln!(context.out, "{why}")?;
            return Ok(if after.unchanged_exit_77 { UNCHANGED } else { 0 });
        }
        Outcome::Planned(plan) => {
            if after.json {
                writeln!(context.out, "{:#}", transaction::json(plan)?)?;
            } else {
                write!(context.out, "{}", transaction::text(plan))?;
                writeln!(context.out, "Exiting because of '--dry-run' option")?;
            }
            return Ok(0);
        }
        Outcome::Downloaded { image, packages } => {
            writeln!(context.out, "Update downloaded: {}", image.manifest_digest)?;
            if *packages > 0 {
                writeln!(context.out, "  Packages on top: {packages}")?;
            }
            return Ok(0);
        }
        Outcome::Changed(what) => writeln!(context.out, "{what}")?,
        Outcome::Published {
            how,
            reference,
            image,
            difference,
        } => {
            db::print_block(difference, context.out)?;
            writeln!(context.out, "Queued for next boot: {reference}")?;
            if let Some(version) = image.version() {
                writeln!(context.out, "  Version: {version}")?;
            }
            writeln!(context.out, "  Digest: {}", image.manifest_digest)?;
            if *how == Published::Staged && !after.reboot {
                writeln!(
                    context.out,
                    "Changes queued for next boot. Run \"systemctl reboot\" to start a reboot"
                )?;
            }
        }
    }
    if after.reboot {
        context.out.flush()?;
        reboot::run()?;
    }
    Ok(0)
}
