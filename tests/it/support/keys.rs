//! A GnuPG key made for one test, and simple signing with it.

use super::home::Home;
use super::image::OciImage;
use apt_ostree::host::runner::Cmd;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A key in a key ring of its own; the agent that GnuPG starts is ended when dropped.
pub struct Key {
    directory: TempDir,
    name: String,
}

impl Key {
    /// Makes a key without a password.
    pub fn new(name: &str) -> Self {
        let key = Self {
            directory: tempfile::tempdir().expect("directory"),
            name: format!("{name}@example.org"),
        };
        let parameters = format!(
            "%no-protection\nKey-Type: RSA\nKey-Length: 2048\nName-Real: {name}\nName-Email: {}\n\
             Expire-Date: 0\n%commit\n",
            key.name
        );
        key.gpg(&["--batch", "--gen-key"], parameters);
        let public = key.gpg(&["--export", "--armor"], "");
        std::fs::write(key.public(), public).expect("public key");
        key
    }

    /// Returns the file with the public key, for a policy's `keyPath`.
    pub fn public(&self) -> PathBuf {
        self.directory.path().join("public.gpg")
    }

    /// Returns a policy that accepts only what this key signed, for images below `scope`.
    pub fn policy(&self, scope: &str) -> String {
        serde_json::json!({
            "default": [{ "type": "insecureAcceptAnything" }],
            "transports": { "docker": { scope: [{
                "type": "signedBy", "keyType": "GPGKeys", "keyPath": self.public(),
            }] } },
        })
        .to_string()
    }

    /// Pushes the image and signs it; the signature goes where the home's lookaside points.
    pub fn push_signed(&self, home: &Home, image: &OciImage, destination: &str) {
        home.surroundings()
            .cmd("skopeo")
            .env("GNUPGHOME", self.directory.path())
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
                "--sign-by",
                &self.name,
            ])
            .arg(image.skopeo_name())
            .arg(destination)
            .run()
            .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Signs a manifest under a name without pushing anything, and writes the signature to `signature`.
    pub fn sign(&self, manifest: &Path, reference: &str, signature: &Path) {
        Cmd::new("skopeo")
            .env("GNUPGHOME", self.directory.path())
            .arg("standalone-sign")
            .args([manifest, Path::new(reference), Path::new(&self.name)])
            .arg("--output")
            .arg(signature)
            .run()
            .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Returns the public key in the form of a key ring.
    pub fn keyring(&self) -> Vec<u8> {
        self.gpg(&["--export"], "")
    }

    /// Writes `text` with a signature around it, as apt's `InRelease` has it.
    pub fn sign_clear(&self, text: &str, destination: &Path) {
        std::fs::write(destination, self.gpg(&["--batch", "--clearsign"], text)).expect("signed text");
    }

    fn gpg(&self, args: &[&str], input: impl Into<Vec<u8>>) -> Vec<u8> {
        Cmd::new("gpg")
            .env("GNUPGHOME", self.directory.path())
            .args(args)
            .input(input)
            .run()
            .unwrap_or_else(|error| panic!("{error:#}"))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let ended = Cmd::new("gpgconf")
            .env("GNUPGHOME", self.directory.path())
            .args(["--kill", "all"])
            .output();
        drop(ended);
    }
}
