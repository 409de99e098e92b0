//! Image references: what a host follows and how it is verified.
//!
//! The stored grammar is ostree-ext's `OstreeImageReference`, so that bootc and `ostree container` read the same
//! origin files. This module adds the short forms people type, checks names before anything is started, and
//! derives the names under which other tools expect the image in the repository.

use crate::fault::{Fault, Kind};
use crate::image::name::{RegistryName, check_digest};
use crate::image::policy::Policy;
use anyhow::{Context, Result};
pub use ostree_ext::container::Transport;
use ostree_ext::container::{self, OstreeImageReference, SignatureSource};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The prefix of the refs under which imported images are kept.
pub const IMAGE_REF_PREFIX: &str = "ostree/container/image";

const KNOWN_TRANSPORTS: &str =
    "registry (or docker://), oci, oci-archive, docker-archive, containers-storage and dir";

/// Transports that skopeo has and a host cannot follow.
const FOREIGN_TRANSPORTS: &[&str] = &["atomic", "docker-daemon", "ostree", "sif", "static", "tarball"];

/// The image a host follows: signature rule, transport and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageReference(OstreeImageReference);

impl ImageReference {
    fn new(sigverify: SignatureSource, transport: Transport, name: &str) -> Result<Self, Fault> {
        let name = checked_name(transport, name)?;
        let imgref = container::ImageReference { transport, name };
        Ok(Self(OstreeImageReference { sigverify, imgref }))
    }

    /// Returns the reference as skopeo spells it, for example `docker://registry.example/os:13`.
    pub fn skopeo_name(&self) -> String {
        self.0.imgref.to_string()
    }

    /// Returns whether an import must refuse an image that the signature policy does not demand signatures of.
    pub fn requires_signature(&self) -> bool {
        self.0.sigverify == SignatureSource::ContainerPolicy
    }

    /// Returns the OSTree remote whose keys must have signed the commit inside the image, if it names one.
    pub fn ostree_remote(&self) -> Option<&str> {
        match &self.0.sigverify {
            SignatureSource::OstreeRemote(remote) => Some(remote),
            _ => None,
        }
    }

    /// Returns where the image is kept: a registry, a directory, podman's storage.
    pub fn transport(&self) -> Transport {
        self.0.imgref.transport
    }

    /// Returns the name within the transport, for example `registry.example/os:13`.
    pub fn name(&self) -> &str {
        &self.0.imgref.name
    }

    /// Returns the parts of the name when the image is in a registry.
    pub fn registry_name(&self) -> Option<RegistryName> {
        match self.transport() {
            Transport::Registry => RegistryName::parse(self.name()).ok(),
            _ => None,
        }
    }

    /// Returns the digest that the reference pins, if it does.
    pub fn pinned_digest(&self) -> Option<String> {
        self.registry_name()?.digest
    }

    /// Returns the ref under which the imported image is kept in the repository.
    pub fn store_ref(&self) -> Result<String> {
        ostree_ext::refescape::prefix_escape_for_ref(IMAGE_REF_PREFIX, &self.skopeo_name())
            .with_context(|| format!("Naming the ref of {self}"))
    }

    /// Returns the reference to the manifest with this digest in the same repository, verified in the same way.
    ///
    /// Fails for a text that is no digest, and for transports other than a registry, which know no digests.
    pub fn with_digest(&self, digest: &str) -> Result<Self> {
        check_digest(digest)
            .map_err(|reason| Fault::new(Kind::Usage, format!("`{digest}` was given, {reason}")))?;
        let Some(mut name) = self.registry_name() else {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("{self} cannot be followed by digest, because it is not in a registry"),
            )
            .into());
        };
        name.tag = None;
        name.digest = Some(digest.to_owned());
        let reference = Self::new(self.0.sigverify.clone(), Transport::Registry, &name.to_string())?;
        Ok(reference)
    }

    /// Returns the reference to another tag of the same repository, verified in the same way.
    ///
    /// Fails for a text that is no tag, and for transports other than a registry, which know no tags.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        let Some(mut name) = self.registry_name() else {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("{self} has no other tags, because it is not in a registry"),
            )
            .into());
        };
        name.tag = Some(tag.to_owned());
        name.digest = None;
        // Parsing the new name checks the tag.
        let name = RegistryName::parse(&name.to_string())?;
        Ok(Self::new(
            self.0.sigverify.clone(),
            Transport::Registry,
            &name.to_string(),
        )?)
    }
}

impl FromStr for ImageReference {
    type Err = Fault;

