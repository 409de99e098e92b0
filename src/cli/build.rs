//! `install` and `uninstall` in the build of an image.

use crate::cli::{Context, container, db};
use crate::fault::{Fault, Kind};
use crate::ops::build;
pub(crate) use crate::ops::build::Options;
use crate::ops::layering::Wanted;
use anyhow::Result;

/// An option as it is written, and whether it was given.
pub(crate) type Given = (&'static str, bool);

/// Fails when an option was given that means nothing in a build; names all of them.
pub(crate) fn refuse(given: impl IntoIterator<Item = Given>) -> Result<(), Fault> {
    let names: Vec<String> = given
        .into_iter()
        .filter(|(_, is_given)| *is_given)
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Usage,
        format!("In the build of an image there is no {}", names.join(", ")),
    )
    .hint("leave it out of the Containerfile: apt works at once there, by its own rules, and nothing is deployed"))
}

/// Adds packages to install.
pub(crate) fn add(options: &mut Options, wanted: Wanted) -> Result<(), Fault> {
    for file in wanted.files {
        if file.starts_with("https://") {
            return Err(Fault::new(
                Kind::Usage,
                format!("{file} is not fetched in the build of an image"),
            )
            .hint("fetch it with `ADD --checksum=sha256:DIGEST URL /tmp/NAME.deb` in the Containerfile, and name that file"));
        }
        options.install_files.push(file.into());
    }
    options.install.extend(wanted.requests);
    Ok(())
}

/// Runs the verb and prints what changed.
pub(crate) fn run(options: &Options, context: &mut Context<'_>) -> Result<u8> {
    let built = build::run(options, context.report)?;
    db::print_block(&built.difference, context.out)?;
    container::print_prepared(&built.prepared, context.out)?;
    Ok(0)
}
