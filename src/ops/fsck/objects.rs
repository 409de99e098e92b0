//! The objects of the repository: each one that a deployment, an image, a layer or another ref needs is there and is
//! what its name says.

use super::census::{Census, Search};
use super::finding::{BadObject, Finding, Findings, Remedy};
use super::images::{self, KnownImage};
use super::site::Site;
use crate::image::commit;
use crate::layer::record;
use crate::report::Report;
use crate::tree::Checksum;
use anyhow::{Context, Result};
use ostree_ext::{gio, ostree};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// An object by its kind and its name.
pub(super) type Object = (ostree::ObjectType, Checksum);

/// Looks at every object that is needed; `quick` does not read files.
pub(super) fn check(
    site: &Site<'_>,
    quick: bool,
    report: &dyn Report,
    findings: &mut Findings,
) -> Result<()> {
    let commits = commits(site)?;
    let mut census = Census::new(&site.repo, quick);
    for commit in commits.keys() {
        census.commit(commit)?;
    }
    census.files(report)?;
    findings.checked.objects += census.seen.len() as u64;
    for object in &census.unread {
        findings.unread("objects", shown(object));
    }
    partial(site, &commits, &census, findings)?;
    if census.bad.is_empty() {
        return Ok(());
    }
    let images = images::known(site)?;
    let mut needed = BTreeMap::new();
    for commit in commits.keys() {
        Search::new(&site.repo, &census.bad).commit(commit, &mut needed);
    }
    for (object, is_corrupt) in &census.bad {
        let holders = needed.remove(object).unwrap_or_default();
        let is_deployed = holders
            .keys()
            .any(|holder| commits.get(holder).is_some_and(|needed| needed.is_deployed));
        if object.0 == ostree::ObjectType::Commit && !*is_corrupt && !is_deployed {
            // A ref that names nothing, which is told with the refs.
            continue;
        }
        findings.push(describe(site, &commits, &images, *object, *is_corrupt, holders));
    }
    Ok(())
}

/// Commits with whoever needs them.
type Commits = BTreeMap<String, Needed>;

/// Who needs a commit.
#[derive(Debug, Default)]
struct Needed {
    /// In words, deployments first.
    names: Vec<String>,
    /// Whether a deployment does.
    is_deployed: bool,
}

/// Returns every commit that something names.
fn commits(site: &Site<'_>) -> Result<Commits> {
    let mut commits = Commits::new();
    let mut add = |commit: &str, name: String, is_deployed: bool| {
        let needed = commits.entry(commit.to_owned()).or_default();
        needed.names.push(name);
        needed.is_deployed |= is_deployed;
    };
    for found in &site.deployments {
        add(&found.commit, format!("the deployment {}", found.id), true);
        // A commit that cannot be read has no base that could be named; the commit itself is found wanting.
        if let Ok(base) = record::base_of(&site.repo, &found.commit) {
            if base != found.commit {
                add(
                    &base,
                    format!("the image below the deployment {}", found.id),
                    true,
                );
            }
        }
    }
    for (name, commit) in super::refs::all(&site.repo)? {
        add(&commit, format!("the ref {name}"), false);
    }
    Ok(commits)
}

/// Tells of commits that are marked as incomplete.
fn partial(site: &Site<'_>, commits: &Commits, census: &Census<'_>, findings: &mut Findings) -> Result<()> {
    for (commit, needed) in commits {
        let object = (ostree::ObjectType::Commit, commit.parse()?);
        if census.bad.contains_key(&object) || commit::is_whole(&site.repo, commit)? {
            continue;
        }
        let message = format!(
            "The commit {commit} of {} is marked as incomplete",
            needed.names[0]
        );
        let finding = Finding::warning("commit-partial", format!("{commit} (mark)"), message);
        let mut lacking = BTreeMap::new();
        Search::new(&site.repo, &census.bad).commit(commit, &mut lacking);
        findings.push(match lacking.is_empty() && census.unread.is_empty() {
            true => finding.remedy(Remedy::Complete(commit.clone())),
            false => finding,
        });
    }
    Ok(())
}

