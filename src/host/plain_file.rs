//! Files that somebody names, or hands over open, and that must be plain files.

use crate::fault::{Fault, Kind};
use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Where a process finds its own descriptors.
const HANDED_OVER: &str = "/proc/self/fd";

/// Opens a plain file to be read.
///
/// Fails for anything else without waiting: a pipe that nobody writes to would hold up whoever opens it.
pub fn open(path: &Path) -> Result<File> {
    let refuse = |kind, text: &str| Fault::new(kind, format!("{text} {}", shown(path)));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = opened.map(File::from).map_err(|error| match error {
        Errno::NOENT => refuse(Kind::NotFound, "There is no file").into(),
        _ => anyhow::Error::from(error).context(format!("Opening {}", shown(path))),
    })?;
    if !file.metadata()?.is_file() {
        return Err(refuse(Kind::Usage, "This is no plain file:").into());
    }
    Ok(file)
}

/// Reads a plain file of at most `limit` bytes as text.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    let mut text = String::new();
    open(path)?
        .take(limit + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("Reading {}", shown(path)))?;
    if text.len() as u64 > limit {
        return Err(Fault::new(
            Kind::Usage,
            format!("{} is larger than {limit} bytes", shown(path)),
        )
        .into());
    }
    Ok(text)
}

/// Returns the name to show for a file: of one that was handed over open, the name it was opened by.
pub fn shown(path: &Path) -> String {
    let real = path
        .starts_with(HANDED_OVER)
        .then(|| std::fs::read_link(path).ok())
        .flatten();
    real.as_deref().unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_plain_files_are_opened_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
            let error = open(path).unwrap_err();
            assert_eq!(Fault::find(&error).unwrap().kind, Kind::Usage, "{error:#}");
        }
        let error = open(&folder.path().join("none")).unwrap_err();
        assert_eq!(Fault::find(&error).unwrap().kind, Kind::NotFound);
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert!(read_text(&path, 4).is_err());
    }

    #[test]
    fn a_file_that_was_handed_over_has_its_own_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(shown(Path::new(&path)), file.path().display().to_string());
        assert_eq!(shown(Path::new("a.deb")), "a.deb");
    }
}
