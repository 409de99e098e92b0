//! `history` on the command line, and the same of `image history`: how an image was made.

use crate::cli::Context;
use crate::image::store::StoredImage;
use crate::ops::image;
use crate::ops::revision;
use crate::ops::store::Store;
use crate::report::size;
use anyhow::Result;
use clap::Args;
use serde_json::json;

/// Show how an image was made, newest step first
///
/// Prints version, time and the steps of its build, with the size of each layer. Without a name it is the image
/// that runs. Changes nothing.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  apt-ostree history
      Show how the image was made that runs
  apt-ostree history pending
      Show it for what boots next")]
pub(crate) struct Arguments {
    /// The image: anything that `diff` takes; that of the booted deployment when left out
    image: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Result<u8> {
    let store = Store::Sysroot(context.host("history")?);
    let revision = match &arguments.image {
        Some(text) => revision::require(&store, text)?,
        None => revision::here(revision::require_host(&store)?)?,
    };
    print(&image::of(&store, &revision)?, arguments.json, context)
}

/// Prints the history of a stored image.
pub(crate) fn print(stored: &StoredImage, as_json: bool, context: &mut Context<'_>) -> Result<u8> {
    let history = image::history(stored);
    let layers = stored.manifest.layers();
    let total: u64 = layers.iter().map(|layer| layer.size()).sum();
    if as_json {
        let value = json!({
            "manifest-digest": stored.manifest_digest,
            "version": stored.version(),
            "created": stored.created(),
            "layers": layers.len(),
            "size": total,
            "history": history,
        });
        writeln!(context.out, "{value:#}")?;
        return Ok(0);
    }
    for (key, value) in [
        ("Digest", Some(stored.manifest_digest.clone())),
        ("Version", stored.version()),
        ("Created", stored.created()),
        ("Layers", Some(format!("{} ({})", layers.len(), size(total)))),
    ] {
        if let Some(value) = value {
            writeln!(context.out, "{key:>7}: {value}")?;
        }
    }
    for entry in history.iter().rev() {
        let (digest, bytes) = match &entry.layer {
            Some(layer) => (layer.digest.as_str(), size(layer.size)),
            None => ("-", "-".to_owned()),
        };
        writeln!(
            context.out,
            "{digest:<71} {bytes:>9}  {}",
            entry.created_by.replace('\n', " ")
        )?;
    }
    Ok(0)
}
