//! The origin file: the whole declarative intent of a deployment.
//!
//! ```ini
//! [origin]
//! container-image-reference=ostree-unverified-registry:registry.example/os/debian:13
//! override-commit=sha256:...            (only after `deploy DIGEST`; the next `upgrade` drops it)
//! custom-url=... custom-description=...  (only after `rebase --custom-origin-url`: who chooses the image instead)
//! [packages] [overrides] [apt-ostree]   (what is asked for on top of the image, see `requests`)
//! ```
//!
//! Invariant: whatever this program does not know in an origin is carried over to the next deployment, except
//! `[libostree-transient]`, which belongs to one deployment.

use crate::fault::{Fault, Kind};
use crate::image::reference::ImageReference;
use anyhow::{Context, Result};
use ostree_ext::{glib, ostree};

const GROUP: &str = "origin";
const IMAGE: &str = "container-image-reference";
const PIN: &str = "override-commit";
const CUSTOM_URL: &str = "custom-url";
const CUSTOM_DESCRIPTION: &str = "custom-description";
const TRANSIENT: &str = "libostree-transient";

/// The intent behind a deployment.
#[derive(Clone, Debug)]
pub struct Origin {
    pub(super) file: glib::KeyFile,
}

impl Origin {
    /// Returns the origin of a host that follows `reference` and nothing else.
    pub fn following(reference: &ImageReference) -> Self {
        let origin = Self {
            file: glib::KeyFile::new(),
        };
        origin.file.set_string(GROUP, IMAGE, &reference.to_string());
        origin
    }

    /// Returns the origin of an existing deployment.
    ///
    /// Fails when the deployment has none, which happens when its file is missing or unreadable.
    pub fn of(deployment: &ostree::Deployment) -> Result<Self> {
        let file = deployment.origin().ok_or_else(|| {
            Fault::new(
                Kind::Invalid,
                format!("The deployment {} has no readable origin file", id(deployment)),
            )
            .hint("choose what to follow with `apt-ostree rebase REF`")
        })?;
        // A copy, because libostree's own object belongs to the loaded sysroot.
        let copy = glib::KeyFile::new();
        copy.load_from_data(&file.to_data(), glib::KeyFileFlags::KEEP_COMMENTS)
            .context("Copying an origin")?;
        // libostree's own remover would take the digest fixed by `deploy` as well, which a change of kernel
        // arguments must carry along.
        if copy.has_group(TRANSIENT) {
            copy.remove_group(TRANSIENT)
                .context("Dropping what belongs to one deployment")?;
        }
        Ok(Self { file: copy })
    }

    /// Returns the origin that stands in a file; fails on text that is no key file.
    pub fn parse(text: &str) -> Result<Self> {
        let file = glib::KeyFile::new();
        file.load_from_data(text, glib::KeyFileFlags::KEEP_COMMENTS)
            .context("Reading an origin file")?;
        Ok(Self { file })
    }

    /// Returns the image this origin follows; none for a host that follows an OSTree branch.
    ///
    /// Fails when the reference cannot be read.
    pub fn reference(&self) -> Result<Option<ImageReference>> {
        match self.string(IMAGE) {
            None => Ok(None),
            Some(text) => Ok(Some(text.parse().context("Reading the origin")?)),
        }
    }

    /// Returns the image this origin follows, or the fault that says what else it follows.
    pub fn require_reference(&self) -> Result<ImageReference> {
        if let Some(reference) = self.reference()? {
            return Ok(reference);
        }
        let followed = self.refspec();
        Err(Fault::new(
            Kind::Unsupported,
            match followed {
                Some(refspec) => format!("This host follows the OSTree branch `{refspec}`, not an image"),
                None => "This host follows no image".to_owned(),
            },
        )
        .hint("choose an image with `apt-ostree rebase REF`")
        .into())
    }

    /// Returns the OSTree branch this origin follows, for a host without an image.
    pub fn refspec(&self) -> Option<String> {
        self.string("refspec").or_else(|| self.string("baserefspec"))
    }

    /// Makes the origin follow another image; what an OSTree branch or a pinned digest said before is dropped,
    /// and so is who chose the image.
    pub fn follow(&self, reference: &ImageReference) {
        for key in ["refspec", "baserefspec", PIN, CUSTOM_URL, CUSTOM_DESCRIPTION] {
            self.drop_key(key);
        }
        self.file.set_string(GROUP, IMAGE, &reference.to_string());
    }

