//! A host that runs the real Debian image, follows an OCI directory, and has a signed apt repository.

use super::archive::Archive;
use super::debian::{self, Debian};
use super::image::{blob_path, sha256};
use super::layer::Layer;
use super::machine::Machine;
use super::package::Package;
use super::{run, write};
use serde_json::{Value, json};
use std::borrow::Borrow;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// Where the repository's key is on the host.
const KEYRING: &str = "/etc/apt/keyrings/test.gpg";

/// The host; it dereferences to its [`Machine`].
pub struct DebianMachine {
    pub machine: Machine,
    pub archive: Archive,
    image: PathBuf,
    /// dpkg's status file in the original image.
    status: String,
    _images: tempfile::TempDir,
}

impl Deref for DebianMachine {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl Borrow<Machine> for DebianMachine {
    fn borrow(&self) -> &Machine {
        &self.machine
    }
}

impl DebianMachine {
    /// Deploys version 1 of the image, with these packages in the repository.
    pub fn new(packages: &[Package]) -> Self {
        let Debian { sysroot, .. } = Debian::new();
        let images = tempfile::tempdir().expect("directory");
        let image = images.path().join("os");
        let [from, to] = [debian::image("base"), image.clone()].map(|path| path.display().to_string());
        run("cp", ["-aL", "--reflink=auto", &from, &to]);
        let mut host = Self {
            status: String::new(),
            machine: Machine::with_sysroot(sysroot),
            archive: Archive::with(packages),
            image,
            _images: images,
        };
        host.ok(&["rebase", &host.image_reference()]);
        host.status = host.text(0, "usr/lib/sysimage/dpkg/status");
        let etc = host.root(0).join("etc/apt");
        for name in ["sources.list", "sources.list.d"] {
            let path = etc.join(name);
            if path.is_dir() {
                std::fs::remove_dir_all(path).expect("the image's sources");
            } else if path.exists() {
                std::fs::remove_file(path).expect("the image's sources");
            }
        }
        write(etc.join("keyrings/test.gpg"), host.archive.keyring());
        host.use_archive();
        host
    }

    /// Makes the first deployment's `/etc` name all suites of the repository.
    pub fn use_archive(&self) {
        let sources = self.root(0).join("etc/apt/sources.list.d/test.sources");
        write(sources, self.archive.sources(KEYRING));
    }

    /// Returns the reference that the host follows.
    pub fn image_reference(&self) -> String {
        format!("ostree-unverified-image:oci:{}", self.image.display())
    }

    /// Returns the directory of the followed image.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Makes the followed image the original one with this version and these layers on top.
    pub fn publish_image(&self, version: &str, layers: impl IntoIterator<Item = Layer>) {
        let read = |path: &Path| -> Value {
            serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
        };
        let index = read(&debian::image("base").join("index.json"));
        let blob =
            |descriptor: &Value| blob_path(&self.image, descriptor["digest"].as_str().expect("digest"));
        let store = |data: &[u8]| {
            let digest = sha256(data);
            write(blob_path(&self.image, &digest), data);
            json!({ "digest": digest, "size": data.len() })
        };
        let mut manifest = read(&blob(&index["manifests"][0]));
        let mut config = read(&blob(&manifest["config"]));
        config["config"]["Labels"]["org.opencontainers.image.version"] = json!(version);
        let day = version.parse::<u32>().expect("a number").clamp(1, 28);
        config["created"] = json!(format!("2027-01-{day:02}T00:00:00Z"));
        manifest["annotations"] = json!({});
        let list = |value: &mut Value, item: Value| value.as_array_mut().expect("a list").push(item);
        for layer in layers {
            let packed = layer.finish();
            let mut descriptor = store(&packed.data);
            descriptor["mediaType"] = json!(packed.packing.media_type());
            list(&mut manifest["layers"], descriptor);
            list(&mut config["rootfs"]["diff_ids"], json!(packed.diff_id));
            list(&mut config["history"], json!({ "created_by": "test" }));
        }
        let change = |value: &mut Value, data: Value| {
            let stored = store(data.to_string().as_bytes());
            value["digest"] = stored["digest"].clone();
            value["size"] = stored["size"].clone();
        };
        change(&mut manifest["config"], config);
        let mut index = index;
        change(&mut index["manifests"][0], manifest);
        write(self.image.join("index.json"), index.to_string());
    }

    /// Returns a layer of the next image that has one more package installed: its entry in dpkg's database, and one
    /// file of its own.
    pub fn brings(&self, package: &Package, file: &str, content: &str) -> Layer {
        let name = package.name();
        let info = format!("usr/lib/sysimage/dpkg/info/{name}");
        let status = format!("{}\n{}\n", self.status, package.installed().trim_end());
        let mut list = "/.\n".to_owned();
        for (end, _) in file.match_indices('/') {
            list += &format!("/{}\n", &file[..end]);
        }
        list += &format!("/{file}\n");
        Layer::new()
            .file("usr/lib/sysimage/dpkg/status", 0o644, status)
            .file(&format!("{info}.list"), 0o644, list)
            .file(&format!("{info}.md5sums"), 0o644, "")
            .file(file, 0o644, content)
    }

    /// Returns the text of a file of a deployment.
    pub fn text(&self, index: usize, path: &str) -> String {
        std::fs::read_to_string(self.root(index).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Returns whether a deployment has something at a path; links are not followed.
    pub fn has(&self, index: usize, path: &str) -> bool {
        self.root(index).join(path).symlink_metadata().is_ok()
    }

    /// Returns a list of the first deployment's JSON.
    pub fn list(&self, key: &str) -> Vec<String> {
        let status = self.status();
        let values = status["deployments"][0][key].as_array().cloned();
        let values = values.unwrap_or_else(|| panic!("{key} is no list: {status:#}"));
        values
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect()
    }

    /// Returns how many deployments there are.
    pub fn count(&self) -> usize {
        self.versions().len()
    }

    /// Returns a package file in the given folder.
    pub fn file(&self, package: &Package) -> String {
        let folder = self.image.with_file_name("debs");
        std::fs::create_dir_all(&folder).expect("folder");
        package.build(&folder).display().to_string()
    }

    /// Returns what layering left in the repository's folder for temporary files.
    pub fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.sysroot.repo().join("tmp")).expect("tmp");
        entries
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("apt-ostree-layer."))
            .collect()
    }
}
