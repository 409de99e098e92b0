//! What `fsck` finds: each finding with a code that stays the same, and with the data to mend it.

use crate::tree::Checksum;
use ostree_ext::ostree;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something does not work, or is not what was deployed.
    Error,
    /// Something works now and may fail later.
    Warning,
    /// Something is superfluous, or is as the image was made and worth knowing.
    Note,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// What sort of thing is wrong, in kebab case; never changes its meaning.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// The thing, by a name that is the same in each run.
    pub thing: String,
    /// One sentence without a full stop that names the thing and what is wrong with it.
    pub message: String,
    /// What to do about it beside `--repair`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether `--repair` mends it.
    pub repairable: bool,
    /// Whether it was mended, by what was seen afterwards.
    pub mended: bool,
    #[serde(skip)]
    pub(super) remedy: Option<Remedy>,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        code: &str,
        thing: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code: code.to_owned(),
            severity,
            thing: thing.into(),
            message: message.into(),
            hint: None,
            repairable: false,
            mended: false,
            remedy: None,
        }
    }

    pub(super) fn error(code: &str, thing: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, thing, message)
    }

    pub(super) fn warning(code: &str, thing: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, thing, message)
    }

    pub(super) fn note(code: &str, thing: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, thing, message)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn remedy(mut self, remedy: Remedy) -> Self {
        self.repairable = true;
        self.remedy = Some(remedy);
        self
    }

    /// Sets what `--repair` can do towards it, without a promise that this is enough.
    pub(super) fn attempt(mut self, remedy: Remedy) -> Self {
        self.remedy = Some(remedy);
        self
    }
}

/// What `--repair` does about a finding.
#[derive(Clone, Debug)]
pub(super) enum Remedy {
    /// Set an origin file aside that keeps libostree from loading the sysroot.
    SetAside(PathBuf),
    /// Remove a boot entry that leads nowhere.
    DropEntry(String),
    /// Make objects available again.
    Object(BadObject),
    /// Take the mark off a commit that is whole.
    Complete(String),
    /// Import the image with this manifest digest again.
    FetchImage(String),
    /// Remove a ref that names nothing.
    DropRef(String),
    /// Make the refs anew that keep what deployments need.
    Hold,
    /// Put a file or folder of `/usr` back as it is in the commit.
    Restore(Restore),
    /// Drop the data of a staged deployment that libostree cannot read.
    DropStaged,
    /// Make the top folder of a deployment immutable.
    SetImmutable(String),
    /// Write the boot entry of a deployment that has lost it.
    RestoreEntry(LostEntry),
    /// Make a boot entry load a kernel from another folder below `/boot`.
    PointEntry {
        /// The entry's file name.
        entry: String,
        /// What it loads now.
        path: String,
        /// The right folder.
        folder: PathBuf,
    },
    /// Copy a kernel or an initramfs from the deployment to `/boot`.
    CopyBootFile {
        /// The file in the deployment, below the sysroot.
        from: PathBuf,
        /// Its place below `/boot`.
        to: PathBuf,
    },
    /// Write our GRUB script.
    WriteScript,
    /// Remove a folder that a killed run left in the repository's `tmp`.
    RemoveScratch(String),
    /// Close the records of transactions that were interrupted, and remove what they left.
    Recover,
    /// Let libostree remove what belongs to no deployment and write its refs.
    CleanUp,
}

/// An object that is missing or damaged, and who needs it.
#[derive(Clone, Debug)]
pub(super) struct BadObject {
    pub(super) kind: ostree::ObjectType,
    pub(super) checksum: Checksum,
    pub(super) is_corrupt: bool,
    /// A whole copy of it: a file of a deployment, below the sysroot.
    pub(super) copy: Option<PathBuf>,
    /// The commits that need it.
    pub(super) holders: Vec<String>,
}

/// A deployment that has its link for booting and no boot entry.
#[derive(Clone, Debug)]
pub(super) struct LostEntry {
    pub(super) stateroot: String,
    pub(super) commit: String,
    pub(super) serial: i32,
    /// What names its kernel and initramfs.
    pub(super) bootcsum: String,
    pub(super) bootserial: i32,
}

/// A file or a folder of a deployment that is put back.
#[derive(Clone, Debug)]
pub(super) struct Restore {
    /// The deployment's folder, below the sysroot.
    pub(super) folder: PathBuf,
    /// The path in it.
    pub(super) path: String,
    pub(super) what: Content,
    pub(super) commit: String,
}

/// What is put back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// The file or link of this object.
    File(Checksum),
    /// A folder with all that is in it.
    Folder,
    /// Owner and permissions of a folder.
    Attributes { uid: u32, gid: u32, mode: u32 },
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Checked {
    /// Objects of the repository.
    pub objects: u64,
    /// Refs.
    pub refs: u64,
    /// Deployments.
    pub deployments: u64,
    /// Files below their `/usr`.
    pub files: u64,
    /// Boot entries.
    pub boot_entries: u64,
    /// Installed packages.
    pub packages: u64,
}

/// Collects findings while a sysroot is looked at.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
    pub(super) checked: Checked,
    unread: BTreeMap<&'static str, (u64, String)>,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        self.list.push(finding);
    }

    /// Notes that the caller has no right to read something; `what` is its kind in the plural.
    pub(super) fn unread(&mut self, what: &'static str, example: impl Into<String>) {
        let entry = self.unread.entry(what).or_insert_with(|| (0, example.into()));
        entry.0 += 1;
    }

    /// Notes that a whole subject could not be looked at.
    pub(super) fn failed(&mut self, what: &'static str, error: &anyhow::Error) {
        if is_denied(error) {
            self.unread(what, format!("{error:#}"));
        } else {
            let message = format!("The {what} could not be checked: {error:#}");
            self.push(Finding::error("not-checked", what, message));
        }
    }

    /// Returns everything, the worst first.
    pub(super) fn into_sorted(mut self) -> (Vec<Finding>, Checked) {
        for (what, (count, example)) in std::mem::take(&mut self.unread) {
            let message = format!("The caller has no right to read {count} of the {what}, such as {example}");
            self.push(Finding::note("unreadable", what, message).hint("run it as root"));
        }
        self.list
            .sort_by(|a, b| (a.severity, &a.code, &a.thing).cmp(&(b.severity, &b.code, &b.thing)));
        (self.list, self.checked)
    }
}

/// Returns whether an error means that the caller lacks a right.
pub(super) fn is_denied(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        let errno = cause.downcast_ref::<rustix::io::Errno>();
        let glib = cause.downcast_ref::<ostree_ext::glib::Error>();
        io.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
            || errno
                .is_some_and(|error| matches!(*error, rustix::io::Errno::ACCESS | rustix::io::Errno::PERM))
            || glib.is_some_and(|error| error.matches(ostree_ext::gio::IOErrorEnum::PermissionDenied))
    })
}
