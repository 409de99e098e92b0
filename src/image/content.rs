//! What a commit holds, read from the repository without a checkout.

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

    /// Returns what a symbolic link says; none when there is no link.
    pub fn read_link(&self, path: &str) -> Result<Option<String>> {
        let file = self.root.resolve_relative_path(path);
        let nofollow = gio::FileQueryInfoFlags::NOFOLLOW_SYMLINKS;
        if file.query_file_type(nofollow, gio::Cancellable::NONE) != gio::FileType::SymbolicLink {
            return Ok(None);
        }
        let info = file
            .query_info("standard::symlink-target", nofollow, gio::Cancellable::NONE)
            .with_context(|| format!("Reading the link {path}"))?;
        Ok(info
            .symlink_target()
            .map(|target| target.to_string_lossy().into_owned()))
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
}
