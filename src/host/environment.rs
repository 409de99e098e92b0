//! What kind of machine this is: five independent signs that it runs from OSTree, and the variables we read.
//!
//! No single sign is enough: a container build has `/ostree` without being booted from it, an installer has a
//! sysroot and no booted deployment. The guidance lists each sign, so that a person sees which one is missing.

use crate::fault::{Fault, Kind};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// One sign that the machine runs from OSTree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// What was looked at, in words a person can check.
    pub what: &'static str,
    /// Whether it was found.
    pub found: bool,
}

/// Returns the four signs that need no libostree, looked for below `root` (`/` on a host).
///
/// The fifth sign, a booted deployment, is added by [`guidance`], because only libostree can tell.
pub fn signs(root: &Path) -> Vec<Sign> {
    let cmdline = std::fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default();
    vec![
        Sign {
            what: "/run/ostree-booted exists",
            found: root.join("run/ostree-booted").exists(),
        },
        Sign {
            what: "the kernel was started with ostree=",
            found: cmdline
                .split_ascii_whitespace()
                .any(|word| word.starts_with("ostree=")),
        },
        Sign {
            what: "/ostree/repo is a repository",
            found: root.join("ostree/repo/config").is_file(),
        },
        Sign {
            what: "/sysroot/ostree/deploy holds deployments",
            found: root.join("sysroot/ostree/deploy").is_dir(),
        },
    ]
}

/// Returns whether `root` is the root of a container; of `/`, the variable `container` tells as well.
pub fn in_container(root: &Path) -> bool {
    let told = root == Path::new("/") && variable("container").is_some();
    told || root.join("run/.containerenv").exists() || root.join(".dockerenv").exists()
}

/// Returns whether an image is built at `root`: a container without systemd that was not booted from OSTree.
pub fn in_image_build(root: &Path) -> bool {
    let runs = ["run/ostree-booted", "run/systemd/system"];
    in_container(root) && runs.iter().all(|path| !root.join(path).exists())
}

/// What a Containerfile has instead of a verb.
const IN_A_CONTAINERFILE: &[(&str, &str)] = &[
    ("upgrade", FROM),
    ("rebase", FROM),
    ("deploy", FROM),
    (
        "override",
        "in a Containerfile `RUN apt-ostree install NAME=VERSION` exchanges a package, and `RUN apt-ostree uninstall NAME` takes it out",
    ),
    (
        "reset",
        "in a Containerfile take the line away that installs the packages",
    ),
    (
        "kargs",
        "in a Containerfile write `/usr/lib/bootc/kargs.d/NAME.toml` with a line `kargs = [\"KEY=VALUE\"]`",
    ),
    (
        "initramfs",
        "in a Containerfile write `/etc/dracut.conf.d/NAME.conf`, followed by `RUN apt-ostree container prepare`",
    ),
    (
        "initramfs-etc",
        "in a Containerfile name FILE in `/etc/dracut.conf.d/NAME.conf` by a line `install_items+=\" FILE \"`, followed by `RUN apt-ostree container prepare`",
    ),
    (
        "search",
        "in a Containerfile use `apt-get update` and `apt-cache search`",
    ),
    (
        "info",
        "in a Containerfile use `apt-get update` and `apt-cache show`",
    ),
    (
        "refresh-md",
        "in a Containerfile use `apt-get update`; `apt-ostree install` does it where there are no package lists",
    ),
];

/// Instead of the verbs that take another image.
const FROM: &str = "in a Containerfile the line `FROM` names the image; for newer packages `RUN apt-get upgrade`, followed by `RUN apt-ostree container prepare`";

/// Instead of any other verb.
const ON_A_HOST: &str =
    "run it on a host; a Containerfile has `RUN apt-ostree install`, `uninstall` and `container prepare`";

