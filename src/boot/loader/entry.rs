//! The boot entries that libostree writes to `loader/entries`.

use super::grub_safe;
use crate::fault::{Fault, Kind};
use anyhow::{Context, Result};
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;

/// One boot entry as libostree wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What the menu shows.
    pub title: String,
    /// The kernel arguments.
    pub options: String,
    /// The kernel.
    pub linux: String,
    /// The initramfs, and the archives that are loaded behind it.
    pub initrds: Vec<String>,
}

impl Entry {
    fn parse(text: &str) -> Self {
        let mut entry = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(char::is_whitespace) else {
                continue;
            };
            let value = value.trim();
            match key {
                "title" => entry.title = value.to_owned(),
                "options" => entry.options = value.to_owned(),
                "linux" => entry.linux = value.to_owned(),
                "initrd" => entry.initrds.push(value.to_owned()),
                _ => {}
            }
        }
        entry
    }

    /// Returns the argument that names the deployment; no two entries share it.
    pub fn ostree(&self) -> Option<&str> {
        self.options
            .split_whitespace()
            .find(|word| word.starts_with("ostree="))
    }
}

/// Fails when GRUB would read a title or an argument in `boot`'s entries as script.
#[context("Checking the boot entries")]
pub(super) fn check_safe(boot: &Dir) -> Result<()> {
    for (name, entry) in entries(boot)? {
        if let Err(bad) = grub_safe(&entry.title).and_then(|()| grub_safe(&entry.options)) {
            return Err(unsafe_entry(&name, bad).into());
        }
    }
    Ok(())
}

/// Returns libostree's boot entries below `boot` with the names of their files, what boots first first.
///
/// Fails when one of them cannot be read.
pub fn entries(boot: &Dir) -> Result<Vec<(String, Entry)>> {
    let directory = boot
        .open_dir("loader/entries")
        .context("Opening loader/entries")?;
    let mut found = Vec::new();
    for file in directory.entries()? {
        let name = file?.file_name().to_string_lossy().into_owned();
        let Some(number) = entry_number(&name) else {
            continue;
        };
        let entry = Entry::parse(&directory.read_to_string(&name)?);
        found.push((number, name, entry));
    }
    found.sort_by_key(|(number, ..)| std::cmp::Reverse(*number));
    Ok(found.into_iter().map(|(_, name, entry)| (name, entry)).collect())
}

/// Returns N of `ostree-N.conf` or `ostree-N-STATEROOT.conf`.
fn entry_number(name: &str) -> Option<u32> {
    let stem = name.strip_prefix("ostree-")?.strip_suffix(".conf")?;
    stem.split('-').next()?.parse().ok()
}

fn unsafe_entry(name: &str, bad: char) -> Fault {
    Fault::new(
        Kind::Invalid,
        format!("The boot entry `{name}` holds {bad:?}, which GRUB would read as script"),
    )
    .hint("remove that kernel argument, or PRETTY_NAME's character from the image's os-release")
}
