//! `/var`: directories and links stay in the image and are declared in tmpfiles.d, files move to the factory.
//!
//! A host's `/var` starts empty and never follows the image. What stays in the image's own `/var` is only what
//! builds that start from it need, and every bit of it is made on a host by the generated lines:
//!
//! - a file is copied from the factory where the host has none;
//! - what packages generate for others to read ([`LINKED`]) is a link into the factory, so that it follows the image;
//! - the data of a service, for example a database, is copied as one and only where the host has nothing of it
//!   ([`super::seed`]).

use super::{database, identity, rootfs, secrets, seed};
use crate::compose::sysusers::Accounts;
use crate::compose::tmpfiles::{self, GENERATED, Line};
use crate::fault::{Fault, Kind};
use crate::report::Report;
use anyhow::Result;
use cap_std_ext::cap_std::fs::{Dir, Metadata, MetadataExt};
use fn_error_context::context;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the files go; systemd-tmpfiles copies from here by default.
const FACTORY: &str = "usr/share/factory";

/// Directories whose whole content belongs to the build.
const CLEARED: &[&str] = &["var/tmp", "var/cache/man", "var/lib/apt/periodic", "var/backups"];

/// Directories whose files nobody needs on a host, unless a package ships them.
const EPHEMERAL: &[&str] = &[
    "var/log",
    "var/cache",
    "var/lib/apt/lists",
    "var/lib/systemd/catalog",
];

/// Directories in which packages only generate what programs read; a copy would stay as it was when it was first made.
const LINKED: &[(&str, &str)] = &[
    (
        "var/lib/aspell",
        "dictionaries made for this machine's byte order",
    ),
    ("var/lib/dictionaries-common", "the list of dictionaries"),
    ("var/lib/dkms", "which modules were built for which kernel"),
    ("var/lib/emacsen-common", "which packages were compiled for Emacs"),
    ("var/lib/ghostscript", "the fonts that Ghostscript finds"),
    (
        "var/lib/ispell",
        "dictionaries made for this machine's byte order",
    ),
    ("var/lib/python", "which packages were compiled for Python"),
    ("var/lib/sgml-base", "the catalog of SGML"),
    ("var/lib/tex-common", "the list of formats"),
    ("var/lib/texmf", "formats, font maps and the index of TeX"),
    ("var/lib/xfonts", "the lists of fonts of X11"),
    ("var/lib/xml-core", "the catalog of XML"),
];

/// Files that keep package configuration in a directory that is otherwise a cache.
const KEPT: &[&str] = &["var/cache/debconf/config.dat", "var/cache/debconf/templates.dat"];

/// Traces of a person at work in root's home.
const TRACES: &[&str] = &[
    ".bash_history",
    ".lesshst",
    ".python_history",
    ".viminfo",
    ".wget-hsts",
    ".cache",
];

/// Moves the files of `/var` to the factory and declares all of `/var` in tmpfiles.d.
#[context("Emptying /var")]
pub(super) fn empty(root: &Dir, report: &dyn Report) -> Result<()> {
    for folder in CLEARED {
        rootfs::clear(root, folder)?;
    }
    for name in TRACES {
        rootfs::remove(root, Path::new("var/roothome").join(name))?;
    }
    let mut plan = Plan {
        root,
        accounts: Accounts::load(root)?,
        declared: tmpfiles::load(root, false)?,
        shipped: database::shipped(root)?,
        lines: BTreeMap::new(),
        seeds: BTreeSet::new(),
    };
    rootfs::walk(root, Path::new("var"), &mut |path, metadata| {
        plan.take(path, metadata, report)
    })?;
    let factory = Path::new(FACTORY);
    rootfs::walk(root, &factory.join("var"), &mut |path, metadata| {
        plan.declare_factory(path.strip_prefix(factory)?, metadata)
    })?;
    let mut text =
        String::from("# Written by apt-ostree container prepare: what the host's /var starts with.\n");
    text.push_str("d /run/media 0755 root root -\n");
    for line in plan.lines.values() {
        text.push_str(line);
        text.push('\n');
    }
    rootfs::write(root, GENERATED, &text, 0o644)?;
    Ok(())
}

