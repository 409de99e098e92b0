//! A scratch host: a sysroot, a registry with images for it, and the program under test.

use super::home::Home;
use super::image::{Image, OciImage, root_layer};
use super::layer::Layer;
use super::registry::Registry;
use super::repo::{self, TestSysroot};
use apt_ostree::host::runner::Cmd;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

/// A sysroot that follows images of a registry on loopback.
pub struct Machine {
    pub home: Home,
    pub registry: Registry,
    pub sysroot: TestSysroot,
    images: TempDir,
}

impl Machine {
    /// Starts a registry and makes a sysroot without deployments.
    pub fn new() -> Self {
        Self::with_sysroot(TestSysroot::new())
    }

    /// Starts a registry for a sysroot that is there.
    pub fn with_sysroot(sysroot: TestSysroot) -> Self {
        let home = Home::new();
        let registry = Registry::start();
        home.insecure(&[&registry.location()]);
        repo::ostree(&sysroot.repo(), &["config", "set", "sysroot.bootloader", "none"]);
        Self {
            home,
            registry,
            sysroot,
            images: tempfile::tempdir().expect("directory"),
        }
    }

    /// Makes the sysroot again, after something was mounted over it.
    pub fn init_again(&self) {
        self.sysroot.init();
        repo::ostree(
            &self.sysroot.repo(),
            &["config", "set", "sysroot.bootloader", "none"],
        );
    }

    /// Makes a machine that runs version 1 of `os:stable`.
    pub fn deployed() -> Self {
        let machine = Self::new();
        machine.publish("1", []);
        machine.ok(&["rebase", &machine.reference("os:stable")]);
        machine
    }

    /// Pushes a bootable image of this version, with more layers on top, as `os:stable` and `os:VERSION`.
    pub fn publish(&self, version: &str, layers: impl IntoIterator<Item = Layer>) -> OciImage {
        self.publish_image(
            version,
            Image::bootable(version).created(&created(version)),
            layers,
        )
    }

    /// Pushes an image made by the caller as `os:stable` and `os:VERSION`.
    pub fn publish_image(
        &self,
        version: &str,
        image: Image,
        layers: impl IntoIterator<Item = Layer>,
    ) -> OciImage {
        let image = layers.into_iter().fold(image, Image::layer);
        let written = image.write(&self.images.path().join(version), "latest");
        for tag in ["stable", version] {
            written.push(&self.home, &self.registry.name(&format!("os:{tag}")), &[]);
        }
        written
    }

    /// Returns the unverified reference of an image in the registry.
    pub fn reference(&self, image: &str) -> String {
        self.registry.reference(image)
    }

    /// Returns the program with `--sysroot` and the test's environment.
    pub fn command(&self, arguments: &[&str]) -> Cmd {
        super::apt_ostree(&self.home)
            .arg("--sysroot")
            .arg(self.sysroot.path())
            .args(arguments)
    }

    /// Runs a verb to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// Runs a verb that must succeed and returns its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?} ended with {}: {errors}",
            output.status
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs a verb that must end with this status and returns its standard error.
    pub fn fails(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {errors}");
        errors
    }

    /// Returns `status --json`.
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).expect("JSON")
    }

    /// Returns the versions of the deployments in boot order.
    pub fn versions(&self) -> Vec<String> {
        let status = self.status();
        let deployments = status["deployments"].as_array().expect("a list").clone();
        deployments
            .iter()
            .map(|deployment| deployment["version"].as_str().unwrap_or("-").to_owned())
            .collect()
    }

    /// Returns the directory of a deployment, counted in boot order.
    pub fn root(&self, index: usize) -> PathBuf {
        let status = self.status();
        let deployment = &status["deployments"][index];
        let name = format!(
            "{}.{}",
            deployment["checksum"].as_str().expect("checksum"),
            deployment["serial"]
        );
        let stateroot = deployment["osname"].as_str().expect("stateroot");
        self.sysroot
            .path()
            .join("ostree/deploy")
            .join(stateroot)
            .join("deploy")
            .join(name)
    }

    /// Returns everything that decides what boots: refs, deployments, origins, boot entries.
    pub fn state(&self) -> BTreeMap<String, String> {
        let mut state = repo::refs(&self.sysroot.repo());
        let entries = self.sysroot.path().join("boot/loader/entries");
        read_files(&entries, &mut state);
        let roots = self.sysroot.path().join("ostree/deploy/default/deploy");
        read_files(&roots, &mut state);
        state
    }

    /// Fails the test unless the repository is sound.
    pub fn assert_sound(&self) {
        repo::assert_sound(&self.sysroot.repo());
    }
}

/// Returns a layer that replaces one file, so that versions differ in content.
pub fn changed_file(name: &str, content: &str) -> Layer {
    Layer::new().file(name, 0o644, content)
}

/// Returns a bootable image without labels, for the tests of what is missing.
pub fn unlabelled(version: &str) -> Image {
    Image::new().layer(root_layer(version))
}

fn created(version: &str) -> String {
    let day: u32 = version
        .split('.')
        .next_back()
        .and_then(|part| part.parse().ok())
        .unwrap_or(1);
    format!("2026-01-{:02}T00:00:00Z", day.clamp(1, 28))
}

fn read_files(folder: &Path, state: &mut BTreeMap<String, String>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.map(|entry| entry.expect("entry")) {
        if entry.file_type().expect("type").is_file() {
            let text = std::fs::read_to_string(entry.path()).expect("text");
            state.insert(entry.path().display().to_string(), text);
        }
    }
}
