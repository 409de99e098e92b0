//! A home directory of its own for one test.

use super::write;
use apt_ostree::host::surroundings::Surroundings;
use apt_ostree::image::proxy::SourceOptions;
use apt_ostree::image::retry::Limits;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A policy that accepts anything, as Debian ships it.
pub const ACCEPT_ANYTHING: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

/// Policy, credentials, mirrors and lookaside of one test; removed when dropped.
pub struct Home {
    directory: TempDir,
}

impl Home {
    /// Makes a home with a policy that accepts anything and with no credentials.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("home");
        let home = Self { directory };
        home.policy(ACCEPT_ANYTHING);
        home.registries("");
        std::fs::create_dir_all(home.path().join("root")).expect("root");
        home
    }

    /// Returns the home directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes the user's `policy.json`.
    pub fn policy(&self, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(".config/containers/policy.json");
        write(&path, text);
        path
    }

    /// Writes `registries.conf`.
    pub fn registries(&self, text: &str) {
        write(self.path().join(".config/containers/registries.conf"), text);
    }

    /// Lets registries at these locations be reached by plain http.
    pub fn insecure(&self, locations: &[&str]) {
        let entry = |location: &&str| format!("[[registry]]\nlocation = \"{location}\"\ninsecure = true\n");
        self.registries(&locations.iter().map(entry).collect::<String>());
    }

    /// Says where the signatures of `scope` are kept.
    pub fn lookaside(&self, scope: &str, directory: &Path) {
        let url = format!("file://{}", directory.display());
        write(
            self.path().join(".config/containers/registries.d/test.yaml"),
            format!("docker:\n  {scope}:\n    lookaside: {url}\n    sigstore: {url}\n"),
        );
    }

    /// Writes a credentials file as `podman login` does, below the home directory.
    pub fn podman_login(&self, location: &str, user: &str, password: &str) {
        let path = self.path().join("run/containers/auth.json");
        write(path, credentials(location, user, password));
    }

    /// Writes ostree's credentials at `place`, for example `etc/ostree/auth.json`, below the test's root.
    pub fn ostree_login(&self, place: &str, location: &str, user: &str, password: &str) {
        let path = self.path().join("root").join(place);
        write(path, credentials(location, user, password));
    }

    /// Returns the environment for programs and for the library.
    pub fn surroundings(&self) -> Surroundings {
        let configuration = self.path().join(".config/containers/registries.conf");
        Surroundings::below_home(self.path())
            .with("XDG_RUNTIME_DIR", self.path().join("run"))
            .with("CONTAINERS_REGISTRIES_CONF", configuration)
            .with("CONTAINERS_STORAGE_CONF", self.storage())
    }

    /// Trusts the certificate of a registry as its own authority.
    pub fn trust(&self, location: &str, certificate: &super::registry::Certificate) {
        let text = std::fs::read(certificate.file()).expect("certificate");
        let directory = self.path().join(".config/containers/certs.d").join(location);
        write(directory.join("ca.crt"), text);
    }

    /// Shows a registry this certificate as the client's own.
    pub fn identify(&self, location: &str, certificate: &super::registry::Certificate) {
        let directory = self.path().join(".config/containers/certs.d").join(location);
        for (file, name) in [
            (certificate.file(), "client.cert"),
            (certificate.key(), "client.key"),
        ] {
            write(directory.join(name), std::fs::read(file).expect("certificate"));
        }
    }

    /// Gives podman and skopeo a storage of their own below the home directory.
    ///
    /// The plain `vfs` driver needs no mounts, so it works wherever the tests run.
    pub fn storage(&self) -> PathBuf {
        let path = self.path().join("storage.conf");
        let (root, run_root) = (self.path().join("storage"), self.path().join("storage-run"));
        write(
            &path,
            format!(
                "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
                root.display(),
                run_root.display()
            ),
        );
        path
    }

    /// Returns options for opening images in this home, with short pauses and limits.
    pub fn options(&self) -> SourceOptions {
        SourceOptions {
            surroundings: self.surroundings(),
            auth_root: self.path().join("root"),
            limits: Limits {
                attempts: 3,
                resumptions: 4,
                first_pause: Duration::from_millis(50),
                stall: Duration::from_secs(5),
                ask_after: Duration::from_millis(300),
                answer: Duration::from_secs(20),
            },
        }
    }
}

/// Returns an `auth.json` with one entry.
pub fn credentials(location: &str, user: &str, password: &str) -> String {
    let entry: Value = serde_json::json!({ "auth": base64(format!("{user}:{password}").as_bytes()) });
    serde_json::json!({ "auths": { location: entry } }).to_string()
}

/// Encodes bytes in base 64.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = word >> (18 - 6 * place) & 63;
            text.push(match place <= chunk.len() {
                true => char::from(DIGITS[digit as usize]),
                false => '=',
            });
        }
    }
    text
}
