//! What a commit holds, read from the repository without a checkout.

use crate::boot::kargs_d;
use crate::boot::loader::grub_safe;
use crate::fault::{Fault, Kind};
use anyhow::{Context, Result, anyhow};
use fn_error_context::context;
use ostree_ext::prelude::{Cast, FileEnumeratorExt, FileExt, InputStreamExtManual};
use ostree_ext::{gio, ostree};
use std::io::Read;

/// The tree of one commit.
#[derive(Debug)]
pub struct CommitTree {
    repo: ostree::Repo,
    root: gio::File,
}

impl CommitTree {
    /// Opens the tree of a commit; fails when the commit is not in the repository.
    #[context("Opening the commit {commit}")]
    pub fn open(repo: &ostree::Repo, commit: &str) -> Result<Self> {
        let (root, _) = repo.read_commit(commit, gio::Cancellable::NONE)?;
        Ok(Self {
            repo: repo.clone(),
            root,
        })
    }

    /// Returns a file's bytes; none when there is no such file.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let file = self.root.resolve_relative_path(path);
        if file.query_file_type(gio::FileQueryInfoFlags::NOFOLLOW_SYMLINKS, gio::Cancellable::NONE)
            != gio::FileType::Regular
        {
            return Ok(None);
        }
        // libostree's files are no seekable streams to GIO, so they are read through the repository.
        let file = file
            .downcast::<ostree::RepoFile>()
            .map_err(|_| anyhow!("{path} is not in a repository"))?;
        let (stream, _, _) = self.repo.load_file(&file.checksum(), gio::Cancellable::NONE)?;
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            stream
                .into_read()
                .read_to_end(&mut bytes)
                .with_context(|| format!("Reading {path}"))?;
        }
        Ok(Some(bytes))
    }

    /// Returns a file's text; none when there is no such file.
    pub fn read_text(&self, path: &str) -> Result<Option<String>> {
        let Some(bytes) = self.read(path)? else {
            return Ok(None);
        };
        String::from_utf8(bytes)
            .map(Some)
            .with_context(|| format!("Reading {path} as text"))
    }

    /// Returns whether there is a regular file at the path.
    pub fn is_file(&self, path: &str) -> bool {
        let file = self.root.resolve_relative_path(path);
        file.query_file_type(gio::FileQueryInfoFlags::NOFOLLOW_SYMLINKS, gio::Cancellable::NONE)
            == gio::FileType::Regular
    }

    /// Returns the sorted names in a folder; none at all when there is no such folder.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        let folder = self.root.resolve_relative_path(path);
        if folder.query_file_type(gio::FileQueryInfoFlags::NOFOLLOW_SYMLINKS, gio::Cancellable::NONE)
            != gio::FileType::Directory
        {
            return Ok(Vec::new());
        }
        let entries = folder
            .enumerate_children(
                "standard::name",
                gio::FileQueryInfoFlags::NOFOLLOW_SYMLINKS,
                gio::Cancellable::NONE,
            )
            .with_context(|| format!("Listing {path}"))?;
        let mut names = Vec::new();
        while let Some(info) = entries.next_file(gio::Cancellable::NONE)? {
            names.push(info.name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Returns the kernel arguments the tree asks for; fails on a file that cannot be used.
    #[context("Reading the image's kernel arguments")]
    pub fn kernel_arguments(&self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        for name in self.list(kargs_d::FOLDER)? {
            if !name.ends_with(".toml") {
                continue;
            }
            if let Some(text) = self.read_text(&format!("{}/{name}", kargs_d::FOLDER))? {
                words.extend(kargs_d::parse(&name, &text, std::env::consts::ARCH)?);
            }
        }
        Ok(words)
    }

    /// Returns the version of the one kernel of the tree, after checking that the tree can boot.
    ///
    /// Fails when there is no kernel or more than one, when the initramfs is missing, when the commit still holds
    /// `/etc`, and when the title of its boot entry would be read as script by GRUB.
    pub fn require_bootable(&self) -> Result<String, anyhow::Error> {
        let mut kernels = Vec::new();
        for version in self.list("usr/lib/modules")? {
            if self.is_file(&format!("usr/lib/modules/{version}/vmlinuz")) {
                kernels.push(version);
            }
        }
        let remedy = "run `apt-ostree container prepare` as the last step of the image's Containerfile";
        let kernel = match kernels.as_slice() {
            [kernel] => kernel.clone(),
            [] => {
                return Err(Fault::new(
                    Kind::Unsupported,
                    "The image holds no kernel below /usr/lib/modules",
                )
                .hint(remedy)
                .into());
            }
            several => {
                let list = several.join(", ");
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!("The image holds more than one kernel: {list}"),
                )
                .hint("remove all but one kernel package in the image's Containerfile")
                .into());
            }
        };
        if !self.is_file(&format!("usr/lib/modules/{kernel}/initramfs.img")) {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("The image has no /usr/lib/modules/{kernel}/initramfs.img"),
            )
            .hint(remedy)
            .into());
        }
        self.check_title()?;
        Ok(kernel)
    }

    /// libostree makes the title of the boot entry from os-release, and GRUB reads the entry as script.
    fn check_title(&self) -> Result<()> {
        let Some(text) = self.read_text("usr/lib/os-release")? else {
            return Ok(());
        };
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            if !matches!(key, "PRETTY_NAME" | "ID" | "NAME" | "VERSION") {
                continue;
            }
            let value = value.trim().trim_matches('"').trim_matches('\'');
            if let Err(c) = grub_safe(value) {
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!(
                        "The image's os-release holds {key}={value}, whose `{c}` GRUB would read as script"
                    ),
                )
                .hint(format!(
                    "give {key} plain words in the image's /usr/lib/os-release"
                ))
                .into());
            }
        }
        Ok(())
    }
}
