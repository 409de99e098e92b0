//! Debian packages made for a test with the real dpkg-deb.

use apt_ostree::host::runner::Cmd;
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// A package to be built; every file belongs to root unless [`Package::owner`] says otherwise.
#[derive(Clone, Debug)]
pub struct Package {
    name: String,
    version: String,
    architecture: String,
    compression: String,
    fields: Vec<(String, String)>,
    payload: Vec<(String, Content)>,
    owners: Vec<(String, u32, u32)>,
    conffiles: Vec<String>,
    control: BTreeMap<String, (u32, String)>,
}

#[derive(Clone, Debug)]
enum Content {
    File(u32, Vec<u8>),
    Directory(u32),
    Link(String),
}

impl Package {
    /// Describes an empty package for every architecture.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "all".to_owned(),
            compression: "gzip".to_owned(),
            fields: Vec::new(),
            payload: Vec::new(),
            owners: Vec::new(),
            conffiles: Vec::new(),
            control: BTreeMap::new(),
        }
    }

    /// Sets the architecture.
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.to_owned();
        self
    }

    /// Sets how dpkg-deb compresses: `gzip` (default), `xz`, `zstd` or `none`.
    pub fn compression(mut self, compression: &str) -> Self {
        self.compression = compression.to_owned();
        self
    }

    /// Sets `Depends`.
    pub fn depends(self, relations: &str) -> Self {
        self.field("Depends", relations)
    }

    /// Sets a field of the control file.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a file; the path has no leading slash.
    pub fn file(mut self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.payload
            .push((path.to_owned(), Content::File(mode, content.as_ref().to_vec())));
        self
    }

    /// Adds a directory.
    pub fn dir(mut self, path: &str, mode: u32) -> Self {
        self.payload.push((path.to_owned(), Content::Directory(mode)));
        self
    }

    /// Adds a symbolic link.
    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        self.payload
            .push((path.to_owned(), Content::Link(target.to_owned())));
        self
    }

    /// Sets the ids that own a path added before; the test must be root.
    pub fn owner(mut self, path: &str, user: u32, group: u32) -> Self {
        self.owners.push((path.to_owned(), user, group));
        self
    }

    /// Adds a file with mode 0644 that dpkg treats as configuration.
    pub fn conffile(mut self, path: &str, content: &str) -> Self {
        self.conffiles.push(path.to_owned());
        self.file(path, 0o644, content)
    }

    /// Adds a maintainer script such as `postinst`, with its `#!` line.
    pub fn script(mut self, name: &str, text: &str) -> Self {
        self.control.insert(name.to_owned(), (0o755, text.to_owned()));
        self
    }

    /// Adds debconf's `config` script.
    pub fn config(self, text: &str) -> Self {
        self.script("config", text)
    }

    /// Adds debconf's questions.
    pub fn templates(self, text: &str) -> Self {
        self.control_file("templates", text)
    }

    /// Adds dpkg's `triggers` file.
    pub fn triggers(self, text: &str) -> Self {
        self.control_file("triggers", text)
    }

    /// Adds any other file beside the control file.
    pub fn control_file(mut self, name: &str, text: &str) -> Self {
        self.control.insert(name.to_owned(), (0o644, text.to_owned()));
        self
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns `name_version_architecture.deb`, with the colon of an epoch as apt writes it.
    pub fn file_name(&self) -> String {
        let version = self.version.replace(':', "%3a");
        format!("{}_{version}_{}.deb", self.name, self.architecture)
    }

    /// Returns the paragraph of dpkg's status file that says it is installed.
    pub fn installed(&self) -> String {
        format!("{}Status: install ok installed\n\n", self.control_text())
    }

    fn control_text(&self) -> String {
        let mut text = format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: Test <test@example.org>\n",
            self.name, self.version, self.architecture
        );
        for (name, value) in &self.fields {
            text += &format!("{name}: {value}\n");
        }
        if !self.fields.iter().any(|(name, _)| name == "Description") {
            text += "Description: package of a test\n";
        }
        text
    }

    /// Builds the package in `folder` and returns its file.
    pub fn build(&self, folder: &Path) -> PathBuf {
        let tree = tempfile::tempdir().expect("directory");
        // A temporary directory is private, and its mode becomes that of the target's `/`.
        set_mode(tree.path(), 0o755);
        for (path, content) in &self.payload {
            let place = tree.path().join(path);
            make_directories(tree.path(), place.parent().expect("a parent"));
            match content {
                Content::File(mode, bytes) => {
                    std::fs::write(&place, bytes).expect("file");
                    set_mode(&place, *mode);
                }
                Content::Directory(mode) => {
                    make_directories(tree.path(), &place);
                    set_mode(&place, *mode);
                }
                Content::Link(target) => symlink(target, &place).expect("link"),
            }
        }
        for (path, user, group) in &self.owners {
            let place = tree.path().join(path);
            let mode = std::fs::metadata(&place).expect("owned path").permissions();
            chown(&place, Some(*user), Some(*group)).expect("chown");
            // A change of owner takes the setuid bit away.
            std::fs::set_permissions(&place, mode).expect("mode");
        }
        let debian = tree.path().join("DEBIAN");
        make_directories(tree.path(), &debian);
        std::fs::write(debian.join("control"), self.control_text()).expect("control");
        if !self.conffiles.is_empty() {
            let list: String = self.conffiles.iter().map(|path| format!("/{path}\n")).collect();
            std::fs::write(debian.join("conffiles"), list).expect("conffiles");
        }
        for (name, (mode, text)) in &self.control {
            std::fs::write(debian.join(name), text).expect("control file");
            set_mode(&debian.join(name), *mode);
        }
        std::fs::create_dir_all(folder).expect("folder");
        let file = folder.join(self.file_name());
        let compression = format!("-Z{}", self.compression);
        // The same description gives the same file, whenever it is built.
        Cmd::new("dpkg-deb")
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .args([&compression, "--build"])
            .args([tree.path(), &file])
            .run()
            .unwrap_or_else(|error| panic!("{error:#}"));
        file
    }
}

fn make_directories(root: &Path, path: &Path) {
    let mut place = root.to_path_buf();
    for part in path.strip_prefix(root).expect("below the root") {
        place.push(part);
        if !place.is_dir() {
            std::fs::create_dir(&place).expect("directory");
            set_mode(&place, 0o755);
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
}
