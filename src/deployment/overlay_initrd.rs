//! Files of the host's `/etc` that the initramfs needs: an archive of their own, loaded behind the image's initramfs.
//!
//! libostree keeps it as `boot/ostree/initramfs-overlays/SHA256.img` and names it in the boot entry. It is made again
//! for each deployment, from the `/etc` that the deployment's own is merged from. Equal files make an equal archive.

use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::{Dir, Metadata, MetadataExt};
use cap_std_ext::dirext::CapStdExtDirExt;
use fn_error_context::context;
use ostree_ext::{gio, ostree};
use std::collections::BTreeSet;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;

/// The folder that all files must be in.
const ETC: &str = "/etc/";

/// Returns the path below `/etc` of a file that may be tracked.
///
/// Fails for any other path, and for one that leaves `/etc` again.
pub fn below_etc(path: &str) -> Result<&str, Fault> {
    let refuse = || {
        Fault::new(
            Kind::Usage,
            format!("`{path}` cannot be tracked: only files below /etc can"),
        )
        .hint("give the whole path, such as /etc/crypttab")
    };
    let below = path.strip_prefix(ETC).ok_or_else(refuse)?;
    let plain =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control);
    if !below.split('/').all(plain) {
        return Err(refuse());
    }
    Ok(below)
}

/// Makes the archive of the tracked files in the `/etc` of `merge` and hands it to libostree; returns its name for the
/// new deployment, and nothing when no file is tracked.
///
/// Fails when a tracked file is missing: the next boot may depend on it.
#[context("Collecting the files of /etc for the initramfs")]
pub fn stage(
    host: &Host,
    merge: Option<&ostree::Deployment>,
    tracked: &BTreeSet<String>,
) -> Result<Option<String>> {
    let Some(merge) = merge.filter(|_| !tracked.is_empty()) else {
        return Ok(None);
    };
    let path = match host.booted() {
        Some(booted) if booted.equal(merge) => host.path().join("etc"),
        _ => host.root_of(merge).join("etc"),
    };
    let etc = Dir::open_ambient_dir(&path, ambient_authority())
        .with_context(|| format!("Opening {}", path.display()))?;
    let mut file = tempfile::tempfile()?;
    file.write_all(&archive(&etc, tracked)?)?;
    file.rewind()?;
    let name = host
        .sysroot()
        .stage_overlay_initrd(file.as_raw_fd(), gio::Cancellable::NONE)?;
    Ok(Some(name.to_string()))
}

/// Returns a cpio archive (`newc`) of the tracked files and the folders above them; times are left out.
///
/// Links are archived as links. Fails when a file is missing or is neither a file nor a link.
pub fn archive(etc: &Dir, tracked: &BTreeSet<String>) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let mut folders = BTreeSet::new();
    for path in tracked {
        let below = below_etc(path)?;
        let ends = below.match_indices('/').map(|(end, _)| &below[..end]);
        for folder in std::iter::once(".").chain(ends) {
            if folders.insert(folder) {
                let name = if folder == "." {
                    "etc".to_owned()
                } else {
                    format!("etc/{folder}")
                };
                archive.add(&name, &etc.metadata(folder)?, &[]);
            }
        }
        let missing = |what: &str| {
            Fault::new(
                Kind::NotFound,
                format!("The file {path} is tracked for the initramfs, and {what}"),
            )
            .hint(format!(
                "make it again, or run `apt-ostree initramfs-etc --untrack={path}`"
            ))
        };
        let Some(found) = etc.symlink_metadata_optional(below)? else {
            return Err(missing("it is missing").into());
        };
        let content = if found.is_symlink() {
            etc.read_link_contents(below)?.as_os_str().as_bytes().to_vec()
        } else if found.is_file() {
            etc.read(below)?
        } else {
            return Err(missing("it is neither a file nor a link").into());
        };
        archive.add(&format!("etc/{below}"), &found, &content);
    }
    Ok(archive.finish())
}

/// A cpio archive in the form that the kernel unpacks.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    fn add(&mut self, name: &str, metadata: &Metadata, content: &[u8]) {
        self.member(name, [metadata.mode(), metadata.uid(), metadata.gid()], content);
    }

    fn member(&mut self, name: &str, [mode, uid, gid]: [u32; 3], content: &[u8]) {
        self.count += 1;
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let numbers = [
            self.count,
            mode,
            uid,
            gid,
            1, // names
            0, // time
            length(content.len()),
            0, // device, twice, and the device of a device node, twice
            0,
            0,
            0,
            length(name.len() + 1),
            0, // checksum, unused
        ];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes.extend_from_slice(format!("{number:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(content);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.count = 0;
        self.member("TRAILER!!!", [0; 3], &[]);
        self.pad(512);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_below_etc() {
        assert_eq!(below_etc("/etc/a/b.conf").unwrap(), "a/b.conf");
        for path in [
            "/usr/x",
            "etc/x",
            "/etc",
            "/etc/",
            "/etc/../x",
            "/etc/./x",
            "/etc//x",
            "/etc/a/",
            "/etc/a\nb",
        ] {
            assert!(below_etc(path).is_err(), "{path}");
        }
    }
}
