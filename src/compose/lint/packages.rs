//! Rules about dpkg's database and what package tools leave behind.

use super::{Level, Rule, rootfs};
use crate::compose::prepare::PACKAGE_DEBRIS;
use std::path::Path;

const DATABASE: &str = "usr/lib/sysimage/dpkg";

pub(super) const DPKG_DATABASE: Rule = Rule {
    name: "dpkg-database",
    level: Level::Error,
    description: "dpkg's database lies in /usr/lib/sysimage/dpkg, with relative links from /var",
    check: |check| {
        let status = Path::new(DATABASE).join("status");
        if !rootfs::look(check.root, &status)?.is_some_and(|found| found.is_file() && found.len() > 0) {
            check.found_unprepared(&status, "dpkg's list of packages is missing or empty");
        }
        for (path, target) in [
            ("var/lib/dpkg", "../../usr/lib/sysimage/dpkg"),
            (
                "var/lib/apt/extended_states",
                "../../../usr/lib/sysimage/dpkg/extended_states",
            ),
        ] {
            let needed = path == "var/lib/dpkg" || rootfs::look(check.root, path)?.is_some();
            match rootfs::link_target(check.root, path)? {
                Some(found) if found == Path::new(target) => {}
                Some(found) => {
                    check.found_unprepared(
                        path,
                        format!("The link says {} instead of {target}", found.display()),
                    );
                }
                None if needed => check.found_unprepared(path, format!("It is no link to {target}")),
                None => {}
            }
        }
        Ok(())
    },
};

pub(super) const PACKAGE_LEFTOVERS: Rule = Rule {
    name: "package-leftovers",
    level: Level::Warning,
    description: "/etc and /usr hold no *.dpkg-* and *.ucf-* files",
    check: |check| {
        let mut leftovers = Vec::new();
        for tree in ["etc", "usr"] {
            rootfs::walk(check.root, Path::new(tree), &mut |path, metadata| {
                let name = path.to_string_lossy();
                if metadata.is_file() && PACKAGE_DEBRIS.iter().any(|ending| name.ends_with(ending)) {
                    leftovers.push(path.to_owned());
                }
                Ok(())
            })?;
        }
        for path in leftovers {
            check.found(
                path,
                "A package tool left it behind",
                "compare it with the file it belongs to and remove it",
            );
        }
        Ok(())
    },
};
