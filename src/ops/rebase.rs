//! `rebase`: follow another image reference.

use crate::deployment::advance;
use crate::deployment::origin::Origin;
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::image::policy::Policy;
use crate::image::reference::{self, Resolved};
use crate::layer::assemble::Network;
use crate::ops::layering::{Packages, SetUp};
use crate::ops::{Fetch, Next, Outcome, Target};
use crate::report::Report;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How to rebase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// What to follow, as a user types it.
    pub reference: String,
    /// The digest to deploy now instead of what the tag names.
    pub revision: Option<String>,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
    /// Cache only, download only, locked.
    #[serde(flatten)]
    pub fetch: Fetch,
    /// Packages on top at the same time.
    #[serde(flatten)]
    pub on_top: Packages,
    /// How packages are set up.
    #[serde(flatten)]
    pub set_up: SetUp,
    /// The address of what chooses this host's images from now on; the image must be named by its digest.
    pub custom_origin_url: Option<String>,
    /// What that is, for people.
    pub custom_origin_description: Option<String>,
    /// Refuse an image that was created before the current one.
    pub disallow_downgrade: bool,
    /// Do it though something else drives the updates of this host.
    pub bypass_driver: bool,
    /// Reboot when a new deployment was made.
    pub reboot: bool,
}

/// Makes the host follow another reference and boots its image next.
///
/// A first deployment of an empty stateroot works the same way. The reference is resolved against the signature
/// policy and never drops the enforcement the host had.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let layering = options.set_up.layering_with(&options.on_top)?;
    refuse_repository(&options.reference)?;
    let custom = custom_origin(options)?;
    let lock = host.lock("rebase", options.target.patience(), report)?;
    let stateroot = host.stateroot(options.target.stateroot.as_deref())?;
    let merge = host.merge_deployment(&stateroot);
    // An origin that cannot be read must not keep a host from being rescued by following something readable.
    let known = merge.as_ref().map(|merge| {
        let origin = Origin::of(merge)?;
        let followed = origin.reference()?;
        anyhow::Ok((origin, followed))
    });
    let policy = Policy::load()?;
    let resolved = reference::resolve(&options.reference, &policy)?;
    let (current, resolved) = match known {
        None => (None, reference::follow(None, resolved)?),
        Some(Ok((origin, followed))) => {
            let resolved = reference::follow(followed.as_ref(), resolved)?;
            (Some(origin), resolved)
        }
        Some(Err(error)) => {
            require_explicit_form(&resolved)?;
            report.warning(&format!(
                "The current origin cannot be read and is replaced: {error:#}."
            ));
            (None, resolved)
        }
    };
    if let Some(note) = &resolved.chosen_form_note {
        report.note(note);
    }
    let reference = resolved.reference;
    let origin = match current {
        Some(origin) => {
            origin.follow(&reference);
            origin
        }
        None => Origin::following(&reference),
    };
    origin.set_pinned_digest(options.revision.as_deref());
    if let Some((url, description)) = custom {
        if options.revision.is_none() && reference.pinned_digest().is_none() {
            return Err(Fault::new(
                Kind::Usage,
                format!("{reference} names no digest, which it must where {url} chooses the image"),
            )
            .hint("name the digest behind the reference: `apt-ostree rebase REF sha256:...`")
            .into());
        }
        origin.set_custom(url, description);
    }
    let fetched = match &options.revision {
        Some(digest) => reference.with_digest(digest)?,
        None => reference.clone(),
    };
    let image = advance::obtain(&lock, &fetched, options.fetch.source(), report)
        .with_context(|| format!("Rebasing to {fetched}"))?;
    if options.disallow_downgrade {
        if let Some(merge) = &merge {
            advance::refuse_downgrade(host, merge, &image, "leave out `--disallow-downgrade`")?;
        }
    }
    options.fetch.conclude(
        &lock,
        Next {
            stateroot: &stateroot,
            origin: &origin,
            merge: merge.as_ref(),
            network: Network::Usual,
            unchanged: format!("This host already follows {reference}, and its image has not changed."),
            reference,
            image,
        },
        &layering,
        report,
    )
}

/// Returns the address and the description of what chooses images; they come together.
fn custom_origin(options: &Options) -> Result<Option<(&str, &str)>, Fault> {
    let wrong = |what: &str| Err(Fault::new(Kind::Usage, what));
    let (url, description) = match (&options.custom_origin_url, &options.custom_origin_description) {
        (None, None) => return Ok(None),
        (Some(url), Some(description)) => (url, description),
        _ => return wrong("`--custom-origin-url` and `--custom-origin-description` go together"),
    };
    if url.is_empty() || url.chars().chain(description.chars()).any(char::is_control) {
        return wrong("A custom origin is an address and a description, both of one line");
    }
    Ok(Some((url, description)))
}

/// Fails for rpm-ostree's `/PATH/REPO:BRANCH`, which looks like nothing that can be followed.
fn refuse_repository(text: &str) -> Result<(), Fault> {
    if !text.starts_with('/') {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Usage,
        format!("`{text}` names a branch of an OSTree repository, and this host follows images"),
    )
    .hint("an image in a directory is `ostree-unverified-image:oci:/PATH`"))
}

/// Fails for a bare name that came to mean "unverified": what the host enforced so far is not known, and must not
/// be lost without a word.
fn require_explicit_form(resolved: &Resolved) -> Result<()> {
    if resolved.chosen_form_note.is_none() || resolved.reference.requires_signature() {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Usage,
        "The current origin cannot be read, so it is not known whether this host enforced signatures",
    )
    .hint(format!(
        "say how to verify the image, for example `apt-ostree rebase {}`",
        resolved.reference
    ))
    .into())
}
