//! Rules about the top level of the root and about names and links everywhere.

use super::{Level, Rule, rootfs};
use std::path::{Component, Path};

pub(super) const API_BASE_DIRECTORIES: Rule = Rule {
    name: "api-base-directories",
    level: Level::Error,
    description: "The directories /dev /proc /sys /run /tmp /var exist",
    check: |check| {
        for name in ["dev", "proc", "sys", "run", "tmp", "var"] {
            if !rootfs::is_dir(check.root, name)? {
                check.found_unprepared(name, "It is missing or no directory, and the host mounts over it");
            }
        }
        Ok(())
    },
};

pub(super) const BASEIMAGE_ROOT: Rule = Rule {
    name: "baseimage-root",
    level: Level::Error,
    description: "/sysroot is a directory and /ostree links to sysroot/ostree",
    check: |check| {
        if !rootfs::is_dir(check.root, "sysroot")? {
            check.found_unprepared("sysroot", "It is missing or no directory");
        }
        if rootfs::link_target(check.root, "ostree")?.as_deref() != Some(Path::new("sysroot/ostree")) {
            check.found_unprepared("ostree", "It is no link to sysroot/ostree");
        }
        Ok(())
    },
};

pub(super) const ETC_USRETC: Rule = Rule {
    name: "etc-usretc",
    level: Level::Error,
    description: "Not both /etc and /usr/etc hold files",
    check: |check| {
        let etc = !rootfs::names(check.root, "etc")?.is_empty();
        if etc && rootfs::look(check.root, "usr/etc")?.is_some() {
            check.found(
                "usr/etc",
                "It exists beside /etc",
                "move its files to /etc and remove it",
            );
        }
        Ok(())
    },
};

pub(super) const UTF8: Rule = Rule {
    name: "utf8",
    level: Level::Error,
    description: "File names and link targets are UTF-8",
    check: |check| {
        let mut broken = Vec::new();
        rootfs::walk(check.root, Path::new(""), &mut |path, metadata| {
            if path.file_name().is_some_and(|name| name.to_str().is_none()) {
                broken.push((path.to_owned(), "Its name is not UTF-8"));
            } else if metadata.is_symlink() {
                let target = rootfs::link_target(check.root, path)?;
                if target.is_some_and(|target| target.to_str().is_none()) {
                    broken.push((path.to_owned(), "The target of the link is not UTF-8"));
                }
            }
            Ok(())
        })?;
        for (path, message) in broken {
            check.found(path, message, "rename or remove it");
        }
        Ok(())
    },
};

pub(super) const BUILDAH_INJECTED: Rule = Rule {
    name: "buildah-injected",
    level: Level::Warning,
    description: "/etc/hostname and /etc/resolv.conf are not empty files left by the build tool",
    check: |check| {
        if check.in_container {
            return Ok(());
        }
        for path in ["etc/hostname", "etc/resolv.conf"] {
            if rootfs::look(check.root, path)?.is_some_and(|found| found.is_file() && found.len() == 0) {
                check.found(path, "It is empty, as build tools leave it behind", "remove it");
            }
        }
        Ok(())
    },
};

pub(super) const NONEMPTY_BOOT: Rule = Rule {
    name: "nonempty-boot",
    level: Level::Warning,
    description: "/boot is empty",
    check: |check| {
        for name in rootfs::names(check.root, "boot")? {
            if name != "EFI" {
                check.found_unprepared(
                    Path::new("boot").join(name),
                    "The host's /boot is not part of the image",
                );
            }
        }
        Ok(())
    },
};

pub(super) const NONEMPTY_RUN_TMP: Rule = Rule {
    name: "nonempty-run-tmp",
    level: Level::Warning,
    description: "/run and /tmp are empty",
    check: |check| {
        for folder in ["run", "tmp"] {
            for name in rootfs::names(check.root, folder)? {
                let path = Path::new(folder).join(&name);
                let injected = rootfs::is_mount_point(check.root, &path)?
                    || check.in_container && is_injected(&name.to_string_lossy());
                if !injected {
                    check.found_unprepared(path, "The importer drops it");
                }
            }
        }
        Ok(())
    },
};

/// Tells whether podman and buildah put the entry of `/run` there while they build.
fn is_injected(name: &str) -> bool {
    matches!(name, ".containerenv" | "secrets" | "lock" | "host" | "buildah")
}

pub(super) const ESCAPING_LINKS: Rule = Rule {
    name: "escaping-links",
    level: Level::Error,
    description: "No link climbs above the root, and none points into the build's own scratch directories",
    check: |check| {
        let mut links = Vec::new();
        rootfs::walk(check.root, Path::new(""), &mut |path, metadata| {
            if metadata.is_symlink() {
                links.push(path.to_owned());
            }
            Ok(())
        })?;
        for path in links {
            let target = rootfs::link_target(check.root, &path)?.unwrap_or_default();
            let top_level = path.components().count() == 1;
            let shown = target.display();
            if climbs(&path, &target) {
                let message = format!("The link to {shown} leaves the root");
                check.found(
                    path,
                    message,
                    "make the link relative to the directory that holds it",
                );
            } else if top_level && target.is_absolute() {
                let message = format!("The top-level link to {shown} is absolute and leaves the deployment");
                check.found(
                    path,
                    message,
                    format!("link to {} instead", shown.to_string().trim_start_matches('/')),
                );
            } else if ["/tmp", "/var/tmp"]
                .iter()
                .any(|scratch| target.starts_with(scratch) && target != Path::new(scratch))
            {
                let message = format!("The link points to {shown}, which is not part of the image");
                check.found(path, message, "link to a file of the image");
            }
        }
        Ok(())
    },
};

/// Tells whether a relative link has more `..` than the path has directories.
fn climbs(path: &Path, target: &Path) -> bool {
    if target.is_absolute() {
        return false;
    }
    let mut depth = path.components().count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbing_links_are_told_from_others() {
        for (path, target, expected) in [
            ("usr/lib/x", "../../etc/x", false),
            ("usr/lib/x", "../../../etc/x", true),
            ("x", "../etc", true),
            ("home", "var/home", false),
            ("a/b", "c/../../../d", true),
            ("etc/x", "/usr/x", false),
        ] {
            assert_eq!(
                climbs(Path::new(path), Path::new(target)),
                expected,
                "{path} -> {target}"
            );
        }
    }
}
