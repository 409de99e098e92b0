//! Rules about `/var`, which a host never takes from the image.

use super::{Level, Rule, rootfs};
use crate::compose::tmpfiles;
use std::path::{Path, PathBuf};

pub(super) const VAR_RUN: Rule = Rule {
    name: "var-run",
    level: Level::Error,
    description: "/var/run is no real directory",
    check: |check| {
        if rootfs::is_dir(check.root, "var/run")? {
            check.found(
                "var/run",
                "It is a directory and must be a link",
                "replace it by a link to /run",
            );
        }
        Ok(())
    },
};

pub(super) const VAR_LOG: Rule = Rule {
    name: "var-log",
    level: Level::Warning,
    description: "No log of the build is left",
    check: |check| {
        let mut logs = Vec::new();
        rootfs::walk(check.root, Path::new("var/log"), &mut |path, metadata| {
            if metadata.is_file() && metadata.len() > 0 {
                logs.push(path.to_owned());
            }
            Ok(())
        })?;
        for path in logs {
            check.found_unprepared(path, "The log was written while the image was built");
        }
        Ok(())
    },
};

pub(super) const VAR_TMPFILES: Rule = Rule {
    name: "var-tmpfiles",
    level: Level::Warning,
    description: "tmpfiles.d makes every directory and link of /var on the host",
    check: |check| {
        let lines = tmpfiles::load(check.root, true)?;
        let mut missing = Vec::new();
        rootfs::walk(check.root, Path::new("var"), &mut |path, metadata| {
            let declared = path.ancestors().any(|part| {
                lines
                    .get(part)
                    .is_some_and(|line| part == path || line.letter == 'C')
            });
            if !metadata.is_file() && !declared && !in_scratch(path) {
                missing.push(path.to_owned());
            }
            Ok(())
        })?;
        for path in missing {
            check.found_unprepared(path, "No line of tmpfiles.d makes it on a host");
        }
        Ok(())
    },
};

pub(super) const VAR_FILES: Rule = Rule {
    name: "var-files",
    level: Level::Error,
    description: "No file is only in /var: each has the same copy in the factory and a line of tmpfiles.d",
    check: |check| {
        let lines = tmpfiles::load(check.root, true)?;
        let mut files: Vec<PathBuf> = Vec::new();
        rootfs::walk(check.root, Path::new("var"), &mut |path, metadata| {
            if metadata.is_file() && !path.starts_with("var/log") && !in_scratch(path) {
                files.push(path.to_owned());
            }
            Ok(())
        })?;
        for path in files {
            let factory = Path::new("usr/share/factory").join(&path);
            let declared = path
                .ancestors()
                .find_map(|part| lines.get(part).filter(|line| part == path || line.letter == 'C'));
            let covered = match declared.map(|line| line.letter) {
                Some('C') if rootfs::is_file(check.root, &factory)? => {
                    check.root.read(&factory)? == check.root.read(&path)?
                }
                Some('C' | 'f' | 'F') => true,
                _ => false,
            };
            if !covered {
                check.found_unprepared(
                    path,
                    "Hosts would not get this file: /var is not taken from the image",
                );
            }
        }
        // The other direction: a factory copy that nothing puts into place.
        let mut forgotten = Vec::new();
        let factory = Path::new("usr/share/factory");
        rootfs::walk(check.root, &factory.join("var"), &mut |path, metadata| {
            let target = path.strip_prefix(factory)?;
            let linked = lines.get(target).is_some_and(|line| line.letter == 'L');
            let mut parents = target.ancestors();
            let copied = parents.any(|part| lines.get(part).is_some_and(|line| line.letter == 'C'));
            if metadata.is_file() && !linked && !copied {
                forgotten.push(path.to_owned());
            }
            Ok(())
        })?;
        for path in forgotten {
            check.found_unprepared(path, "No line of tmpfiles.d copies it to /var");
        }
        Ok(())
    },
};

/// Tells whether the path lies where builds leave things that no host needs.
fn in_scratch(path: &Path) -> bool {
    path.starts_with("var/tmp") && path != Path::new("var/tmp")
}
