//! `image` on the command line.

use crate::cli::outcome::{After, finish};
use crate::cli::{Context, history};
use crate::image::store;
use crate::ops::request::Request;
use crate::ops::store::Store;
use crate::ops::{Outcome, image};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store an image, and deploy nothing
    ///
    /// Fetches the layers that are not stored yet. Nothing boots from the image before `rebase` or `deploy`
    /// names it; `apt-ostree image remove` forgets it.
    #[command(after_help = "\
Examples:
  apt-ostree image pull registry.example/os/debian:13
      Store an image of a registry
  apt-ostree image pull --repo /srv/repo registry.example/os/debian:13
      Store it in another repository")]
    Pull(Named),
    /// List the stored images
    ///
    /// Shows the reference, digest and version of each image in the repository. Changes nothing.
    #[command(after_help = "\
Examples:
  apt-ostree image list
      List them
  apt-ostree image list --json
      Print them for a script")]
    List(Listing),
    /// Show how a stored image was made, newest step first
    ///
    /// Prints the steps of its build, such as the lines of a Containerfile, with the size of each layer.
    /// Changes nothing.
    #[command(after_help = "\
Examples:
  apt-ostree image history registry.example/os/debian:13
      Show the steps of this image
  apt-ostree image history --repo /srv/repo registry.example/os/debian:13
      Look into another repository")]
    History(History),
    /// Print a stored image's manifest and configuration
    ///
    /// Prints digest, manifest and configuration as JSON, as they were when the image was stored. Nothing is
    /// fetched.
    #[command(after_help = "\
Examples:
  apt-ostree image inspect registry.example/os/debian:13
      Print what is known of this image
  apt-ostree image inspect --repo /srv/repo registry.example/os/debian:13
      Look into another repository")]
    Inspect(Named),
    /// Forget a stored image, and remove what only it needed
    ///
    /// Frees space at once. What a deployment needs stays, so that no host stops booting. `apt-ostree image
    /// pull` fetches it again.
    #[command(after_help = "\
Examples:
  apt-ostree image remove registry.example/os/debian:12
      Forget this image
  apt-ostree image remove --repo /srv/repo registry.example/os/debian:12
      Forget it in another repository")]
    Remove(Named),
    /// Remove layers and objects that nothing needs
    ///
    /// Frees space at once, for example after an interrupted fetch. Every image and every deployment stays.
    /// `upgrade` does this by itself.
    #[command(after_help = "\
Examples:
  apt-ostree image prune
      Clean the repository of this host
  apt-ostree image prune --repo /srv/repo
      Clean another repository")]
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

#[derive(Args, Debug)]
pub(crate) struct History {
    #[command(flatten)]
    named: Named,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: &Command, context: &mut Context<'_>) -> Result<u8> {
    let open = |context: &Context<'_>, place: &Place| match &place.repo {
        Some(path) => Store::open_repo(path),
        None => context.host("image").map(Store::Sysroot),
    };
    let target = context.target();
    let named = |named: &Named| image::Named {
        reference: named.reference.clone(),
        target: target.clone(),
    };
    // A repository of its own is written by whoever may write it, a sysroot's by whoever may change the sysroot.
    let outcome = match command {
        Command::Pull(what) => match &what.place.repo {
            None => context.perform(&Request::ImagePull(named(what)))?,
            Some(path) => {
                let store = Store::open_repo(path)?;
                Outcome::Pulled(Box::new(image::pull(&store, &named(what), context.report)?))
            }
        },
        Command::Remove(what) => match &what.place.repo {
            None => context.perform(&Request::ImageRemove(named(what)))?,
            Some(path) => {
                let store = Store::open_repo(path)?;
                Outcome::Freed(image::remove(&store, &named(what), context.report)?)
            }
        },
        Command::Prune(place) => {
            let unneeded = image::Unneeded { target };
            match &place.repo {
                None => context.perform(&Request::ImagePrune(unneeded))?,
                Some(path) => {
                    let store = Store::open_repo(path)?;
                    Outcome::Freed(image::prune(&store, &unneeded, context.report)?)
                }
            }
        }
        Command::List(listing) => return list(&open(context, &listing.place)?, listing.json, context),
        Command::History(what) => {
            let stored = image::find(&open(context, &what.named.place)?, &what.named.reference)?;
            return history::print(&stored, what.json, context);
        }
        Command::Inspect(what) => {
            let stored = image::find(&open(context, &what.place)?, &what.reference)?;
            let value = serde_json::json!({
                "commit": stored.commit,
                "manifest-digest": stored.manifest_digest,
                "manifest": stored.manifest,
                "config": stored.config,
            });
            writeln!(context.out, "{value:#}")?;
            return Ok(0);
        }
    };
    finish(&outcome, After::default(), context)
}

fn list(store: &Store, json: bool, context: &mut Context<'_>) -> Result<u8> {
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
        return Ok(0);
    }
    for (name, image) in &images {
        match image {
            Ok(image) => writeln!(context.out, "{name} {}", image.manifest_digest)?,
            Err(error) => writeln!(context.out, "{name} (cannot be read: {error:#})")?,
        }
    }
    Ok(0)
}
