//! The one way in which programs of an image or a package are run: bubblewrap around the root they belong to.
//!
//! What runs inside sees that root and nothing else: no network, no host `/run`, `/tmp`, `/sys`, D-Bus or process,
//! an own host name, six devices, and seven capabilities, which are what Debian's maintainer scripts need. It ends
//! with this process. Nothing is passed on from this process's environment.

use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use rustix::fs::MemfdFlags;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a script may do as root, within its root. Without SETFCAP, some packages fall back to setuid programs.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETFCAP",
];

/// Where everything that this program puts into a sandbox stands.
pub const PLACE: &str = "/run/apt-ostree";

/// What the kernel lets root change through `/proc` without a capability; bubblewrap covers only a part of it.
const READ_ONLY: &[&str] = &[
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
    "/proc/scsi",
    "/proc/acpi",
    "/proc/mtrr",
];

const STUBS: &str = "/run/apt-ostree/stubs";
const STUB_LOG: &str = "/run/apt-ostree/stub-log";

/// Replaces programs that have nothing to do in an image that does not run; says so in a file.
const STUB: &[u8] = include_bytes!("sandbox_stub.sh");

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The host name inside; programs write it into files, so it must always be the same.
const HOST_NAME: &str = "localhost";

/// The first descriptor that a sandbox is given.
const FIRST_DESCRIPTOR: i32 = 100;

/// A root in which programs are to be run.
#[derive(Debug)]
pub struct Sandbox {
    root: PathBuf,
    mounts: Vec<OsString>,
    variables: Vec<(String, String)>,
    files: Vec<Arc<OwnedFd>>,
    search_path: String,
}

impl Sandbox {
    /// Returns a sandbox around the root directory `root`, which programs may change.
    ///
    /// Fails when the files that are laid over the root's own cannot be made.
    pub fn new(root: &Path) -> Result<Self> {
        let mut sandbox = Self {
            root: root.to_owned(),
            mounts: Vec::new(),
            variables: Vec::new(),
            files: Vec::new(),
            search_path: SEARCH_PATH.to_owned(),
        };
        // What a build left there would get into files that packages generate.
        for (path, text) in [
            ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
            ("etc/resolv.conf", ""),
        ] {
            // Binding over what is missing would make a file in the root.
            if is_plain_file(root, path) {
                sandbox = sandbox.file(text.as_bytes(), &format!("/{path}"), 0o644)?;
            }
        }
        Ok(sandbox
            .variable("DEBIAN_FRONTEND", "noninteractive")
            .variable("DEBCONF_NONINTERACTIVE_SEEN", "true")
            .variable("DEBCONF_NOWARNINGS", "yes")
            .variable("SYSTEMD_OFFLINE", "1")
            .variable("INITRD", "No")
            .variable("LC_ALL", "C.UTF-8")
            .variable("HOME", "/root")
            .variable("TMPDIR", "/tmp")
            .variable("UCF_FORCE_CONFFOLD", "1"))
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Shows `from` of the host at `to`, to be read.
    #[must_use]
    pub fn show(mut self, from: &Path, to: &str) -> Self {
        self.mounts.extend(["--ro-bind".into(), from.into(), to.into()]);
        self
    }

    /// Shows a file with these bytes at `to`, to be read; it is in memory only.
    pub fn file(mut self, bytes: &[u8], to: &str, mode: u32) -> Result<Self> {
        let mut file = File::from(rustix::fs::memfd_create("sandbox", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)
            .and_then(|()| file.rewind())
            .with_context(|| format!("Making {to} of a sandbox"))?;
        let number = FIRST_DESCRIPTOR + i32::try_from(self.files.len())?;
        self.mounts.extend(
            [
                "--perms",
                &format!("{mode:04o}"),
                "--ro-bind-data",
                &number.to_string(),
                to,
            ]
            .map(OsString::from),
        );
        self.files.push(Arc::new(file.into()));
        Ok(self)
    }

    /// Lets the named programs do nothing but write their command line to the file `log` of the host.
    pub fn stubs(mut self, names: &[&str], log: &Path) -> Result<Self> {
        File::create(log).with_context(|| format!("Making {}", log.display()))?;
        self = self.file(STUB, &format!("{STUBS}/.stub"), 0o755)?;
        for name in names {
            self.mounts
                .extend(["--symlink", ".stub", &format!("{STUBS}/{name}")].map(OsString::from));
        }
        self.mounts
            .extend(["--bind".into(), log.into(), OsString::from(STUB_LOG)]);
        self.search_path = format!("{STUBS}:{SEARCH_PATH}");
        Ok(self)
    }

    /// Returns a command that runs `program` of the root in it.
    pub fn command(self, program: &str) -> Cmd {
        let mut cmd = Cmd::new("bwrap").args([
            "--unshare-pid",
            "--unshare-net",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
            "--die-with-parent",
            "--new-session",
            "--hostname",
            HOST_NAME,
            "--cap-drop",
            "ALL",
        ]);
        for capability in CAPABILITIES {
            cmd = cmd.args(["--cap-add", capability]);
        }
        cmd = cmd.arg("--bind").arg(&self.root).arg("/").args([
            "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run", "--perms", "1777", "--tmpfs", "/tmp",
        ]);
        for path in READ_ONLY {
            cmd = cmd.args(["--ro-bind-try", path, path]);
        }
        // An empty folder, read only, where a root has one for sysfs.
        if self.root.join("sys").is_dir() {
            cmd = cmd.args(["--tmpfs", "/sys", "--remount-ro", "/sys"]);
        }
        cmd = cmd.args(self.mounts).args(["--chdir", "/", "--clearenv"]);
        cmd = cmd.args(["--setenv", "PATH", &self.search_path]);
        for (name, value) in &self.variables {
            cmd = cmd.args(["--setenv", name, value]);
        }
        for (number, file) in (FIRST_DESCRIPTOR..).zip(self.files) {
            cmd = cmd.descriptor(file, number);
        }
        cmd.arg("--").arg(program)
    }
}

/// Returns whether a file stands there, without following a link.
fn is_plain_file(root: &Path, path: &str) -> bool {
    std::fs::symlink_metadata(root.join(path)).is_ok_and(|found| found.is_file())
}
