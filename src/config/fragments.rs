//! Finding the fragments: two folders, one list of names.
//!
//! Paths are opened below the root they are asked for, so that an absolute link in another deployment's `/etc`
//! does not lead to a file of this machine.

use super::place::{self, Mistake};
use cap_std_ext::RootDir;
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The folders, below the root; what is in a later one masks what is in an earlier one.
const FOLDERS: [&str; 2] = ["usr/lib/apt-ostree/config.d", "etc/apt-ostree/config.d"];

/// The largest fragment that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// A fragment that could be read.
#[derive(Debug)]
pub(super) struct Fragment {
    /// The file as the host names it.
    pub(super) file: PathBuf,
    /// What stands in it.
    pub(super) text: String,
}

/// Reads all fragments below `root` in the order in which they apply; what cannot be read is a mistake.
pub(super) fn read(root: &Path, mistakes: &mut Vec<Mistake>) -> Vec<Fragment> {
    let mut mistake = |file: PathBuf, place, text: String| mistakes.push(Mistake { file, place, text });
    let root = match RootDir::open_ambient_root(root, ambient_authority()) {
        Ok(root) => root,
        Err(error) => {
            mistake(root.to_path_buf(), None, format!("cannot be opened: {error}"));
            return Vec::new();
        }
    };
    let mut found: BTreeMap<String, &str> = BTreeMap::new();
    for folder in FOLDERS {
        match names(&root, folder) {
            Ok(names) => found.extend(names.into_iter().map(|name| (name, folder))),
            Err(error) => mistake(
                Path::new("/").join(folder),
                None,
                format!("cannot be read: {error}"),
            ),
        }
    }
    let mut fragments = Vec::new();
    for (name, folder) in found {
        let file = Path::new("/").join(folder).join(&name);
        match content(&root, &Path::new(folder).join(&name)) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => fragments.push(Fragment { file, text }),
                Err(error) => {
                    let good = error.utf8_error().valid_up_to();
                    let text = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
                    let place = place::of(&text, good);
                    mistake(file, Some(place), "this is not UTF-8".to_owned());
                }
            },
            Err(error) => mistake(file, None, format!("cannot be read: {error}")),
        }
    }
    fragments
}

/// Returns the names of the fragments in a folder; none when there is no such folder.
fn names(root: &RootDir, folder: &str) -> io::Result<Vec<String>> {
    let entries = match root.read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 ends in no extension that counts here.
        if let Ok(name) = entry?.file_name().into_string() {
            let is_fragment = Path::new(&name).extension() == Some(OsStr::new("toml"));
            if is_fragment && !name.starts_with('.') {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Returns what a fragment holds; nothing at all of a link to `/dev/null`.
fn content(root: &RootDir, path: &Path) -> io::Result<Vec<u8>> {
    let folder: Dir = root.reopen_cap_std()?;
    let state = folder.symlink_metadata(path)?;
    if state.is_symlink() && folder.read_link_contents(path)? == Path::new("/dev/null") {
        return Ok(Vec::new());
    }
    // Opening a named pipe would wait for its writer.
    if !state.is_symlink() && !state.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let file = root.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {LARGEST} bytes")));
    }
    Ok(bytes)
}
