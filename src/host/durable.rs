//! Files and folders that outlive a power cut: what a call wrote is on the disk when it returns.
//!
//! Everything is opened relative to a handle, and no link is followed.

use crate::host::folder;
use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes beyond which a file is not read: nothing this program writes this way is near.
const LARGEST: u64 = 1 << 20;

/// Opens the folder `name` below `parent`, and makes it with these permissions where there is none.
pub fn folder(parent: impl AsFd, name: &str, mode: u32) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => {
            let made = folder::open(&parent, name)?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
            rustix::fs::fsync(&made)?;
            rustix::fs::fsync(&parent)?;
            Ok(made)
        }
        Err(Errno::EXIST) => folder::open(&parent, name),
        Err(error) => Err(error).with_context(|| format!("Making the folder {name}")),
    }
}

/// Makes a new file for root alone with `content`, and keeps `room` bytes of the disk for what is appended to it.
///
/// Fails when the name is taken. A file system that cannot keep room is none that fails here.
pub fn create(folder: impl AsFd, name: &str, content: &[u8], room: u64) -> Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
    let made = rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o600));
    let file = File::from(made.with_context(|| format!("Making {name}"))?);
    let written = (|| {
        match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, room) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        (&file).write_all(content)?;
        file.sync_all()?;
        rustix::fs::fsync(&folder)?;
        anyhow::Ok(())
    })();
    if let Err(error) = written {
        let removed = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
        return Err(match removed {
            Ok(()) => error.context(format!("Writing {name}")),
            Err(removed) => error.context(format!(
                "Writing {name}, which could not be removed either ({removed})"
            )),
        });
    }
    Ok(file)
}

/// Appends to a file that was opened for that; a failure leaves the file as it was.
pub fn append(file: &File, content: &[u8]) -> Result<()> {
    let length = file.metadata()?.len();
    let written = (|| {
        let mut file = file;
        file.write_all(content)?;
        file.sync_data()
    })();
    if let Err(error) = written {
        file.set_len(length)?;
        return Err(error.into());
    }
    Ok(())
}

/// Gives the room back that was kept for a file and not used.
pub fn finish(file: &File) -> Result<()> {
    file.set_len(file.metadata()?.len())?;
    Ok(())
}

/// Makes or replaces a file in one step.
pub fn replace(folder: impl AsFd, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let scratch = format!(".{name}");
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(&folder, &scratch, flags, Mode::from_raw_mode(0o600));
    let mut file = File::from(file.with_context(|| format!("Making {scratch}"))?);
    let written = (|| {
        file.write_all(content)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        file.sync_all()?;
        rustix::fs::renameat(&folder, &scratch, &folder, name)?;
        rustix::fs::fsync(&folder)?;
        anyhow::Ok(())
    })();
    written.with_context(|| format!("Writing {name}"))
}

/// Returns what a file holds; none where there is no such file.
///
/// Fails on what is not a plain file, and on one that is larger than anything written here.
pub fn read(folder: impl AsFd, name: &str) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(&folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("Opening {name}")),
    };
    let metadata = file.metadata()?;
    anyhow::ensure!(
        metadata.is_file() && metadata.len() <= LARGEST,
        "{name} is no file of this program: it is no plain file, or too large"
    );
    let mut bytes = Vec::new();
    file.take(LARGEST)
        .read_to_end(&mut bytes)
        .with_context(|| format!("Reading {name}"))?;
    Ok(Some(bytes))
}

/// Returns the names of the plain files in a folder that end with `suffix`, sorted; scratch files are left out.
pub fn names(folder: impl AsFd, suffix: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        let is_plain = matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown);
        if is_plain && name.ends_with(suffix) && !name.starts_with('.') {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a file; one that is gone already is none that fails here.
pub fn remove(folder: impl AsFd, name: &str) -> Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("Removing {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_made_appended_replaced_and_listed() {
        let directory = tempfile::tempdir().unwrap();
        let parent = File::open(directory.path()).unwrap();
        let inside = folder(&parent, "inside", 0o750).unwrap();
        folder(&parent, "inside", 0o700).unwrap();
        let mode = |name: &str| {
            let metadata = std::fs::metadata(directory.path().join(name)).unwrap();
            metadata.permissions().mode() & 0o7777
        };
        assert_eq!(mode("inside"), 0o750, "a folder that is there is left as it is");
        let file = create(&inside, "1.jsonl", b"one\n", 1 << 14).unwrap();
        assert!(create(&inside, "1.jsonl", b"", 0).is_err(), "the name is taken");
        append(&file, b"two\n").unwrap();
        finish(&file).unwrap();
        assert_eq!(read(&inside, "1.jsonl").unwrap().unwrap(), b"one\ntwo\n");
        replace(&inside, "2.json", b"{}", 0o644).unwrap();
        replace(&inside, "2.json", b"[]", 0o644).unwrap();
        assert_eq!(read(&inside, "2.json").unwrap().unwrap(), b"[]");
        assert_eq!((mode("inside/1.jsonl"), mode("inside/2.json")), (0o600, 0o644));
        std::os::unix::fs::symlink("2.json", directory.path().join("inside/3.json")).unwrap();
        assert!(read(&inside, "3.json").is_err(), "no link is followed");
        std::fs::write(directory.path().join("inside/.4.json"), "").unwrap();
        assert_eq!(names(&inside, ".json").unwrap(), ["2.json"]);
        remove(&inside, "2.json").unwrap();
        remove(&inside, "2.json").unwrap();
        assert_eq!(read(&inside, "2.json").unwrap(), None);
    }
}