fn describe(
    site: &Site<'_>,
    commits: &Commits,
    images: &[KnownImage],
    object: Object,
    is_corrupt: bool,
    holders: BTreeMap<String, String>,
) -> Finding {
    let place = |(commit, path): (&String, &String)| {
        let names = commits.get(commit).map(|needed| needed.names.as_slice());
        let name = names.and_then(|names| names.first()).unwrap_or(commit);
        match path.is_empty() {
            true => name.to_owned(),
            false => format!("`/{path}` of {name}"),
        }
    };
    // A deployment's own words tell a person most.
    let is_deployed = |commit: &&String| site.deployments.iter().any(|found| found.commit == **commit);
    let first = holders
        .iter()
        .find(|(commit, _)| is_deployed(commit))
        .or_else(|| holders.iter().next());
    let others = holders.len().saturating_sub(1);
    let mut whose = first.map(place).unwrap_or_default();
    if others > 0 {
        whose += &format!(" and {others} more");
    }
    let (code, state) = match is_corrupt {
        true => ("object-corrupt", "is not what its name says"),
        false => ("object-missing", "is missing"),
    };
    let message = format!("The object {}, needed for {whose}, {state}", shown(&object));
    let copy = match is_corrupt {
        true => None,
        false => super::checkout::copy_of(site, &object, &holders),
    };
    // Whoever of them is written again brings the object back for the others too.
    let can_fetch = holders
        .keys()
        .any(|holder| images.iter().any(|image| image.makes(holder)));
    let bad = BadObject {
        kind: object.0,
        checksum: object.1,
        is_corrupt,
        holders: holders.into_keys().collect(),
        copy,
    };
    let finding = Finding::error(code, shown(&object), message);
    if can_fetch || bad.copy.is_some() {
        return finding.remedy(Remedy::Object(bad));
    }
    finding
        .attempt(Remedy::Object(bad))
        .hint("after `apt-ostree fsck --repair` the next `apt-ostree upgrade` makes what is missing again")
}

/// Makes one object available again as far as that needs no network: a copy of a deployment's file takes the place
/// of a missing one, a damaged one goes, and commits that lack it are marked.
pub(super) fn mend(site: &Site<'_>, bad: &BadObject) -> Result<()> {
    let (repo, name) = (&site.repo, bad.checksum.to_string());
    if let Some(copy) = &bad.copy {
        link_in(site, copy, bad)?;
        repo.fsck_object(bad.kind, &name, gio::Cancellable::NONE)?;
        return Ok(());
    }
    if bad.is_corrupt {
        repo.delete_object(bad.kind, &name, gio::Cancellable::NONE)?;
    }
    for holder in &bad.holders {
        repo.mark_commit_partial_reason(holder, true, ostree::RepoCommitState::FSCK_PARTIAL)
            .with_context(|| format!("Marking the commit {holder}"))?;
    }
    Ok(())
}

/// Makes a deployment's file an object by one more link to it.
fn link_in(site: &Site<'_>, copy: &Path, bad: &BadObject) -> Result<()> {
    let place = path(&(bad.kind, bad.checksum));
    let folder = place.parent().context("An object lies in a folder")?;
    let objects = crate::host::folder::open(site.repo.dfd_borrow(), "objects")?;
    match rustix::fs::mkdirat(&objects, folder, rustix::fs::Mode::from_raw_mode(0o775)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error).with_context(|| format!("Making {}", folder.display())),
    }
    rustix::fs::linkat(&site.root, copy, &objects, &place, rustix::fs::AtFlags::empty())
        .with_context(|| format!("Linking {} into the repository", copy.display()))
}

/// Returns the checksum under which a file of a folder would be an object.
pub(super) fn checksum_of(folder: impl AsFd, name: &str) -> Result<Checksum> {
    let sum = ostree::checksum_file_at(
        folder.as_fd().as_raw_fd(),
        Path::new(name),
        None,
        ostree::ObjectType::File,
        ostree::ChecksumFlags::NONE,
        gio::Cancellable::NONE,
    )?;
    sum.parse()
}

/// Returns where an object lies below `objects/`.
pub(super) fn path(object: &Object) -> std::path::PathBuf {
    let name = shown(object);
    Path::new(&name[..2]).join(&name[2..])
}

/// Returns the object's name as libostree writes it.
pub(super) fn shown(object: &Object) -> String {
    ostree::object_to_string(&object.1.to_string(), object.0).to_string()
}