    /// Reads the stored form, for example `ostree-unverified-registry:registry.example/os:13`.
    fn from_str(text: &str) -> Result<Self, Fault> {
        parse_stored(text)?.ok_or_else(|| {
            Fault::new(
                Kind::Usage,
                format!("The image reference `{text}` does not begin with how the image is verified"),
            )
            .hint(
                "write ostree-image-signed:TRANSPORT:NAME, ostree-unverified-registry:NAME, \
                 ostree-unverified-image:TRANSPORT:NAME or ostree-remote-image:REMOTE:TRANSPORT:NAME",
            )
        })
    }
}

impl Serialize for ImageReference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageReference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a user's words came to mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The reference to follow.
    pub reference: ImageReference,
    /// Which form was chosen and why, to be told to the user; nothing when the words left no choice.
    pub chosen_form_note: Option<String>,
}

/// Reads what a user typed: a stored form, `docker://NAME`, `oci://NAME` (both a registry), `local://NAME`
/// (podman's storage), `TRANSPORT:NAME`, or a bare `NAME` in a registry.
///
/// Words that do not say how the image is verified mean the signed form when `policy` demands signatures of
/// that image, else the unverified one; the note says which. Relative paths become absolute, because the
/// reference is read again at the next upgrade.
pub fn resolve(text: &str, policy: &Policy) -> Result<Resolved> {
    if let Some(reference) = parse_stored(text)? {
        return Ok(Resolved {
            reference,
            chosen_form_note: None,
        });
    }
    let (transport, name) = short_form(text)?;
    let unverified = ImageReference::new(SignatureSource::ContainerPolicyAllowInsecure, transport, &name)?;
    let signed = policy.requires_signature_for(&unverified);
    let reference = match signed {
        true => ImageReference::new(SignatureSource::ContainerPolicy, transport, &name)?,
        false => unverified,
    };
    let rule = match signed {
        true => "demands signatures of it",
        false => "does not demand signatures of it",
    };
    let chosen_form_note = Some(format!(
        "`{text}` is followed as {reference}, because the signature policy {} {rule}.",
        policy.source()
    ));
    Ok(Resolved {
        reference,
        chosen_form_note,
    })
}

/// Decides what a host that follows `current` follows next, without ever dropping signature enforcement silently.
///
/// A host on a signed reference stays on the signed form; when the user's words left the form open and the policy
/// would not demand signatures of the new image, this refuses and names the explicit form.
pub fn follow(current: Option<&ImageReference>, resolved: Resolved) -> Result<Resolved> {
    let enforced =
        current.is_some_and(|current| current.requires_signature() || current.ostree_remote().is_some());
    let left_open = resolved.chosen_form_note.is_some();
    if enforced && left_open && !resolved.reference.requires_signature() {
        let current = current.map(ToString::to_string).unwrap_or_default();
        return Err(Fault::new(
            Kind::Denied,
            format!(
                "This host follows {current}, and the signature policy demands no signatures of `{}`",
                resolved.reference.name()
            ),
        )
        .hint(format!(
            "add a rule for it to policy.json, or give up verification by naming {}",
            resolved.reference
        ))
        .into());
    }
    Ok(resolved)
}

/// Reads the stored grammar; returns nothing when the text does not begin with one of its schemes.
fn parse_stored(text: &str) -> Result<Option<ImageReference>, Fault> {
    let Some((scheme, rest)) = text.split_once(':') else {
        return Ok(None);
    };
    let insecure = SignatureSource::ContainerPolicyAllowInsecure;
    let remote = |rest: &'_ str| -> Result<(SignatureSource, String), Fault> {
        match rest.split_once(':') {
            Some((remote, rest)) if !remote.is_empty() => {
                Ok((SignatureSource::OstreeRemote(remote.to_owned()), rest.to_owned()))
            }
            _ => Err(Fault::new(
                Kind::Usage,
                format!("The image reference `{text}` names no OSTree remote"),
            )
            .hint("write ostree-remote-image:REMOTE:TRANSPORT:NAME")),
        }
    };
    let (signature, transport, name) = match scheme {
        "ostree-unverified-registry" => (insecure, Transport::Registry, rest.to_owned()),
        "ostree-remote-registry" => {
            let (signature, name) = remote(rest)?;
            (signature, Transport::Registry, name)
        }
        "ostree-image-signed" | "ostree-unverified-image" => {
            let signature = match scheme {
                "ostree-image-signed" => SignatureSource::ContainerPolicy,
                _ => insecure,
            };
            let (transport, name) = split_transport(text, rest)?;
            (signature, transport, name.to_owned())
        }
        "ostree-remote-image" => {
            let (signature, rest) = remote(rest)?;
            let (transport, name) = split_transport(text, &rest)?;
            (signature, transport, name.to_owned())
        }
        _ => return Ok(None),
    };
    ImageReference::new(signature, transport, &name).map(Some)
}

