//! Tells that something changed in some folders, without looking again and again.

use anyhow::{Context, Result};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;

/// Room for the events of one read.
const BUFFER: usize = 4096;

/// Returns what is told, once, when an entry of one of the folders comes or goes, or the folder's own times change.
///
/// What happens after this call counts. A folder that is not there is passed over.
pub fn next_change(folders: impl IntoIterator<Item = PathBuf>) -> Result<oneshot::Receiver<Result<()>>> {
    let queue = inotify::init(CreateFlags::CLOEXEC).context("Watching for changes")?;
    for folder in folders {
        add(&queue, &folder)?;
    }
    let (sender, receiver) = oneshot::channel();
    // A thread that waits for ever ends with the process; tasks of a runtime would hold up its end.
    std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || {
            let mut buffer = [MaybeUninit::uninit(); BUFFER];
            let seen = Reader::new(&queue, &mut buffer).next().map(drop);
            // Who wanted to know may have left.
            sender.send(seen.context("Reading what changed")).ok();
        })
        .context("Watching for changes")?;
    Ok(receiver)
}

fn add(queue: &OwnedFd, folder: &Path) -> Result<()> {
    let flags = WatchFlags::ATTRIB
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::ONLYDIR;
    match inotify::add_watch(queue, folder, flags) {
        Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("Watching {}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut change = next_change([folder.path().to_owned(), folder.path().join("none")]).unwrap();
        assert!(change.try_recv().is_err());
        std::fs::write(folder.path().join("a"), "").unwrap();
        change.blocking_recv().unwrap().unwrap();
    }
}
