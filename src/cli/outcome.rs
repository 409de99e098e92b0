//! What a verb prints when it is done, and the exit status it ends with.

use crate::cli::{Context, UNCHANGED, apply_live, db, fsck, transaction};
use crate::deployment::staging::Published;
use crate::ops::{Outcome, reboot};
use anyhow::Result;
use indicatif::HumanBytes;

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
        Outcome::Applied(applied) => apply_live::print(applied.as_deref(), context)?,
        Outcome::Pulled(pulled) if pulled.unchanged => {
            writeln!(context.out, "Already present: {}", pulled.image.manifest_digest)?;
        }
        Outcome::Pulled(pulled) => {
            writeln!(context.out, "Imported: {}", pulled.image.manifest_digest)?;
            writeln!(context.out, "  Commit: {}", pulled.image.commit)?;
            let mut bytes = HumanBytes(pulled.bytes_fetched).to_string();
            if pulled.bytes_fetched < pulled.bytes_of_layers {
                bytes += &format!(" of {}", HumanBytes(pulled.bytes_of_layers));
            }
            writeln!(
                context.out,
                "  Layers fetched: {} ({bytes})",
                pulled.layers_fetched
            )?;
        }
        Outcome::Checked(checkup) => return fsck::print(checkup, after.json, context.out),
        Outcome::Freed(freed) => writeln!(
            context.out,
            "Removed {} images and {} layers ({} objects, {})",
            freed.images,
            freed.layers,
            freed.objects,
            HumanBytes(freed.bytes)
        )?,
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
    if after.reboot && !context.served.get() {
        context.out.flush()?;
        reboot::run()?;
    }
    Ok(0)
}
