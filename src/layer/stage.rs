//! The place where a derived commit comes into being: the base's tree below an overlay, in the repository's `tmp/`.
//!
//! ```text
//! <repo>/tmp/apt-ostree-layer.N    0700, locked by the process that uses it
//!     checkout/                    the base commit, hard links to the repository's objects: never written to
//!     places/etc                   the empty folder at which /etc is shown
//!     upper/ work/                 what was written, and the kernel's own
//!     root/                        checkout and upper merged, with usr/etc shown at /etc as well
//!     temporary/                   room for files of this run
//! ```
//!
//! The mounts belong to the private mount namespace of the process. A process that is killed leaves the folder, and
//! the next [`Stage::open`] removes it.

use crate::host::{folder, mounts};
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use ostree_ext::{gio, ostree};
use rustix::fs::Mode;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const PREFIX: &str = "apt-ostree-layer.";

/// The tree of a base commit, ready to be changed; removed when dropped.
#[derive(Debug)]
pub struct Stage {
    temporary: OwnedFd,
    name: String,
    /// Held for its lock.
    _folder: OwnedFd,
    paths: Paths,
    root: Option<Dir>,
    mounted: Vec<PathBuf>,
}

#[derive(Debug)]
struct Paths {
    base: PathBuf,
    root: PathBuf,
    upper: PathBuf,
    scratch: PathBuf,
}

impl Stage {
    /// Checks out the commit `base` with hard links and mounts an overlay over it; removes what killed runs left.
    ///
    /// Must be called in a private mount namespace ([`mounts::enter_private`]) and as root. Fails when the commit is
    /// missing, when the repository's files cannot be hard-linked, or when its file system cannot hold an overlay;
    /// nothing is left behind then.
    #[context("Preparing a place to layer in")]
    pub fn open(repo: &ostree::Repo, base: &str) -> Result<Self> {
        remove_stale(repo)?;
        let (path, temporary) = temporary_folder(repo)?;
        let (name, folder) = folder::create(temporary.as_fd(), PREFIX)?;
        let path = path.join(&name);
        let mut stage = Self {
            temporary,
            name,
            _folder: folder.try_clone()?,
            paths: Paths {
                base: path.join("checkout"),
                root: path.join("root"),
                upper: path.join("upper"),
                scratch: path.join("temporary"),
            },
            root: None,
            mounted: Vec::new(),
        };
        check_out(repo, base, &folder)?;
        stage.mount(&folder)?;
        Ok(stage)
    }

    fn mount(&mut self, folder: &OwnedFd) -> Result<()> {
        for (name, mode) in [
            ("places", 0o755),
            ("places/etc", 0o755),
            ("upper", 0o755),
            ("work", 0o755),
            ("root", 0o755),
            ("temporary", 0o700),
        ] {
            rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(mode))
                .with_context(|| format!("Making the folder {name}"))?;
        }
        let checkout = folder::open(folder, "checkout")?;
        let places = folder::open(folder, "places")?;
        let (upper, work) = (folder::open(folder, "upper")?, folder::open(folder, "work")?);
        // The root directory of the merged view has the owner and the mode of the upper one.
        copy_attributes(&checkout, &upper)?;
        let overlay = mounts::Overlay {
            lower: &[checkout.as_fd(), places.as_fd()],
            upper: upper.as_fd(),
            work: work.as_fd(),
        };
        mounts::overlay(overlay, folder::open(folder, "root")?.as_fd())?;
        self.mounted.push(self.paths.root.clone());
        let root = Dir::open_ambient_dir(&self.paths.root, ambient_authority())?;
        // One folder at a time, so that no link of the image leads elsewhere.
        let source = folder::open(folder::open(&root, "usr")?, "etc")?;
        mounts::bind(source, folder::open(&root, "etc")?)?;
        self.mounted.push(self.paths.root.join("etc"));
        self.root = Some(root);
        Ok(())
    }

    /// Returns the pristine tree of the base, with `/etc` at `usr/etc`. Its files are hard links: read only.
    pub fn base(&self) -> &Path {
        &self.paths.base
    }

    /// Returns the merged tree, with `/etc`.
    pub fn root(&self) -> &Path {
        &self.paths.root
    }

    /// Returns the merged tree as a handle.
    #[expect(clippy::expect_used, reason = "open fails unless it is there")]
    pub fn dir(&self) -> &Dir {
        self.root.as_ref().expect("a mounted root")
    }

    /// Returns what differs from the base, in overlayfs's own form; `/etc` stands at `usr/etc`.
    pub fn upper(&self) -> &Path {
        &self.paths.upper
    }

    /// Returns a folder of mode 0700 for files that go with the stage.
    pub fn scratch(&self) -> &Path {
        &self.paths.scratch
    }

    /// Unmounts and removes everything; dropping does the same and only logs what fails.
    pub fn close(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        drop(self.root.take());
        while let Some(path) = self.mounted.last() {
            mounts::detach(path)?;
            self.mounted.pop();
        }
        if self.name.is_empty() {
            return Ok(());
        }
        let name = std::mem::take(&mut self.name);
        folder::remove_tree(self.temporary.as_fd(), &name)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            tracing::warn!("removing a folder that layering used: {error:#}");
        }
    }
}

/// Removes the folders of runs that were killed.
#[context("Removing what killed runs of layering left")]
pub fn remove_stale(repo: &ostree::Repo) -> Result<()> {
    let (_, temporary) = temporary_folder(repo)?;
    for entry in rustix::fs::Dir::read_from(&temporary)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if name.starts_with(PREFIX) && folder::lock(temporary.as_fd(), name)?.is_some() {
            folder::remove_tree(temporary.as_fd(), name)?;
        }
    }
    Ok(())
}

/// Opens the repository's folder for scratch files.
///
/// By its path, not by the repository's handle: that may come from before the mount namespace was entered.
fn temporary_folder(repo: &ostree::Repo) -> Result<(PathBuf, OwnedFd)> {
    let path = rustix::fs::readlinkat(
        rustix::fs::CWD,
        format!("/proc/self/fd/{}", repo.dfd_borrow().as_raw_fd()),
        Vec::new(),
    )?;
    let path = Path::new(OsStr::from_bytes(path.as_bytes())).join("tmp");
    let temporary = folder::open(rustix::fs::CWD, path.as_path())?;
    Ok((path, temporary))
}

#[context("Checking out the commit {base}")]
fn check_out(repo: &ostree::Repo, base: &str, folder: &OwnedFd) -> Result<()> {
    let options = ostree::RepoCheckoutAtOptions {
        no_copy_fallback: true,
        ..Default::default()
    };
    repo.checkout_at(
        Some(&options),
        folder.as_raw_fd(),
        "checkout",
        base,
        gio::Cancellable::NONE,
    )?;
    Ok(())
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let model = rustix::fs::fstat(from)?;
    rustix::fs::fchown(
        to,
        Some(rustix::fs::Uid::from_raw(model.st_uid)),
        Some(rustix::fs::Gid::from_raw(model.st_gid)),
    )?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(model.st_mode & 0o7777))?;
    Ok(())
}
