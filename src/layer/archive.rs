//! The repositories of a tree, through an apt that runs outside of it.
//!
//! apt gets a configuration, sources, keys, preferences and credentials of its own, written here from the tree;
//! it reads neither the running system's nor the tree's configuration, and runs no hook of either. The dpkg
//! database is a copy at a place that does not change, so that apt's cache of it stays good.
//!
//! ```text
//! <cache>/apt        configuration, sources, database, apt's own caches; `lock` is held while an Archive lives
//! <cache>/lists      indexes of the repositories
//! <cache>/archives   packages, see `cache`
//! ```

use super::apt_conf::{self, Setting};
use super::base::Base;
use super::etc::{Content, EtcView, Tree};
use super::places::Places;
use super::sources::{Files, Sources};
use crate::fault::{Fault, Kind};
use crate::host::environment;
use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use fn_error_context::context;
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The user apt fetches as, where it can.
const SANDBOX_USER: &str = "_apt";

/// Folders below apt's `etc` that hold exactly what the tree has.
const FOLDERS: [&str; 5] = [
    "auth.conf.d",
    "keys",
    "preferences.d",
    "sources.list.d",
    "trusted.gpg.d",
];

/// The repositories of a tree.
#[derive(Debug)]
pub struct Archive {
    pub(super) cache: PathBuf,
    pub(super) state: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) base: Base,
    pub(super) warnings: Vec<String>,
    pub(super) repositories: Vec<(String, String)>,
    /// Digest over the sources and keys; other sources need other indexes.
    pub(super) identity: String,
    /// The id of the user apt fetches as, unless that is root.
    pub(super) sandbox_user: Option<u32>,
    _hold: Hold,
}

/// What ends with an [`Archive`].
#[derive(Debug)]
enum Hold {
    Lock { _file: File },
    Scratch { _folder: TempDir },
}

impl Archive {
    /// Opens the repositories of the tree at `root` with the `/etc` it will have, to solve and to fetch.
    ///
    /// `root` is a pristine checkout of an image; nothing is written there. Waits for another process that has the
    /// same places open. Fails when the caller may not write the cache, or the tree has no dpkg database.
    #[context("Preparing apt for {}", root.display())]
    pub fn open(places: &Places, root: &Path, etc: &EtcView) -> Result<Self> {
        let folder = apt_below(&places.cache());
        let lock = lock(&folder)?;
        Self::set_up(places, root, etc, folder, Hold::Lock { _file: lock })
    }

    /// Opens the repositories only to look things up in the indexes that are stored; any user may do so.
    ///
    /// apt's own caches are made anew in memory, because those of [`Archive::open`] belong to root.
    #[context("Preparing apt for {}", root.display())]
    pub fn open_to_read(places: &Places, root: &Path, etc: &EtcView) -> Result<Self> {
        let scratch = tempfile::tempdir().context("Making a temporary folder")?;
        let folder = scratch.path().to_path_buf();
        Self::set_up(places, root, etc, folder, Hold::Scratch { _folder: scratch })
    }

    /// Returns what the image has.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Returns `(address, suite)` of the repositories in use.
    pub fn repositories(&self) -> &[(String, String)] {
        &self.repositories
    }

    fn set_up(places: &Places, root: &Path, etc: &EtcView, folder: PathBuf, hold: Hold) -> Result<Self> {
        let tree = Tree { root, etc };
        let settings = settings(&tree)?;
        let is_list = |(key, _): &&Setting| {
            let key = key.to_ascii_lowercase();
            key.trim_end_matches("::") == "apt::architectures"
        };
        let wanted: Vec<String> = settings
            .iter()
            .filter(is_list)
            .map(|(_, value)| value.clone())
            .collect();
        let base = Base::read(&tree, &wanted)?;
        let inside = folder.join("etc");
        let sources = Sources::read(&tree, &inside)?;
        let may_fetch = matches!(hold, Hold::Lock { .. });
        let mut files = sources.files;
        copy_folder(&tree, "trusted.gpg.d", &mut files)?;
        copy_folder(&tree, "preferences.d", &mut files)?;
        if let Some(content) = tree.read("/etc/apt/trusted.gpg")? {
            files.insert("trusted.gpg".to_owned(), content);
        }
        if let Some(content) = tree.read("/etc/apt/preferences")? {
            files.insert("preferences.d/00-preferences".to_owned(), content);
        }
        let identity = identity(&files, &inside);
        if may_fetch {
            copy_folder(&tree, "auth.conf.d", &mut files)?;
            if let Some(content) = tree.read("/etc/apt/auth.conf")? {
                files.insert("auth.conf.d/00-auth.conf".to_owned(), content);
            }
        }
        let archive = Self {
            cache: places.cache(),
            state: places.state(),
            folder,
            base,
            warnings: sources.warnings,
            repositories: sources.repositories,
            identity,
            sandbox_user: sandbox_user(&places.cache()),
            _hold: hold,
        };
        archive.write_etc(files)?;
        archive.write_database()?;
        let configuration = archive.configuration(&settings, may_fetch)?;
        write_if_other(&archive.folder.join("apt.conf"), configuration.as_bytes(), 0o644)?;
        Ok(archive)
    }

