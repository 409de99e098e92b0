//! A real signed apt repository: `apt-ftparchive` makes the indexes, GnuPG signs them, [`Web`] serves them.

use super::keys::Key;
use super::package::Package;
use super::web::Web;
use super::write;
use apt_ostree::host::runner::Cmd;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The suite and component that [`Archive::publish`] fills.
pub const SUITE: &str = "stable";
const COMPONENT: &str = "main";

/// The architectures the indexes are made for.
const ARCHITECTURES: [&str; 2] = ["amd64", "i386"];

/// Where [`Archive::enable`] puts the key below a root.
const KEYRING: &str = "usr/share/keyrings/test-archive.gpg";

/// A served repository; stopped and removed when dropped.
pub struct Archive {
    directory: TempDir,
    key: Key,
    web: Web,
    suites: Vec<(String, String)>,
}

impl Archive {
    /// Starts a repository with an empty suite `stable`, component `main`.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let web = Web::serve(directory.path());
        let mut archive = Self {
            directory,
            key: Key::new("archive"),
            web,
            suites: Vec::new(),
        };
        archive.publish(&[]);
        archive
    }

    /// Starts a repository with these packages.
    pub fn with(packages: &[Package]) -> Self {
        let mut archive = Self::start();
        archive.publish(packages);
        archive
    }

    /// Makes `stable/main` consist of these packages and no others, and signs the indexes anew.
    pub fn publish(&mut self, packages: &[Package]) {
        self.publish_in(SUITE, COMPONENT, packages);
    }

    /// Makes a component of a suite consist of these packages and no others, and signs the suite anew.
    pub fn publish_in(&mut self, suite: &str, component: &str, packages: &[Package]) {
        self.fill(suite, component, |folder| {
            for package in packages {
                package.build(folder);
            }
        });
    }

    /// Makes `stable/main` consist of these package files, and signs the indexes anew.
    pub fn publish_files(&mut self, files: &[PathBuf]) {
        self.fill(SUITE, COMPONENT, |folder| {
            for file in files {
                let name = file.file_name().expect("a name").to_string_lossy();
                // The server takes addresses as they are written, so no name needs to be written in another form.
                let plain = |c: char| {
                    if c.is_ascii_alphanumeric() || "._-".contains(c) {
                        c
                    } else {
                        '-'
                    }
                };
                let name: String = name.chars().map(plain).collect();
                std::fs::copy(file, folder.join(name)).expect("package");
            }
        });
    }

    fn fill(&mut self, suite: &str, component: &str, build: impl FnOnce(&Path)) {
        let known = (suite.to_owned(), component.to_owned());
        if !self.suites.contains(&known) {
            self.suites.push(known);
        }
        let pool = format!("pool/{suite}/{component}");
        let folder = self.path(&pool);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).expect("pool");
        }
        std::fs::create_dir_all(&folder).expect("pool");
        build(&folder);
        for architecture in ARCHITECTURES {
            let list = self.ftparchive(&["--arch", architecture, "packages", &pool]);
            let index = format!("dists/{suite}/{component}/binary-{architecture}/Packages");
            write(self.path(&index), list);
        }
        self.sign(suite, "");
    }

    /// Signs a suite anew; `fields` are more lines for its Release file, each with its line end.
    pub fn sign(&self, suite: &str, fields: &str) {
        let text = self.release(suite, fields);
        self.key
            .sign_clear(&text, &self.path(&format!("dists/{suite}/InRelease")));
    }

    /// Publishes the suite without any signature.
    pub fn leave_unsigned(&self, suite: &str) {
        let text = self.release(suite, "");
        std::fs::remove_file(self.path(&format!("dists/{suite}/InRelease"))).expect("InRelease");
        write(self.path(&format!("dists/{suite}/Release")), text);
    }

    /// Signs everything with another key from now on, which no source names.
    pub fn change_key(&mut self, key: Key) {
        self.key = key;
        for (suite, _) in &self.suites {
            self.sign(suite, "");
        }
    }

    fn release(&self, suite: &str, fields: &str) -> String {
        let components: Vec<&str> = self
            .suites
            .iter()
            .filter(|(name, _)| name == suite)
            .map(|(_, component)| component.as_str())
            .collect();
        let option = |name: &str, value: &str| format!("APT::FTPArchive::Release::{name}={value}");
        let options = [
            option("Origin", "Test"),
            option("Label", "Test"),
            option("Suite", suite),
            option("Codename", suite),
            option("Architectures", &ARCHITECTURES.join(" ")),
            option("Components", &components.join(" ")),
        ];
        let mut words: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
        let folder = format!("dists/{suite}");
        words.extend(["release", &folder]);
        format!("{fields}{}", self.ftparchive(&words))
    }

    fn ftparchive(&self, words: &[&str]) -> String {
        Cmd::new("apt-ftparchive")
            .args(words)
            .current_dir(self.directory.path())
            .run_text()
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Returns a deb822 `.sources` text for all suites, which trusts the key at this path and no other.
    pub fn sources(&self, signed_by: &str) -> String {
        let mut text = String::new();
        for (suite, component) in &self.suites {
            text += &format!(
                "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: {component}\nSigned-By: {signed_by}\n\n",
                self.web.address()
            );
        }
        text
    }

    /// Returns the public key as a key ring for `Signed-By` files that end in `.gpg`.
    pub fn keyring(&self) -> Vec<u8> {
        self.key.keyring()
    }

    /// Makes the tree at `root`, whose `/etc` is at `etc`, use this repository: a source and its key.
    pub fn enable(&self, root: &Path, etc: &Path) {
        write(root.join(KEYRING), self.keyring());
        write(
            etc.join("apt/sources.list.d/test.sources"),
            self.sources(&format!("/{KEYRING}")),
        );
    }

    /// Returns the server, to count requests and to cut the network.
    pub fn web(&mut self) -> &mut Web {
        &mut self.web
    }

    /// Returns a path below the served folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }
}
