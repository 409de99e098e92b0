//! Makes the pipes of this process larger, because another library hides their descriptors.

use rustix::fs::{Mode, OFlags, open};
use std::os::unix::fs::PermissionsExt;

/// Asks for `size` bytes of room in every pipe that this process reads from.
///
/// A default pipe holds 64 KiB, so that at each of them writer and reader wait for each other to be scheduled.
/// What cannot be enlarged, for example beyond an ordinary user's limit, stays as it is and works too.
pub fn enlarge(size: usize) {
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    for path in descriptors.filter_map(|entry| Some(entry.ok()?.path())) {
        // The permissions of the link are those of the descriptor: a write end belongs to somebody else's reading.
        let is_read_end =
            std::fs::symlink_metadata(&path).is_ok_and(|link| link.permissions().mode() & 0o200 == 0);
        let is_pipe = std::fs::read_link(&path)
            .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"pipe:["));
        if !is_pipe || !is_read_end {
            continue;
        }
        // The opened end is another one of the same pipe; a pipe's size belongs to the pipe.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        if let Ok(pipe) = open(&path, flags, Mode::empty()) {
            if rustix::pipe::fcntl_getpipe_size(&pipe).is_ok_and(|now| now < size) {
                rustix::pipe::fcntl_setpipe_size(&pipe, size).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_ends_grow() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let wanted = 256 * 1024;
        assert!(rustix::pipe::fcntl_getpipe_size(&read).unwrap() < wanted);
        enlarge(wanted);
        assert_eq!(rustix::pipe::fcntl_getpipe_size(&read).unwrap(), wanted);
    }
}