    fn write_etc(&self, files: Files) -> Result<()> {
        let etc = self.folder.join("etc");
        for name in FOLDERS {
            let folder = etc.join(name);
            make_folder(&folder)?;
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                let place = format!("{name}/{}", entry.file_name().to_string_lossy());
                if !files.contains_key(&place) {
                    std::fs::remove_file(entry.path())?;
                }
            }
        }
        for (name, content) in files {
            // Keys are no secret and are read by apt's own user; sources may hold passwords.
            let mode = match name.split('/').next().unwrap_or_default() {
                "auth.conf.d" => 0o600,
                "sources.list.d" if content.mode & 0o004 == 0 => 0o600,
                _ => 0o644,
            };
            write_if_other(&etc.join(name), &content.bytes, mode)?;
        }
        Ok(())
    }

    /// Copies the database; apt looks only at size and time, so its cache goes when the content is another.
    fn write_database(&self) -> Result<()> {
        let extended = self.folder.join("extended_states");
        write_if_other(&extended, &self.base.extended_states, 0o644)?;
        let status = self.folder.join("status");
        if write_if_other(&status, &self.base.status, 0o644)? {
            remove_if_there(&self.folder.join("pkgcache.bin"))?;
        }
        Ok(())
    }

    fn configuration(&self, settings: &[Setting], may_fetch: bool) -> Result<String> {
        let mut text = String::new();
        let mut set = |key: &str, value: &str| -> Result<()> {
            if value.contains(['"', '\\', '\n']) {
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!("`{value}` cannot stand in a configuration of apt: it has a quotation mark, a backslash or a line end"),
                )
                .into());
            }
            text += &format!("{key} \"{value}\";\n");
            Ok(())
        };
        let path = |path: &Path| path.to_str().map(str::to_owned).context("A path is not UTF-8");
        let folder = path(&self.folder)?;
        // What the tree may choose comes first: the rest cannot be overruled.
        set("APT::Install-Recommends", "false")?;
        set("Acquire::Retries", "1")?;
        for (key, value) in settings {
            if !key.to_ascii_lowercase().starts_with("apt::architectures") {
                set(key, value)?;
            }
        }
        for key in ["Dir", "Dir::State", "Dir::Cache", "Dir::Log"] {
            set(key, &folder)?;
        }
        set("Dir::State::lists", &path(&self.lists())?)?;
        set("Dir::State::status", &format!("{folder}/status"))?;
        set(
            "Dir::State::extended_states",
            &format!("{folder}/extended_states"),
        )?;
        set("Dir::Etc", &format!("{folder}/etc"))?;
        set("Dir::Etc::main", "/dev/null")?;
        set("Dir::Etc::parts", "/dev/null")?;
        set("Dir::Etc::sourcelist", "/dev/null")?;
        set("Dir::Etc::netrc", "/dev/null")?;
        set("Dir::Etc::preferences", "pins")?;
        if !may_fetch {
            set("Dir::Cache::pkgcache", "")?;
            set("Dir::Cache::srcpkgcache", "")?;
        }
        set("APT::Architecture", &self.base.native)?;
        set("APT::Architectures::", &self.base.native)?;
        for name in &self.base.foreign {
            set("APT::Architectures::", name)?;
        }
        let user = self.sandbox_user.map_or("root", |_| SANDBOX_USER);
        set("APT::Sandbox::User", user)?;
        set("APT::Get::AutomaticRemove", "false")?;
        set("APT::Get::Show-User-Simulation-Note", "false")?;
        set("Acquire::Languages", "none")?;
        set("Acquire::ForceHash", "SHA256")?;
        set("Acquire::PDiffs", "false")?;
        Ok(text)
    }

    /// Returns a program of apt with this archive's configuration and nobody else's.
    pub(super) fn apt(&self, program: &str) -> Cmd {
        Cmd::new(program)
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("LC_ALL", "C.UTF-8")
            .env_remove("LANGUAGE")
    }

    /// Returns the folder of the indexes.
    pub(super) fn lists(&self) -> PathBuf {
        lists_below(&self.cache)
    }
}

