//! Why an image could not be had: what skopeo's protocol does not say, found out by other means.
//!
//! The text of an error is shown and never decided by; what decides is whether another request succeeds.

use crate::fault::{Fault, Kind};
use crate::image::policy::{Policy, Verdict};
use crate::image::proxy::SourceOptions;
use crate::image::reference::{ImageReference, Transport};
use crate::image::signature;
use anyhow::Result;

/// Finds the reason of a failed opening that skopeo's text names and its protocol does not: the image is there
/// and the policy is in the way, or the tag does not exist.
pub(crate) fn diagnose(
    reference: &ImageReference,
    policy: &Policy,
    options: &SourceOptions,
    error: &anyhow::Error,
) -> Result<Option<Fault>> {
    if reference.transport() != Transport::Registry {
        return Ok(None);
    }
    if policy.verdict(reference) != Verdict::AcceptsAnything
        && signature::raw_manifest(reference, options)?.is_some()
    {
        return Ok(Some(refusal(reference, policy, &words(error))));
    }
    let Some(name) = reference.registry_name().filter(|name| name.digest.is_none()) else {
        return Ok(None);
    };
    let tag = name.tag.as_deref().unwrap_or("latest");
    let tags = match signature::tags(reference, options)? {
        Some(tags) if !tags.iter().any(|known| known == tag) => tags,
        _ => return Ok(None),
    };
    let shown: Vec<_> = tags.iter().take(10).map(String::as_str).collect();
    let hint = match shown.is_empty() {
        true => "the repository has no tags at all".to_owned(),
        false => format!("the repository has the tags {}", shown.join(", ")),
    };
    let message = format!("The repository {} has no tag `{tag}`", name.repository);
    Ok(Some(Fault::new(Kind::NotFound, message).hint(hint)))
}

/// Returns the fault for an image that is known not to exist.
pub(crate) fn absent(reference: &ImageReference) -> Fault {
    let message = format!("There is no image {}", reference.skopeo_name());
    Fault::new(Kind::NotFound, message)
        .hint("check the name and the tag; `podman search --list-tags NAME` lists the tags of a repository")
}

/// Returns the fault for an image that the policy does not accept.
pub(crate) fn refusal(reference: &ImageReference, policy: &Policy, reason: &str) -> Fault {
    let message = format!(
        "The signature policy {} refuses {reference}: {reason}",
        policy.source()
    );
    Fault::new(Kind::Denied, message)
        .hint("sign the image with a key that the policy names, or correct the policy; see containers-policy.json(5)")
}

/// Makes what is left after all attempts into a fault that names the image.
///
/// Only for failures of skopeo and of the network; a fault of another kind, or trouble on this host, stays as it is.
pub(crate) fn explain(reference: &ImageReference, error: anyhow::Error, trouble: &str) -> anyhow::Error {
    let remote = match Fault::find(&error) {
        Some(fault) => fault.kind == Kind::Unreachable,
        None => error.is::<containers_image_proxy::Error>(),
    };
    let name = reference.skopeo_name();
    if !remote {
        return error.context(format!("The image {name} {trouble}"));
    }
    let hint = match reference.registry_name() {
        Some(parts) => format!(
            "check the name, the network, the clock and the credentials (`podman login {}`); \
             `skopeo inspect {name}` looks at the same image",
            parts.host(),
        ),
        None => format!("`skopeo inspect {name}` looks at the same image"),
    };
    let message = format!("The image {name} {trouble}: {}", words(&error));
    Fault::new(Kind::Unreachable, message).hint(hint).into()
}

/// Returns skopeo's own words without the method names of its protocol.
fn words(error: &anyhow::Error) -> String {
    use containers_image_proxy::Error;
    match error.downcast_ref::<Error>() {
        Some(
            Error::RequestInitiationFailure { error, .. } | Error::RetryableRequestFailure { error, .. },
        ) => error.to_string(),
        _ => format!("{error:#}"),
    }
}
