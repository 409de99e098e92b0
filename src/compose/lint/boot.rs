//! Rules about what boots: kernel, initramfs, prepare-root.conf, kernel arguments, the name in the boot menu.

use super::{Check, Level, Rule, rootfs};
use crate::compose::initramfs;
use anyhow::Result;
use std::path::{Path, PathBuf};

const MODULES: &str = "usr/lib/modules";

pub(super) const BASEIMAGE_COMPOSEFS: Rule = Rule {
    name: "baseimage-composefs",
    level: Level::Warning,
    description: "prepare-root.conf enables composefs exactly where the image's libostree has it",
    check: |check| {
        let found = ["etc/ostree/prepare-root.conf", "usr/lib/ostree/prepare-root.conf"];
        let mut configured = None;
        for path in found {
            if let Some(text) = rootfs::read_text(check.root, path)? {
                configured = Some((path, asks_for_composefs(&text)));
                break;
            }
        }
        let supported = links_composefs(check)?;
        match configured {
            None => check.found_unprepared("usr/lib/ostree/prepare-root.conf", "It is missing"),
            Some((path, true)) if !supported => check.found(
                path,
                "It enables composefs, which the libostree of this image lacks; the host would not boot",
                "set enabled = no in its [composefs] section",
            ),
            Some((path, false)) if supported => check.found(
                path,
                "It does not enable composefs, which the libostree of this image has",
                "set enabled = yes in its [composefs] section",
            ),
            Some(_) => {}
        }
        Ok(())
    },
};

fn asks_for_composefs(text: &str) -> bool {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[composefs]";
        } else if let (true, Some((key, value))) = (inside, line.split_once('=')) {
            if key.trim() == "enabled" {
                return matches!(value.trim(), "yes" | "true" | "1" | "signed" | "verity");
            }
        }
    }
    false
}

/// Tells whether libostree was built with composefs: it names the library then.
fn links_composefs(check: &Check<'_>) -> Result<bool> {
    let library = Path::new("usr/lib");
    for folder in std::iter::once(library.to_owned()).chain(multiarch_folders(check)?) {
        let path = folder.join("libostree-1.so.1.0.0");
        if rootfs::is_file(check.root, &path)? {
            let bytes = check.root.read(&path)?;
            return Ok(bytes.windows(16).any(|window| window == b"libcomposefs.so."));
        }
    }
    Ok(false)
}

fn multiarch_folders(check: &Check<'_>) -> Result<Vec<PathBuf>> {
    let names = rootfs::names(check.root, "usr/lib")?;
    let multiarch = names
        .iter()
        .filter(|name| name.to_string_lossy().contains("-linux-gnu"));
    Ok(multiarch.map(|name| Path::new("usr/lib").join(name)).collect())
}

pub(super) const BOOTC_KARGS: Rule = Rule {
    name: "bootc-kargs",
    level: Level::Error,
    description: "The files of /usr/lib/bootc/kargs.d parse",
    check: |check| {
        let folder = Path::new("usr/lib/bootc/kargs.d");
        for name in rootfs::names(check.root, folder)? {
            let path = folder.join(&name);
            if !rootfs::is_file(check.root, &path)? {
                check.found(path, "It is no regular file", "put a TOML file there");
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                let text = rootfs::read_text(check.root, &path)?.unwrap_or_default();
                if let Err(reason) = parse_kargs(&text) {
                    check.found(path, reason, "write kargs = [\"NAME=VALUE\", ...]");
                }
            } else {
                check.found(
                    path,
                    "Its name does not end in .toml, so nothing reads it",
                    "rename it",
                );
            }
        }
        Ok(())
    },
};

fn parse_kargs(text: &str) -> Result<(), String> {
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| format!("It is no TOML: {}", error.message()))?;
    for (key, value) in &table {
        let strings = value
            .as_array()
            .is_some_and(|list| list.iter().all(toml::Value::is_str));
        if key != "kargs" && key != "match-architectures" {
            return Err(format!("It has the unknown key `{key}`"));
        }
        if !strings {
            return Err(format!("Its `{key}` is no list of strings"));
        }
    }
    if table.contains_key("kargs") {
        Ok(())
    } else {
        Err("It has no list `kargs`".to_owned())
    }
}