/// Returns the folder of the indexes below a folder of caches.
pub(super) fn lists_below(cache: &Path) -> PathBuf {
    cache.join("lists")
}

/// Returns the folder of apt's configuration and its own caches below a folder of caches.
pub(super) fn apt_below(cache: &Path) -> PathBuf {
    cache.join("apt")
}

/// Makes the folder and waits until no other process has it open.
pub(super) fn lock(folder: &Path) -> Result<File> {
    make_folder(folder)?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(folder.join("lock"))
        .with_context(|| format!("Opening the lock in {}", folder.display()))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

/// Reads the harmless settings of the tree in apt's own order: the parts, then the main file.
fn settings(tree: &Tree<'_>) -> Result<Vec<Setting>> {
    let mut found = Vec::new();
    let parts = tree.etc.list("apt/apt.conf.d")?;
    let parts = parts
        .iter()
        .filter(|name| !name.contains('.') || name.ends_with(".conf"))
        .map(|name| format!("/etc/apt/apt.conf.d/{name}"));
    for place in parts.chain(["/etc/apt/apt.conf".to_owned()]) {
        if let Some(content) = tree.read(&place)? {
            found.extend(apt_conf::harmless(&String::from_utf8_lossy(&content.bytes)));
        }
    }
    Ok(found)
}

fn copy_folder(tree: &Tree<'_>, name: &str, files: &mut Files) -> Result<()> {
    for entry in tree.etc.list(&format!("apt/{name}"))? {
        if let Some(content) = tree.read(&format!("/etc/apt/{name}/{entry}"))? {
            files.insert(format!("{name}/{entry}"), content);
        }
    }
    Ok(())
}

/// Returns a digest over sources and keys, whatever folder `etc` they are copied to.
fn identity(files: &Files, etc: &Path) -> String {
    let mut digest = Sha256::new();
    let etc = etc.to_string_lossy();
    for (name, Content { bytes, .. }) in files.iter().filter(|(name, _)| !name.starts_with("preferences")) {
        let text = String::from_utf8_lossy(bytes).replace(&*etc, "");
        digest.update(format!("{name}\0{}\0{text}", text.len()));
    }
    hex::encode(digest.finalize())
}

/// Returns the id of apt's own user, when it exists and can reach the cache; else apt fetches as root.
fn sandbox_user(cache: &Path) -> Option<u32> {
    let reachable = |folder: &Path| std::fs::metadata(folder).is_ok_and(|state| state.mode() & 0o001 != 0);
    let id = environment::user_id(SANDBOX_USER)?;
    cache.ancestors().all(reachable).then_some(id)
}

/// Makes a folder and those above it, readable by everybody.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("Making the folder {}", path.display()))
}

/// Replaces a file in one step when it has other content; returns whether it had.
pub(super) fn write_if_other(path: &Path, bytes: &[u8], mode: u32) -> Result<bool> {
    let same_mode = std::fs::metadata(path).is_ok_and(|state| state.mode() & 0o7777 == mode);
    if same_mode && std::fs::read(path).is_ok_and(|known| known == bytes) {
        return Ok(false);
    }
    let folder = path.parent().context("A file without a folder")?;
    let mut file = tempfile::Builder::new()
        .prefix(".")
        .permissions(std::fs::Permissions::from_mode(mode))
        .tempfile_in(folder)
        .with_context(|| format!("Writing {}", path.display()))?;
    file.write_all(bytes)?;
    // The file creation mask of the caller does not count.
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.persist(path)
        .with_context(|| format!("Writing {}", path.display()))?;
    Ok(true)
}

pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("Removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