struct Plan<'a> {
    root: &'a Dir,
    accounts: Accounts,
    /// Lines of packages and of the image's author.
    declared: BTreeMap<PathBuf, Line>,
    shipped: BTreeSet<PathBuf>,
    /// Lines to write, by path, so that parents come first.
    lines: BTreeMap<PathBuf, String>,
    /// Directories of the factory that are copied as one.
    seeds: BTreeSet<PathBuf>,
}

impl Plan<'_> {
    /// Deals with one entry of `/var`.
    fn take(&mut self, path: &Path, metadata: &Metadata, report: &dyn Report) -> Result<()> {
        let field = field(path)?;
        if metadata.is_dir() {
            if self.is_seed(Path::new(""), path, metadata)? {
                return self.take_seed(path, report);
            }
            self.declare_dir(path, &field, metadata);
        } else if metadata.is_symlink() {
            self.declare_link(path, &field)?;
        } else if !metadata.is_file() {
            warn_of_special(path, report);
            rootfs::remove(self.root, path)?;
        } else if self.is_discarded(path) || self.is_made_by_package(path, metadata)? {
            rootfs::remove(self.root, path)?;
        } else {
            self.move_to_factory(path)?;
            if is_linked(path) {
                rootfs::link(self.root, path, &link_to_factory(path))?;
                self.declare_link(path, &field)?;
            }
        }
        Ok(())
    }

    /// Moves the data of a service, which `path` holds, to the factory as it is.
    fn take_seed(&mut self, path: &Path, report: &dyn Report) -> Result<()> {
        let mut dropped = Vec::new();
        rootfs::walk(self.root, path, &mut |inside, metadata| {
            let kept = metadata.is_dir() || metadata.is_symlink() || metadata.is_file();
            if !kept || metadata.is_file() && self.is_discarded(inside) {
                dropped.push(inside.to_owned());
            }
            if !kept {
                warn_of_special(inside, report);
            }
            Ok(())
        })?;
        for inside in dropped {
            rootfs::remove(self.root, inside)?;
        }
        let target = Path::new(FACTORY).join(path);
        if seed::is_same(self.root, path, &target)? {
            rootfs::remove(self.root, path)?;
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            rootfs::mirror_dirs(self.root, Path::new(""), Path::new(FACTORY), parent)?;
        }
        // Merged with an older state, the data of a service would be damaged.
        rootfs::remove(self.root, &target)?;
        rootfs::move_tree(self.root, path, &target)
    }

    fn declare_dir(&mut self, path: &Path, field: &str, metadata: &Metadata) {
        if self.declared.get(path).is_some_and(Line::makes_directory) {
            return;
        }
        let line = format!("d {field} {}", self.mode_and_owner(metadata));
        self.lines.insert(path.to_owned(), line);
    }

    fn declare_link(&mut self, path: &Path, field: &str) -> Result<()> {
        if self.declared.contains_key(path) && !database::is_moved(path) {
            return Ok(());
        }
        let target = rootfs::link_target(self.root, path)?.unwrap_or_default();
        let target = target.to_string_lossy().replace('%', "%%");
        // What is the image's must be so even where something of that name is left from before.
        let follows = database::is_moved(path) || is_linked(path);
        let kind = if follows { "L+" } else { "L" };
        self.lines
            .insert(path.to_owned(), format!("{kind} {field} - - - - {target}"));
        Ok(())
    }

    /// Declares what lies in the factory, from this run or an earlier one; `path` starts with `var`.
    fn declare_factory(&mut self, path: &Path, metadata: &Metadata) -> Result<()> {
        let copied_by_package =
            |ancestor: &Path| self.declared.get(ancestor).is_some_and(|line| line.letter == 'C');
        let in_seed = |ancestor: &Path| self.seeds.contains(ancestor);
        if path.ancestors().any(copied_by_package) || path.ancestors().any(in_seed) {
            return Ok(());
        }
        if metadata.is_dir() && self.is_seed(Path::new(FACTORY), path, metadata)? {
            let field = field(path)?;
            let owner = seed::owner(self.root, &Path::new(FACTORY).join(path), metadata)?;
            let line = match owner {
                Some(metadata) => format!("C {field} {}", self.mode_and_owner(&metadata)),
                None => format!("C {field} {:04o} - - -", metadata.mode() & 0o7777),
            };
            self.lines.insert(path.to_owned(), line);
            self.seeds.insert(path.to_owned());
            return Ok(());
        }
        if self.lines.contains_key(path) {
            return Ok(());
        }
        let field = field(path)?;
        if metadata.is_dir() {
            self.declare_dir(path, &field, metadata);
        } else if is_linked(path) {
            let target = link_to_factory(path).replace('%', "%%");
            self.lines
                .insert(path.to_owned(), format!("L+ {field} - - - - {target}"));
        } else if metadata.is_symlink() {
            self.lines.insert(path.to_owned(), format!("L {field}"));
        } else {
            // Without an argument the source is the same path in the factory.
            self.lines.insert(
                path.to_owned(),
                format!("C {field} {}", self.mode_and_owner(metadata)),
            );
        }
        Ok(())
    }

    /// Tells whether `path`, which stands below `place`, holds the data of a service.
    fn is_seed(&self, place: &Path, path: &Path, metadata: &Metadata) -> Result<bool> {
        if metadata.uid() == 0
            || is_linked(path)
            || self.declared.get(path).is_some_and(|line| line.letter == 'C')
        {
            return Ok(false);
        }
        let is_made = |path: &Path| !self.shipped.contains(path) && !self.is_discarded(path);
        seed::holds_data(self.root, place, path, &is_made)
    }

    fn is_discarded(&self, path: &Path) -> bool {
        let below = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
        let is = |list: &[&str]| list.iter().any(|entry| path == Path::new(entry));
        if secrets::is_secret(path) {
            return true;
        }
        if self.shipped.contains(path) || is(KEPT) {
            return false;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let lock =
            matches!(&*name, "lock" | ".lock" | "Lock") || name.ends_with(".lock") || name.ends_with(".pid");
        below(EPHEMERAL)
            || lock
            || identity::PACKAGE_DEBRIS
                .iter()
                .any(|ending| name.ends_with(ending))
    }

    /// Tells whether a package's own line makes the same file on the host.
    fn is_made_by_package(&self, path: &Path, metadata: &Metadata) -> Result<bool> {
        let Some(line) = self.declared.get(path) else {
            return Ok(false);
        };
        Ok(match line.letter {
            'L' => true,
            'f' | 'F' => metadata.len() == 0 || self.root.read(path)? == line.argument.as_bytes(),
            'C' => {
                let source = match line.argument.trim_start_matches('/') {
                    "" => Path::new(FACTORY).join(path),
                    named => PathBuf::from(named),
                };
                rootfs::is_file(self.root, &source)? && self.root.read(path)? == self.root.read(&source)?
            }
            _ => false,
        })
    }

    /// Moves a file to the factory; what a derived build left in `/var` is newer than what lies there.
    fn move_to_factory(&self, path: &Path) -> Result<()> {
        let target = Path::new(FACTORY).join(path);
        if let Some(parent) = path.parent() {
            rootfs::mirror_dirs(self.root, Path::new(""), Path::new(FACTORY), parent)?;
        }
        if seed::is_same(self.root, path, &target)? {
            // apt in a derived build restored it; renaming would only make the layer larger.
            rootfs::remove(self.root, path)?;
            return Ok(());
        }
        rootfs::move_tree(self.root, path, &target)
    }

    /// Returns mode, user, group and age as fields; names rather than numbers, because a host may have the
    /// account under another id.
    fn mode_and_owner(&self, metadata: &Metadata) -> String {
        let (uid, gid) = (metadata.uid(), metadata.gid());
        let user = self
            .accounts
            .user_name(uid)
            .map_or_else(|| uid.to_string(), str::to_owned);
        let group = self
            .accounts
            .group_name(gid)
            .map_or_else(|| gid.to_string(), str::to_owned);
        format!("{:04o} {user} {group} -", metadata.mode() & 0o7777)
    }
}

