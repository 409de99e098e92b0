//! One writer at a time: who holds the lock of a sysroot.
//!
//! libostree takes the lock itself (an open file description lock on `ostree/lock`, so the kernel does not tell
//! the owner); this module finds the owner by looking for who has that file open.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that holds a file open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its command line, words joined by spaces.
    pub command: String,
}

/// Returns another process that has `file` open, if one can be seen.
///
/// Processes of other users are only visible to root; a process that ends meanwhile is passed over.
pub fn holder_of(file: &Path) -> Option<Holder> {
    let wanted = std::fs::metadata(file).ok()?;
    let me = std::process::id();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if pid == me {
            continue;
        }
        let Ok(descriptors) = std::fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let holds = descriptors
            .flatten()
            .filter_map(|descriptor| std::fs::metadata(descriptor.path()).ok())
            .any(|found| found.ino() == wanted.ino() && found.dev() == wanted.dev());
        if holds {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<_> = command
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            return Some(Holder {
                pid,
                command: words.join(" ").trim().to_owned(),
            });
        }
    }
    None
}

/// Returns who changes the sysroot at `root` right now: command, process id, and nothing where a watcher could attach.
///
/// Asks the kernel for locks first, because looking for the owner takes long on a busy machine.
pub fn writer(root: &Path) -> Option<[String; 3]> {
    let file = root.join("ostree/lock");
    let inode = std::fs::metadata(&file).ok()?.ino().to_string();
    if let Ok(locks) = std::fs::read_to_string("/proc/locks") {
        // NUMBER: OFDLCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END
        let is_held = locks.lines().any(|line| {
            let place = line.split_ascii_whitespace().nth(5);
            place.and_then(|place| place.rsplit(':').next()) == Some(inode.as_str())
        });
        if !is_held {
            return None;
        }
    }
    let holder = holder_of(&file)?;
    Some([holder.command, holder.pid.to_string(), String::new()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_process_that_has_the_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(holder_of(&path), None, "our own descriptors do not count");
        #[expect(clippy::disallowed_methods, reason = "the test needs a child that stays")]
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(file)
            .spawn()
            .unwrap();
        let holder = (0..100).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            holder_of(&path).filter(|holder| holder.command.starts_with("sleep"))
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(holder.map(|holder| holder.command), Some("sleep 60".to_owned()));
    }
}