    /// Returns the digest that `deploy` fixed this deployment to, if it did.
    pub fn pinned_digest(&self) -> Option<String> {
        self.string(PIN)
    }

    /// Fixes the deployment to a manifest digest, or lets it follow its tag again.
    pub fn set_pinned_digest(&self, digest: Option<&str>) {
        match digest {
            Some(digest) => self.file.set_string(GROUP, PIN, digest),
            None => self.drop_key(PIN),
        }
    }

    /// Returns the address and the description of what chooses the image of this host instead of its reference.
    pub fn custom(&self) -> Option<(String, String)> {
        let url = self.string(CUSTOM_URL)?;
        Some((url, self.string(CUSTOM_DESCRIPTION).unwrap_or_default()))
    }

    /// Notes what chooses the image from now on, for people and for `upgrade`, which leaves it alone then.
    pub fn set_custom(&self, url: &str, description: &str) {
        self.file.set_string(GROUP, CUSTOM_URL, url);
        self.file.set_string(GROUP, CUSTOM_DESCRIPTION, description);
    }

    /// Fails when something else than its reference chooses the image of this host.
    pub fn refuse_custom(&self) -> Result<(), Fault> {
        let Some((url, description)) = self.custom() else {
            return Ok(());
        };
        Err(Fault::new(
            Kind::Unsupported,
            format!("The image of this host is chosen by {description} ({url}), not by its reference"),
        )
        .hint("follow an image again with `apt-ostree rebase REF`"))
    }

    /// Returns whether two origins say the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.file.to_data() == other.file.to_data()
    }

    /// Returns the key file as libostree takes it.
    pub fn key_file(&self) -> &glib::KeyFile {
        &self.file
    }

    fn string(&self, key: &str) -> Option<String> {
        if !self.file.has_key(GROUP, key).unwrap_or(false) {
            return None;
        }
        self.file.string(GROUP, key).ok().map(|text| text.to_string())
    }

    fn drop_key(&self, key: &str) {
        if self.string(key).is_some() {
            self.file.remove_key(GROUP, key).expect("the key was just seen");
        }
    }
}

/// Returns the name under which `status` and messages show a deployment, `STATEROOT-CHECKSUM.SERIAL`.
pub fn id(deployment: &ostree::Deployment) -> String {
    format!(
        "{}-{}.{}",
        deployment.osname(),
        deployment.csum(),
        deployment.deployserial()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> ImageReference {
        text.parse().unwrap()
    }

    #[test]
    fn following_another_image_keeps_unknown_groups_and_drops_the_pin() {
        let origin = Origin::following(&reference("ostree-unverified-registry:example.org/a:1"));
        origin.file.set_string("packages", "requested", "htop;");
        origin.set_pinned_digest(Some("sha256:00"));
        assert_eq!(origin.pinned_digest().as_deref(), Some("sha256:00"));
        origin.follow(&reference("ostree-unverified-registry:example.org/b:2"));
        assert_eq!(origin.pinned_digest(), None);
        assert_eq!(
            origin.require_reference().unwrap(),
            reference("ostree-unverified-registry:example.org/b:2")
        );
        assert_eq!(origin.file.string("packages", "requested").unwrap(), "htop;");
    }

    #[test]
    fn what_chooses_the_image_goes_with_the_image() {
        let origin = Origin::following(&reference("ostree-unverified-registry:example.org/a:1"));
        origin.set_custom("https://fleet.example", "the fleet");
        let custom = ("https://fleet.example".to_owned(), "the fleet".to_owned());
        assert_eq!(origin.custom(), Some(custom));
        assert!(origin.refuse_custom().unwrap_err().message.contains("the fleet"));
        origin.follow(&reference("ostree-unverified-registry:example.org/a:1"));
        assert_eq!(origin.custom(), None);
        assert!(origin.refuse_custom().is_ok());
    }

    #[test]
    fn a_branch_is_not_an_image() {
        let origin = Origin {
            file: glib::KeyFile::new(),
        };
        origin.file.set_string(GROUP, "refspec", "debian:debian/13");
        let error = origin.require_reference().unwrap_err();
        assert!(Fault::find(&error).unwrap().message.contains("debian:debian/13"));
    }
}