/// Returns the releases in `/usr/lib/modules` that have a kernel.
fn kernels(check: &Check<'_>) -> Result<Vec<String>> {
    let mut kernels = Vec::new();
    for name in rootfs::names(check.root, MODULES)? {
        if rootfs::is_file(check.root, Path::new(MODULES).join(&name).join("vmlinuz"))? {
            kernels.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(kernels)
}

pub(super) const KERNEL: Rule = Rule {
    name: "kernel",
    level: Level::Error,
    description: "Exactly one directory of /usr/lib/modules holds a kernel",
    check: |check| {
        match kernels(check)?.as_slice() {
            [_] => {}
            [] => check.found_unprepared(MODULES, "No vmlinuz is there"),
            several => {
                let message = format!("{} kernels are there: {}", several.len(), several.join(", "));
                check.found(
                    MODULES,
                    message,
                    format!("run apt-get purge linux-image-{}", several[0]),
                );
            }
        }
        Ok(())
    },
};

pub(super) const INITRAMFS: Rule = Rule {
    name: "initramfs",
    level: Level::Error,
    description: "Each kernel has an initramfs beside it that holds ostree-prepare-root",
    check: |check| {
        for kernel in kernels(check)? {
            let path = Path::new(MODULES).join(kernel).join("initramfs.img");
            if !rootfs::is_file(check.root, &path)? {
                check.found_unprepared(path, "It is missing");
                continue;
            }
            match initramfs::entries(&check.root.read(&path)?) {
                Ok(entries)
                    if entries
                        .iter()
                        .any(|entry| entry.path.ends_with("/ostree-prepare-root")) => {}
                Ok(_) => check.found(
                    path,
                    "It does not hold ostree-prepare-root, so it cannot find the deployment",
                    "install dracut and ostree-boot, then run apt-ostree container prepare",
                ),
                Err(error) => check.found(
                    path,
                    format!("It cannot be read: {}", error.root_cause()),
                    "remove it and run apt-ostree container prepare",
                ),
            }
        }
        Ok(())
    },
};

/// Characters that end up in GRUB's configuration and mean something there.
const GRUB_SCRIPT: &[char] = &['\'', '"', '$', ';', '{', '}', '\\', '`', '|', '&', '<', '>'];

pub(super) const OS_RELEASE: Rule = Rule {
    name: "os-release",
    level: Level::Error,
    description: "The names in os-release are plain text that GRUB does not read as script",
    check: |check| {
        let path = "usr/lib/os-release";
        let Some(text) = rootfs::read_text(check.root, path)? else {
            check.found(
                path,
                "It is missing, and the boot menu takes its title from there",
                "install base-files",
            );
            return Ok(());
        };
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = unquote(value.trim());
            let wrong = value.chars().find(|c| GRUB_SCRIPT.contains(c) || c.is_control());
            if let (true, Some(wrong)) = (matches!(key.trim(), "PRETTY_NAME" | "NAME" | "VERSION"), wrong) {
                let key = key.trim();
                let message = format!("{key} holds {wrong:?}, which GRUB reads as script in a menu title");
                check.found(path, message, format!("write {key} without it"));
            }
        }
        Ok(())
    },
};

/// Takes off the quotes around a value.
fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        let inside = value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote));
        if let Some(inside) = inside {
            return inside;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kargs_files_are_checked() {
        for (text, good) in [
            ("kargs = [\"quiet\"]\n", true),
            ("kargs = [\"a\"]\nmatch-architectures = [\"x86_64\"]\n", true),
            ("kargs = \"quiet\"\n", false),
            ("kargs = [1]\n", false),
            ("karg = [\"a\"]\n", false),
            ("kargs = [", false),
            ("", false),
        ] {
            assert_eq!(parse_kargs(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn composefs_setting_is_read_in_its_section() {
        assert!(asks_for_composefs("[composefs]\nenabled = yes\n"));
        assert!(!asks_for_composefs("[composefs]\nenabled=no\n"));
        assert!(!asks_for_composefs("[sysroot]\nenabled=yes\n"));
    }
}
