//! `image` on the command line.

use crate::cli::Context;
use crate::image::gc::Collected;
use crate::image::store;
use crate::ops::image;
use crate::ops::store::Store;
use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Import an image, and deploy nothing
    Pull(Named),
    /// List the images in the repository
    List(Listing),
    /// Show how a stored image was made, newest step first
    History(Named),
    /// Print a stored image's digest, manifest and configuration as JSON
    Inspect(Named),
    /// Forget a stored image, and remove what only it needed
    Remove(Named),
    /// Remove layers and objects that no image and no deployment needs
    Prune(Place),
}

#[derive(Args, Debug)]
pub(crate) struct Place {
    /// The repository; that of the sysroot when left out
    #[arg(long, value_name = "REPO")]
    repo: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Listing {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Named {
    #[command(flatten)]
    place: Place,
    /// The image reference
    reference: String,
}

impl Command {
    /// Returns the verb's name when it changes the sysroot's repository.
    pub(crate) fn writes(&self) -> Option<&'static str> {
        let (name, place) = match self {
            Self::Pull(named) => ("image pull", &named.place),
            Self::Remove(named) => ("image remove", &named.place),
            Self::Prune(place) => ("image prune", place),
            Self::List(_) | Self::History(_) | Self::Inspect(_) => return None,
        };
        place.repo.is_none().then_some(name)
    }
}

pub(crate) fn run(command: &Command, context: &mut Context<'_>) -> Result<u8> {
    let open = |context: &Context<'_>, place: &Place| match &place.repo {
        Some(path) => Store::open_repo(path),
        None => context
            .host("image", command.writes().is_some())
            .map(Store::Sysroot),
    };
    let patience = context.patience();
    match command {
        Command::Pull(named) => {
            let store = open(context, &named.place)?;
            let pulled = image::pull(&store, &named.reference, patience, context.report)?;
            if pulled.unchanged {
                writeln!(context.out, "Already present: {}", pulled.image.manifest_digest)?;
            } else {
                writeln!(context.out, "Imported: {}", pulled.image.manifest_digest)?;
                writeln!(context.out, "  Commit: {}", pulled.image.commit)?;
                writeln!(
                    context.out,
                    "  Layers fetched: {} ({})",
                    pulled.layers_fetched,
                    HumanBytes(pulled.bytes_fetched)
                )?;
            }
        }
        Command::List(listing) => list(&open(context, &listing.place)?, listing.json, context)?,
        Command::History(named) => {
            let stored = image::find(&open(context, &named.place)?, &named.reference)?;
            for entry in image::history(&stored).iter().rev() {
                let (digest, size) = match &entry.layer {
                    Some((digest, size)) => (digest.as_str(), HumanBytes(*size).to_string()),
                    None => ("-", "-".to_owned()),
                };
                writeln!(
                    context.out,
                    "{digest:<71} {size:>12}  {}",
                    entry.created_by.replace('\n', " ")
                )?;
            }
        }
        Command::Inspect(named) => {
            let stored = image::find(&open(context, &named.place)?, &named.reference)?;
            let value = serde_json::json!({
                "commit": stored.commit,
                "manifest-digest": stored.manifest_digest,
                "manifest": stored.manifest,
                "config": stored.config,
            });
            writeln!(context.out, "{value:#}")?;
        }
        Command::Remove(named) => {
            let freed = image::remove(
                &open(context, &named.place)?,
                &named.reference,
                patience,
                context.report,
            )?;
            print_freed(&freed, context)?;
        }
        Command::Prune(place) => {
            let freed = image::prune(&open(context, place)?, patience, context.report)?;
            print_freed(&freed, context)?;
        }
    }
    Ok(0)
}

fn list(store: &Store, json: bool, context: &mut Context<'_>) -> Result<()> {
    let images = store::list(&store.repo())?;
    if json {
        let rows: Vec<_> = images
            .iter()
            .map(|(name, image)| match image {
                Ok(image) => serde_json::json!({
                    "image": name,
                    "manifest-digest": image.manifest_digest,
                    "commit": image.commit,
                    "version": image.version(),
                }),
                Err(error) => serde_json::json!({ "image": name, "error": format!("{error:#}") }),
            })
            .collect();
        writeln!(context.out, "{:#}", serde_json::Value::Array(rows))?;
        return Ok(());
    }
    for (name, image) in &images {
        match image {
            Ok(image) => writeln!(context.out, "{name} {}", image.manifest_digest)?,
            Err(error) => writeln!(context.out, "{name} (cannot be read: {error:#})")?,
        }
    }
    Ok(())
}

fn print_freed(freed: &Collected, context: &mut Context<'_>) -> Result<()> {
    writeln!(
        context.out,
        "Removed {} images and {} layers ({} objects, {})",
        freed.images,
        freed.layers,
        freed.objects,
        HumanBytes(freed.bytes)
    )?;
    Ok(())
}
