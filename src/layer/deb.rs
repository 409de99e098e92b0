//! Package files: their maintainer scripts, the paths they bring, and a copy without some of these.

use crate::fault::{Fault, Kind};
use crate::host::runner::Cmd;
use crate::layer::plan::FetchedPackage;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// No control file is larger; one that is ends the transaction instead of filling the memory.
const LARGEST_CONTROL_FILE: u64 = 16 << 20;

/// The files beside the control file, and it, by name.
pub(crate) type ControlFiles = BTreeMap<String, Vec<u8>>;

/// Reads the control files of all packages, several packages at a time, in their order.
pub(crate) fn all_control_files(packages: &[FetchedPackage]) -> Result<Vec<ControlFiles>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let size = packages.len().div_ceil(threads).max(1);
    let read = |some: &[FetchedPackage]| -> Result<Vec<ControlFiles>> {
        some.iter().map(|package| control_files(&package.path)).collect()
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = packages
            .chunks(size)
            .map(|some| scope.spawn(move || read(some)))
            .collect();
        let mut all = Vec::new();
        for thread in started {
            match thread.join() {
                Ok(read) => all.extend(read?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

/// Returns the control files of one package.
#[context("Reading the control files of {}", package.display())]
pub(crate) fn control_files(package: &Path) -> Result<ControlFiles> {
    let archive = Cmd::new("dpkg-deb").arg("--ctrl-tarfile").arg(package).run()?;
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(Cursor::new(archive));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.into_owned();
        let Some(name) = path.file_name().and_then(OsStr::to_str) else {
            continue;
        };
        if entry.size() > LARGEST_CONTROL_FILE {
            return Err(Fault::new(Kind::Invalid, format!("its {name} is larger than 16 MiB")).into());
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(name.to_owned(), bytes);
    }
    Ok(files)
}

/// Returns the paths of everything in a package but its directories, relative to the root.
#[context("Reading the list of files of {}", package.display())]
pub(crate) fn paths(package: &Path) -> Result<BTreeSet<PathBuf>> {
    let file = File::open(package)?;
    let mut archive = ar::Archive::new(file);
    while let Some(member) = archive.next_entry() {
        let member = member?;
        // dpkg takes both ways to write the name of a member.
        if matches!(member.header().identifier(), b"data.tar" | b"data.tar/") {
            return list(member);
        }
    }
    let archive = Cmd::new("dpkg-deb").arg("--fsys-tarfile").arg(package).run()?;
    list(Cursor::new(archive))
}

fn list(archive: impl Read + Seek) -> Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    for entry in tar::Archive::new(archive).entries_with_seek()? {
        let entry = entry?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let name = entry.path_bytes();
        let path = Path::new(OsStr::from_bytes(&name));
        paths.insert(path.components().filter(|part| is_name(*part)).collect());
    }
    Ok(paths)
}

fn is_name(part: std::path::Component<'_>) -> bool {
    matches!(part, std::path::Component::Normal(_))
}

/// What a copy of a package lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Omitted {
    /// Maintainer scripts.
    pub(crate) scripts: BTreeSet<String>,
    /// Files, relative to the root.
    pub(crate) paths: BTreeSet<PathBuf>,
}

/// Writes a copy of `package` without some scripts and files to `target`, by way of the folder `scratch`.
#[context("Making a copy of {} without some of its files", package.display())]
pub(crate) fn copy_without(package: &Path, omitted: &Omitted, target: &Path, scratch: &Path) -> Result<()> {
    let folder = tempfile::tempdir_in(scratch)?;
    let tree = folder.path().join("tree");
    Cmd::new("dpkg-deb")
        .arg("--raw-extract")
        .args([package, &tree])
        .run()?;
    let root = Dir::open_ambient_dir(&tree, ambient_authority())?;
    for script in &omitted.scripts {
        root.remove_file(Path::new("DEBIAN").join(script))
            .with_context(|| format!("Leaving out {script}"))?;
    }
    for path in &omitted.paths {
        root.remove_file(path)
            .with_context(|| format!("Leaving out /{}", path.display()))?;
    }
    Cmd::new("dpkg-deb")
        .args(["--nocheck", "-Znone", "--build"])
        .args([&tree, target])
        .run()?;
    Ok(())
}