/// Splits `TRANSPORT:NAME` behind a scheme.
fn split_transport<'a>(text: &str, rest: &'a str) -> Result<(Transport, &'a str), Fault> {
    let unknown = |transport: &str| {
        Fault::new(
            Kind::Usage,
            format!("The image reference `{text}` names no known transport: `{transport}`"),
        )
        .hint(format!("the known transports are {KNOWN_TRANSPORTS}"))
    };
    let (word, name) = rest.split_once(':').ok_or_else(|| unknown(rest))?;
    let transport = transport(word).ok_or_else(|| unknown(word))?;
    if word == "docker" {
        let name = name.strip_prefix("//").ok_or_else(|| {
            Fault::new(
                Kind::Usage,
                format!("The image reference `{text}` lacks the slashes behind `docker:`"),
            )
            .hint("write docker://NAME")
        })?;
        return Ok((transport, name));
    }
    Ok((transport, name))
}

fn transport(word: &str) -> Option<Transport> {
    Some(match word {
        "registry" | "docker" => Transport::Registry,
        "oci" => Transport::OciDir,
        "oci-archive" => Transport::OciArchive,
        "docker-archive" => Transport::DockerArchive,
        "containers-storage" => Transport::ContainerStorage,
        "dir" => Transport::Dir,
        _ => return None,
    })
}

/// Reads the forms that do not say how the image is verified.
fn short_form(text: &str) -> Result<(Transport, String), Fault> {
    if let Some((scheme, name)) = text.split_once("://") {
        let transport = match scheme {
            "docker" | "oci" | "registry" => Transport::Registry,
            "local" => Transport::ContainerStorage,
            _ => return Err(unknown_short_form(text, scheme)),
        };
        return Ok((transport, name.to_owned()));
    }
    if let Some((word, name)) = text.split_once(':') {
        if FOREIGN_TRANSPORTS.contains(&word) || word.starts_with("ostree-") {
            return Err(unknown_short_form(text, word));
        }
        // `dir:13` could be an image called `dir`; the transport wins, as it does for skopeo.
        if let Some(transport) = transport(word).filter(|_| word != "docker") {
            return Ok((transport, absolute(transport, name)?));
        }
        // `word:/path` is no registry name either way; the likelier mistake is the transport.
        if !word.contains(['/', '.', '@', '[']) && name.starts_with('/') {
            return Err(unknown_short_form(text, word));
        }
    }
    Ok((Transport::Registry, text.to_owned()))
}

fn unknown_short_form(text: &str, word: &str) -> Fault {
    Fault::new(
        Kind::Usage,
        format!("The image reference `{text}` names no known transport: `{word}`"),
    )
    .hint(format!(
        "write NAME, docker://NAME, local://NAME for podman's storage, or TRANSPORT:NAME; \
         the known transports are {KNOWN_TRANSPORTS}"
    ))
}

/// Makes the path of a transport that names files absolute.
fn absolute(transport: Transport, name: &str) -> Result<String, Fault> {
    let names_a_file = matches!(
        transport,
        Transport::OciDir | Transport::OciArchive | Transport::DockerArchive | Transport::Dir
    );
    if !names_a_file || name.is_empty() || name.starts_with('/') {
        return Ok(name.to_owned());
    }
    let path = std::path::absolute(name).map_err(|error| {
        Fault::new(
            Kind::Usage,
            format!("The path `{name}` cannot be made absolute: {error}"),
        )
    })?;
    let path = path.to_str().ok_or_else(|| {
        Fault::new(
            Kind::Usage,
            format!("The path of `{name}` contains a name that is not UTF-8"),
        )
    })?;
    Ok(path.to_owned())
}

/// Checks a name by the rules of its transport and returns it in its canonical form.
fn checked_name(transport: Transport, name: &str) -> Result<String, Fault> {
    if name.is_empty() {
        return Err(Fault::new(Kind::Usage, "The image name is empty"));
    }
    if name.chars().any(char::is_control) {
        return Err(Fault::new(
            Kind::Usage,
            format!(
                "The image name `{}` contains a control character",
                name.escape_debug()
            ),
        ));
    }
    match transport {
        Transport::Registry => Ok(RegistryName::parse(name)?.to_string()),
        // `[driver@root+run]name` and `@id` are skopeo's own to check.
        Transport::ContainerStorage if !name.starts_with(['[', '@']) => {
            RegistryName::parse(name)?;
            Ok(name.to_owned())
        }
        _ => Ok(name.to_owned()),
    }
}