/// Returns the fault that tells a person why `verb` cannot work here and what to do instead.
///
/// `booted` is the fifth sign: whether libostree found a booted deployment.
pub fn guidance(root: &Path, verb: &str, booted: bool) -> Fault {
    let mut signs = signs(root);
    signs.push(Sign {
        what: "libostree knows a booted deployment",
        found: booted,
    });
    let list: Vec<String> = signs
        .iter()
        .map(|sign| format!("{}: {}", sign.what, if sign.found { "yes" } else { "no" }))
        .collect();
    let hint = if in_container(root) {
        // Of a verb that consists of two words the first one counts.
        let first = verb.split(' ').next();
        let known = IN_A_CONTAINERFILE.iter().find(|(name, _)| Some(*name) == first);
        known.map_or(ON_A_HOST, |(_, instead)| instead)
    } else {
        "name a sysroot with `--sysroot DIR`, or install a host with `apt-ostree provision to-disk --image REF DISK`"
    };
    Fault::new(
        Kind::Unsupported,
        format!(
            "`{verb}` needs a host booted from OSTree, and this one is not ({})",
            list.join("; ")
        ),
    )
    .hint(hint)
}

/// Fails unless the process runs as root; `verb` names what the user asked for.
pub fn require_root(verb: &str) -> Result<(), Fault> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Denied,
        format!("`{verb}` changes the system and needs root"),
    )
    .hint(format!("run `sudo apt-ostree {verb} ...`")))
}

/// Returns a variable of this process's environment, if it is set and not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "the environment is read here and nowhere else"
)]
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns whether a program of this name is on `PATH`.
pub fn has_program(name: &str) -> bool {
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Returns the id that `/etc/passwd` of this machine gives a user.
pub fn user_id(name: &str) -> Option<u32> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        found.then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Returns the name that `/etc/passwd` of this machine gives a user id.
pub fn user_name(id: u32) -> Option<String> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let found = fields.nth(1)?.parse() == Ok(id);
        found.then(|| name.to_owned())
    })
}

/// Returns the home directory that `/etc/passwd` of this machine gives a user id.
pub fn user_home(id: u32) -> Option<PathBuf> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.nth(2)?.parse() == Ok(id);
        found.then(|| fields.nth(2).map(PathBuf::from)).flatten()
    })
}

/// Returns the systemd unit that a process runs in, by the name of its control group.
pub fn unit_of(process: u32) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let is_unit = |name: &&str| name.ends_with(".service") || name.ends_with(".scope");
    path.rsplit('/').find(is_unit).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_read_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        assert!(signs(root.path()).iter().all(|sign| !sign.found));
        std::fs::create_dir_all(root.path().join("proc")).unwrap();
        std::fs::write(
            root.path().join("proc/cmdline"),
            "quiet ostree=/ostree/boot.0/x rw\n",
        )
        .unwrap();
        std::fs::create_dir_all(root.path().join("run")).unwrap();
        std::fs::write(root.path().join("run/ostree-booted"), "").unwrap();
        std::fs::create_dir_all(root.path().join("ostree/repo")).unwrap();
        std::fs::write(root.path().join("ostree/repo/config"), "").unwrap();
        std::fs::create_dir_all(root.path().join("sysroot/ostree/deploy")).unwrap();
        assert!(signs(root.path()).iter().all(|sign| sign.found));
    }

    #[test]
    fn guidance_lists_five_signs_and_fits_the_place() {
        let root = tempfile::tempdir().unwrap();
        let fault = guidance(root.path(), "upgrade", false);
        assert_eq!(fault.message.matches(": no").count(), 5);
        assert!(fault.hint.unwrap().contains("--sysroot"));
        std::fs::create_dir_all(root.path().join("run")).unwrap();
        std::fs::write(root.path().join("run/.containerenv"), "").unwrap();
        let hint = |verb: &str| guidance(root.path(), verb, false).hint.unwrap();
        assert!(hint("upgrade").contains("`FROM`"));
        assert!(hint("override").contains("apt-ostree install NAME=VERSION"));
        assert!(hint("rollback").contains("container prepare"));
    }

    #[test]
    fn an_image_is_built_in_a_container_where_nothing_was_booted() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("run")).unwrap();
        assert!(!in_image_build(root.path()));
        std::fs::write(root.path().join("run/.containerenv"), "").unwrap();
        assert!(in_image_build(root.path()));
        for path in ["run/systemd/system", "run/ostree-booted"] {
            std::fs::create_dir_all(root.path().join(path)).unwrap();
            assert!(!in_image_build(root.path()), "{path}");
            std::fs::remove_dir(root.path().join(path)).unwrap();
        }
    }
}