fn is_linked(path: &Path) -> bool {
    LINKED.iter().any(|(folder, _)| path.starts_with(folder))
}

/// Returns the text of the link from `path`, which starts with `var`, to its file in the factory.
fn link_to_factory(path: &Path) -> String {
    let up = "../".repeat(path.components().count() - 1);
    format!("{up}{FACTORY}/{}", path.to_string_lossy())
}

fn warn_of_special(path: &Path, report: &dyn Report) {
    report.warning(&format!(
        "/{} was removed: it is no file, directory or link.",
        path.display()
    ));
}

fn field(path: &Path) -> Result<String> {
    match path.to_str().filter(|text| !text.contains('\n')) {
        Some(text) => Ok(tmpfiles::escape(text)),
        None => Err(Fault::new(
            Kind::Invalid,
            format!(
                "The name {path:?} cannot be declared in tmpfiles.d: it is not UTF-8 or has several lines"
            ),
        )
        .hint("rename or remove it in the Containerfile")
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Silent;
    use cap_std_ext::cap_std::ambient_authority;

    fn root() -> (tempfile::TempDir, Dir) {
        let folder = tempfile::tempdir().unwrap();
        let root = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        for path in [
            "usr/lib/tmpfiles.d",
            "usr/lib/sysimage/dpkg/info",
            "var/lib/my app",
            "var/log/web",
            "var/cache/tool",
            "var/lib/pkg",
        ] {
            root.create_dir_all(path).unwrap();
        }
        root.write(
            "usr/lib/tmpfiles.d/pkg.conf",
            "d /var/lib/pkg 0700 pkg pkg -\nf /var/lib/pkg/made\n",
        )
        .unwrap();
        root.write(
            "usr/lib/sysimage/dpkg/info/tool.list",
            "/.\n/var/cache/tool/shipped\n",
        )
        .unwrap();
        (folder, root)
    }

    #[test]
    fn files_move_and_lines_recreate_them() {
        let (_folder, root) = root();
        root.write("var/lib/my app/data 1%", "x").unwrap();
        root.write("var/log/web/access.log", "x").unwrap();
        root.write("var/cache/tool/shipped", "x").unwrap();
        root.write("var/cache/tool/derived", "x").unwrap();
        root.write("var/lib/pkg/made", "").unwrap();
        root.write("var/lib/pkg/x.lock", "").unwrap();
        root.symlink_contents("../log/web", "var/lib/logs").unwrap();
        empty(&root, &Silent).unwrap();
        let text = root.read_to_string(GENERATED).unwrap();
        let made: Vec<_> = text
            .lines()
            .filter_map(tmpfiles::parse)
            .map(|line| format!("{} {}", line.letter, line.path.display()))
            .collect();
        assert_eq!(
            made,
            [
                "d run/media",
                "d var/cache",
                "d var/cache/tool",
                "C var/cache/tool/shipped",
                "d var/lib",
                "L var/lib/logs",
                "d var/lib/my app",
                "C var/lib/my app/data 1%",
                "d var/log",
                "d var/log/web",
            ]
        );
        assert_eq!(
            root.read("usr/share/factory/var/lib/my app/data 1%").unwrap(),
            b"x"
        );
        assert!(!root.exists("var/log/web/access.log") && !root.exists("var/cache/tool/derived"));
        empty(&root, &Silent).unwrap();
        assert_eq!(root.read_to_string(GENERATED).unwrap(), text);
    }

    #[test]
    fn a_derived_build_replaces_the_factory_copy() {
        let (_folder, root) = root();
        root.write("var/lib/pkg/state", "old").unwrap();
        empty(&root, &Silent).unwrap();
        root.write("var/lib/pkg/state", "new").unwrap();
        empty(&root, &Silent).unwrap();
        assert_eq!(root.read("usr/share/factory/var/lib/pkg/state").unwrap(), b"new");
        assert!(!root.exists("var/lib/pkg/state"));
    }
}
