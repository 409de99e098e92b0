//! An update that is not deployed, as `upgrade --check`, `--preview` and `status` show it.

use crate::cli::status::timestamp;
use crate::deployment::automatic::CachedUpdate;
use anyhow::Result;
use indicatif::HumanBytes;
use std::io::Write;

/// Prints the block `AvailableUpdate:`; `key_width` is how far to the right keys end.
pub(crate) fn print(update: &CachedUpdate, key_width: usize, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "AvailableUpdate:")?;
    let mut line = |key: &str, value: &str| writeln!(out, "  {key:>key_width$}: {value}");
    line("Image", &update.container_image_reference)?;
    match (&update.version, update.timestamp.map(timestamp)) {
        (Some(version), Some(created)) => line("Version", &format!("{version} ({created})"))?,
        (Some(version), None) => line("Version", version)?,
        (None, Some(created)) => line("Timestamp", &created)?,
        (None, None) => {}
    }
    line("Digest", &update.container_image_reference_digest)?;
    let layers = &update.manifest_diff;
    for (key, number, size) in [
        ("Total layers", layers.total, layers.total_size),
        ("Removed layers", layers.n_removed, layers.removed_size),
        ("Added layers", layers.n_added, layers.added_size),
    ] {
        line(key, &format!("{number} ({})", HumanBytes(size)))?;
    }
    let Some(packages) = &update.package_diff else {
        return Ok(());
    };
    line(
        "Diff",
        &format!(
            "{} upgraded, {} downgraded, {} removed, {} added",
            packages.upgraded.len(),
            packages.downgraded.len(),
            packages.removed.len(),
            packages.added.len()
        ),
    )?;
    for pair in packages.upgraded.iter().chain(&packages.downgraded) {
        let (before, after) = (&pair.before, &pair.after);
        writeln!(out, "    {} {} -> {}", after.name, before.version, after.version)?;
    }
    for id in &packages.removed {
        writeln!(out, "    -{} {}", id.name, id.version)?;
    }
    for id in &packages.added {
        writeln!(out, "    +{} {}", id.name, id.version)?;
    }
    Ok(())
}
