//! From a finished stage to the derived commit.

use super::record::{KEY_BASE, KEY_RECORD, Record};
use super::stage::Stage;
use super::upper;
use crate::host::folder;
use crate::image::commit::{self, Commit};
use crate::image::gc;
use crate::image::object::ObjectStore;
use anyhow::{Context, Result};
use fn_error_context::context;
use ostree_ext::{gio, ostree};
use rustix::fs::Mode;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Where new objects wait, in the stage's scratch folder.
const OBJECTS: &str = "objects";

/// Writes the stage's changes over its base as a commit and returns the commit's name.
///
/// The commit tells of the image what the base tells, names the base and carries `record`. No ref names it: whoever
/// deploys it does. When this fails, nothing of it is in the repository but objects that the next collection removes.
#[context("Writing the derived commit")]
pub fn commit(repo: &ostree::Repo, base: &str, stage: &Stage, record: &Record) -> Result<String> {
    let scratch = inside(repo, stage.scratch())?;
    rustix::fs::mkdirat(&scratch, OBJECTS, Mode::from_raw_mode(0o700))
        .context("Making the folder for new objects")?;
    let store = ObjectStore::open(repo, folder::open(&scratch, OBJECTS)?)?;
    let below = Commit::load(repo, base)?;
    let mut root = below.root.clone();
    root.apply(upper::read(&inside(repo, stage.upper())?, &store)?, true, &store)?;
    root.store(&store)?;
    let transaction = repo.auto_transaction(gio::Cancellable::NONE)?;
    store.publish(!repo.is_disable_fsync())?;
    let added = BTreeMap::from([
        (KEY_BASE, base.to_owned()),
        (KEY_RECORD, serde_json::to_string(record)?),
    ]);
    let name = commit::write_derived(repo, &below, base, added, &root)?;
    gc::note(repo, [name.as_str()]);
    transaction
        .commit(gio::Cancellable::NONE)
        .context("Committing the transaction")?;
    if commit::is_whole(repo, base)? {
        // The same commit may have lacked objects before.
        repo.mark_commit_partial(&name, false)?;
    }
    Ok(name)
}

/// Opens a folder of the stage by the repository's own handle: objects get their names from there, which works on one
/// and the same mount only.
fn inside(repo: &ostree::Repo, path: &Path) -> Result<OwnedFd> {
    let stage = path.parent().and_then(Path::file_name);
    let stage = stage.context("The stage's folder has no name")?;
    let name = path.file_name().context("A folder of the stage has no name")?;
    folder::open(
        repo.dfd_borrow(),
        Path::new("tmp").join(stage).join(name).as_path(),
    )
}
