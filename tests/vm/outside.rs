//! A host whose machine is off: the program works on its disk from outside, at full speed.

use crate::support::apt_ostree;
use crate::support::debian::in_private_mounts;
use crate::support::home::Home;
use apt_ostree::compose::disk::Layout;
use apt_ostree::host::loop_device::{LoopDevice, Mount};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The root file system of a disk that no machine uses.
pub(crate) struct Outside<'a> {
    name: &'a str,
    sysroot: &'a Path,
    home: Home,
}

impl Outside<'_> {
    /// Mounts the root partition of `disk` where nobody else sees it, for as long as the work takes.
    pub(crate) fn of(name: &str, disk: &Path, work: impl FnOnce(&Outside) + Send) {
        in_private_mounts(|| {
            let sysroot = tempfile::tempdir().expect("directory");
            let size = std::fs::metadata(disk).expect("disk").len();
            let (offset, length) = Layout::of(size).root;
            let device = LoopDevice::attach(disk, offset, length).expect("loop device");
            let mount = Mount::new(device.path(), sysroot.path(), "ext4").expect("mount");
            work(&Outside {
                name,
                sysroot: sysroot.path(),
                home: Home::new(),
            });
            mount.unmount().expect("unmount");
        });
    }

    /// Runs the program on the host and returns what it wrote; the test fails when the program does.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &str) -> String {
        let start = Instant::now();
        let output = apt_ostree(&self.home)
            .arg("--sysroot")
            .arg(self.sysroot)
            .args(arguments.split(' '))
            .run_text();
        crate::tell(&format!(
            "{}:   {:.0?} outside for {arguments}",
            self.name,
            start.elapsed()
        ));
        output.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Returns `/etc` of the only deployment.
    pub(crate) fn etc(&self) -> PathBuf {
        let deployments = self.sysroot.join("ostree/deploy/debian/deploy");
        let entries = std::fs::read_dir(deployments).expect("deployments");
        let paths = entries.map(|entry| entry.expect("entry").path());
        let roots: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
        assert_eq!(roots.len(), 1, "{roots:?}");
        roots[0].join("etc")
    }
}
