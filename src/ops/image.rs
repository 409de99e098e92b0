//! `image`: what the repository holds, and imports without a deployment.

use crate::deployment::prune;
use crate::fault::{Fault, Kind};
use crate::image::commit::Commit;
use crate::image::gc::{self, Collected, Scope};
use crate::image::policy::Policy;
use crate::image::pull::{self, PullOptions, Pulled};
use crate::image::reference::{self, ImageReference};
use crate::image::store::{self, StoredImage};
use crate::layer::record;
use crate::ops::Target;
use crate::ops::revision::Revision;
use crate::ops::store::Store;
use crate::report::Report;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One step of how an image was made, with the layer it brought.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HistoryEntry {
    /// The layer; none for a step that only changed metadata.
    pub layer: Option<HistoryLayer>,
    /// When it was made, in RFC 3339, where the image tells.
    pub created: Option<String>,
    /// The command that made it; empty where the image does not tell.
    pub created_by: String,
}

/// What a step of the history brought.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HistoryLayer {
    /// Its digest.
    pub digest: String,
    /// Its bytes as they are fetched.
    pub size: u64,
}

/// An image to store or to forget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Named {
    /// The reference, as a user types it.
    pub reference: String,
    /// Patience; the stateroot means nothing here.
    #[serde(flatten)]
    pub target: Target,
}

/// Everything that nothing needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Unneeded {
    /// Patience; the stateroot means nothing here.
    #[serde(flatten)]
    pub target: Target,
}

/// Imports an image; what a failure leaves is described at [`pull::pull`].
pub fn pull(store: &Store, named: &Named, report: &dyn Report) -> Result<Pulled> {
    let resolved = reference::resolve(&named.reference, &Policy::load()?)?;
    if let Some(note) = &resolved.chosen_form_note {
        report.note(note);
    }
    let _lock = store.lock("image pull", named.target.patience(), report)?;
    pull::pull(
        &store.repo(),
        &resolved.reference,
        &PullOptions {
            require_bootable: false,
            ..PullOptions::default()
        },
        report,
    )
    .with_context(|| format!("Pulling {}", resolved.reference))
}

/// Returns the stored image of that name.
pub fn find(store: &Store, text: &str) -> Result<StoredImage> {
    let reference = parse(text)?;
    store::find(&store.repo(), &reference)?.ok_or_else(|| missing(&reference).into())
}

/// Returns the image that a revision is, or was derived from; fails for a commit that comes from none.
pub fn of(store: &Store, revision: &Revision) -> Result<StoredImage> {
    let repo = store.repo();
    let commit = record::base_of(&repo, &revision.commit)?;
    if !Commit::load(&repo, &commit)?.is_image() {
        return Err(Fault::new(
            Kind::NotFound,
            format!("{} was not made from an image", revision.name),
        )
        .hint("see what is stored with `apt-ostree image list`")
        .into());
    }
    store::query_commit(&repo, &commit)
}

/// Returns how a stored image was made, oldest step first.
pub fn history(image: &StoredImage) -> Vec<HistoryEntry> {
    let mut layers = image.manifest.layers().iter().map(|layer| HistoryLayer {
        digest: layer.digest().to_string(),
        size: layer.size(),
    });
    let steps = image.config.history().as_deref().unwrap_or_default();
    let mut entries: Vec<HistoryEntry> = steps
        .iter()
        .map(|step| HistoryEntry {
            layer: if step.empty_layer().unwrap_or(false) {
                None
            } else {
                layers.next()
            },
            created: step.created().clone(),
            created_by: step
                .created_by()
                .clone()
                .or_else(|| step.comment().clone())
                .unwrap_or_default(),
        })
        .collect();
    entries.extend(layers.map(|layer| HistoryEntry {
        layer: Some(layer),
        created: None,
        created_by: String::new(),
    }));
    entries
}

/// Forgets a stored image and removes what only it needed. Deployments made from it keep working.
pub fn remove(store: &Store, named: &Named, report: &dyn Report) -> Result<Collected> {
    let reference = parse(&named.reference)?;
    let lock = store.lock("image remove", named.target.patience(), report)?;
    if let Some(lock) = &lock {
        prune::protect(lock)?;
    }
    if !store::remove(&store.repo(), &reference)? {
        return Err(missing(&reference).into());
    }
    collect(store, Scope::Changes)
}

/// Removes layers and objects that no stored image and no deployment needs, also those that no image ever had.
pub fn prune(store: &Store, unneeded: &Unneeded, report: &dyn Report) -> Result<Collected> {
    let lock = store.lock("image prune", unneeded.target.patience(), report)?;
    if let Some(lock) = &lock {
        prune::protect(lock)?;
    }
    collect(store, Scope::Everything)
}

fn collect(store: &Store, scope: Scope) -> Result<Collected> {
    let repo = store.repo();
    let mut references = Vec::new();
    for (name, _) in store::list(&repo)? {
        references.push(format!("ostree-unverified-image:{name}").parse::<ImageReference>()?);
    }
    let commits: Vec<String> = match store {
        Store::Repo(_) => Vec::new(),
        Store::Sysroot(host) => host
            .deployments()
            .iter()
            .map(|deployment| deployment.csum().to_string())
            .collect(),
    };
    gc::collect(&repo, &references, &commits, scope)
}

/// A name is looked up the same whatever signature rule it was imported under.
fn parse(text: &str) -> Result<ImageReference> {
    Ok(reference::resolve(text, &Policy::load()?)?.reference)
}

fn missing(reference: &ImageReference) -> Fault {
    Fault::new(
        Kind::NotFound,
        format!("The image {reference} is not stored here"),
    )
    .hint("see what is stored with `apt-ostree image list`")
}
