//! The Debian packages of `hack/package`: what they hold, and what they do to plain roots of Debian 12 and 13.

use crate::support::{plain_root, run, write};
use apt_ostree::host::runner::Cmd;
use apt_ostree::host::sandbox::Sandbox;
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

/// Where the sandbox shows the packages.
const SHOWN: &str = "/run/packages";

/// What dpkg itself says.
const DPKG_SAYS: &[&str] = &[
    "(Reading database",
    "Selecting previously unselected package",
    "Preparing to unpack",
    "Unpacking",
    "Setting up",
    "Processing triggers for",
    "Removing",
    "Purging configuration files for",
];

/// What systemctl and dpkg say besides, on standard error.
const ALSO_SAID: &[&str] = &[
    // Debian 12's systemd has this folder under /lib, which dpkg takes for another one.
    "dpkg: warning: while removing apt-ostree, directory '/usr/lib/systemd/system-preset' not empty",
    "Created symlink",
    "Running in chroot, ignoring command 'daemon-reload'",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds the packages of the debug build into the folder.
fn build(folder: &Path) {
    let script = repository().join("hack/package");
    run(
        &script.to_string_lossy(),
        ["--debug", "--out", folder.to_str().expect("UTF-8")],
    );
}

/// Returns the folder with the packages, which are built once.
fn packages() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-packages");
        build(&folder);
        folder
    })
}

/// Returns the path of one of the packages in `folder`.
fn package(folder: &Path, name: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder).expect("packages");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    let start = format!("{name}_");
    paths
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&start))
        })
        .unwrap_or_else(|| panic!("no package {name}"))
}

/// Unpacks a package and returns its files by their paths.
fn files(name: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().expect("directory");
    let target = folder.path().to_str().expect("UTF-8");
    run(
        "dpkg-deb",
        ["-x", package(packages(), name).to_str().expect("UTF-8"), target],
    );
    below(folder.path())
}

/// Returns the files below a folder by their paths, which begin with `/`.
fn below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let list = run(
        "find",
        [folder.to_str().expect("UTF-8"), "-type", "f", "-printf", "/%P\n"],
    );
    list.lines()
        .map(|path| {
            (
                path.to_owned(),
                std::fs::read(folder.join(&path[1..])).expect("a file"),
            )
        })
        .collect()
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[test]
fn everything_that_is_distributed_is_packaged() {
    let packaged = files("apt-ostree");
    let mut distributed = below(&repository().join("dist"));
    distributed.retain(|path, _| !path.starts_with("/debian/"));
    assert!(!distributed.is_empty());
    for (path, bytes) in &distributed {
        let found = packaged
            .iter()
            .any(|(to, content)| name_of(to) == name_of(path) && content == bytes);
        assert!(
            found,
            "dist{path} is in no package: see dist/debian/apt-ostree.install"
        );
    }
    let documents = files("apt-ostree-doc");
    for folder in ["docs", "Containerfile.examples"] {
        for (path, bytes) in below(&repository().join(folder)) {
            let found = documents
                .iter()
                .any(|(to, content)| to.ends_with(&path) && *content == bytes);
            assert!(found, "{folder}{path} is not in the documentation");
        }
    }
}

/// Returns the paths in the table of docs/installing.md; each may hold one `*`.
fn documented() -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("docs/installing.md")).expect("docs/installing.md");
    text.lines()
        .filter_map(|line| line.strip_prefix("| `/"))
        .filter_map(|line| line.split('`').next())
        .map(|path| format!("/{path}"))
        .collect()
}

#[test]
fn the_document_tells_of_every_installed_file_and_no_other() {
    let documented = documented();
    let fits = |pattern: &str, path: &str| match pattern.split_once('*') {
        Some((start, end)) => path.starts_with(start) && path.ends_with(end),
        None => pattern == path,
    };
    let packaged = files("apt-ostree");
    for path in packaged.keys() {
        assert!(
            documented.iter().any(|pattern| fits(pattern, path)),
            "docs/installing.md does not tell of {path}"
        );
    }
    for pattern in &documented {
        assert!(
            packaged.keys().any(|path| fits(pattern, path)),
            "docs/installing.md tells of {pattern}, which the package does not have"
        );
    }
}

#[test]
fn lintian_finds_neither_errors_nor_warnings() {
    let output = Cmd::new("lintian")
        .args(["--allow-root", "--fail-on=error,warning"])
        .args(["apt-ostree", "apt-ostree-doc"].map(|name| package(packages(), name)))
        .output()
        .expect("lintian");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_same_sources_make_the_same_packages() {
    let again = tempfile::tempdir().expect("directory");
    build(again.path());
    for name in ["apt-ostree", "apt-ostree-doc"] {
        let [first, second] = [packages(), again.path()].map(|folder| package(folder, name));
        assert_eq!(first.file_name(), second.file_name());
        assert!(
            std::fs::read(&first).expect("a package") == std::fs::read(&second).expect("a package"),
            "{name} differs from the one built before"
        );
    }
}

/// Checks that each line begins with something known; others come from a maintainer script.
#[track_caller]
fn assert_only(said: &str, known: &[&str]) {
    for line in said.lines().filter(|line| !line.is_empty()) {
        let expected = known.iter().any(|start| line.starts_with(start));
        assert!(expected, "a script says: {line}");
    }
}

/// A Debian root with what the package depends on, and nothing else.
struct Root {
    folder: TempDir,
    /// The packages that are shown to it, and a newer version of each in `newer`.
    packages: TempDir,
}

impl Root {
    fn new(release: &str) -> Self {
        let path = package(packages(), "apt-ostree");
        let depends = run("dpkg-deb", ["-f", path.to_str().expect("UTF-8"), "Depends"]);
        // Of alternatives the first; the version that dpkg finds is for dpkg to compare.
        let names = depends
            .trim()
            .split(", ")
            .map(|relation| relation.split(' ').next().expect("a name"));
        let folder = plain_root::unpack(release, names);
        let shown = tempfile::tempdir().expect("directory");
        for name in ["apt-ostree", "apt-ostree-doc"] {
            let target = shown.path().join(format!("{name}.deb"));
            std::fs::copy(package(packages(), name), target).expect("a package");
            newer(shown.path(), name);
        }
        Self {
            folder,
            packages: shown,
        }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    /// Runs a program of the root as a maintainer script would be; returns what it wrote.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let sandbox = Sandbox::new(self.folder.path())
            .and_then(|sandbox| sandbox.stubs(&["deb-systemd-invoke"], &self.log()))
            // Scripts then take the machine for a running one; what they would start is written down.
            .and_then(|sandbox| sandbox.file(b"", "/run/systemd/system/any", 0o644))
            .expect("a sandbox");
        let output = sandbox
            .show(self.packages.path(), SHOWN)
            .command(program)
            .args(arguments)
            .output()
            .expect(program);
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
        assert!(output.status.success(), "{program} {arguments:?}: {out}{err}");
        assert_only(&err, ALSO_SAID);
        out
    }

    /// Runs dpkg, which alone may say something.
    fn dpkg(&self, arguments: &[&str]) {
        assert_only(&self.run("dpkg", arguments), DPKG_SAYS);
    }

    fn log(&self) -> PathBuf {
        self.packages.path().join("log")
    }

    /// Returns the calls that would have started or stopped a unit in the last run.
    fn invoked(&self) -> String {
        std::fs::read_to_string(self.log()).expect("the log")
    }

    /// Returns name, mode, owner and link text of everything but dpkg's own records.
    fn listing(&self) -> Vec<String> {
        let root = self.folder.path().to_str().expect("UTF-8");
        let list = run("find", [root, "-mindepth", "1", "-printf", "/%P %M %U:%G %l\n"]);
        let mut lines: Vec<String> = list
            .lines()
            .filter(|line| !line.starts_with("/var/lib/dpkg/") && !line.starts_with("/var/log/dpkg.log "))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }

    fn shown(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("{SHOWN}/{name}.deb")).collect()
    }

    fn install(&self, names: &[&str]) {
        let paths = Self::shown(names);
        let mut arguments = vec!["--install"];
        arguments.extend(paths.iter().map(String::as_str));
        self.dpkg(&arguments);
    }
}

/// Makes a newer version of a package, `newer-NAME.deb`.
fn newer(folder: &Path, name: &str) {
    let tree = folder.join("tree");
    let [from, to] = [format!("{name}.deb"), format!("newer-{name}.deb")].map(|file| folder.join(file));
    let [tree_text, from, to] = [&tree, &from, &to].map(|path| path.to_str().expect("UTF-8"));
    run("dpkg-deb", ["--raw-extract", from, tree_text]);
    run(
        "sed",
        [
            "-i",
            "s/^Version: .*/Version: 99/",
            &format!("{tree_text}/DEBIAN/control"),
        ],
    );
    run("dpkg-deb", ["--root-owner-group", "--build", tree_text, to]);
    std::fs::remove_dir_all(&tree).expect("the tree");
}

/// A unit of the package that can be enabled, and whether a new host has it so.
struct Unit {
    name: String,
    enabled: bool,
}

/// Returns the units below dist/systemd: those with an `[Install]` section are enabled unless the preset there says no.
fn units() -> Vec<Unit> {
    let distributed = below(&repository().join("dist/systemd"));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (presets, units): (Vec<_>, Vec<_>) = distributed
        .iter()
        .partition(|(path, _)| path.ends_with(".preset"));
    let presets: String = presets.iter().map(|(_, bytes)| text(bytes)).collect();
    units
        .iter()
        .map(|(path, bytes)| {
            let name = name_of(path).to_owned();
            let installable = text(bytes).lines().any(|line| line == "[Install]");
            let refused = presets.lines().any(|line| line == format!("disable {name}"));
            Unit {
                name,
                enabled: installable && !refused,
            }
        })
        .collect()
}

/// Installs, upgrades, removes and purges the packages, and looks at the root after each step.
fn live_through(release: &str) {
    let root = Root::new(release);
    let names = ["apt-ostree", "apt-ostree-doc"];
    write(root.path("etc/apt-ostree/config.d/site.toml"), "");
    write(root.path("ostree/deploy/debian/kept"), "");
    write(root.path("var/lib/apt-ostree/ids.json"), "{}");
    std::fs::create_dir_all(root.path("var/lib/private")).expect("directory");
    let before = root.listing();
    let units = units();

    root.install(&names);
    assert_eq!(root.invoked(), "", "installing starts nothing");
    let version = root.run("apt-ostree", &["--version"]);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    root.run("/usr/libexec/apt-ostreed", &["--help"]);
    assert_eq!(root.run("dpkg", &["--verify", names[0], names[1]]), "");
    let links = run("find", [root.path("etc/systemd/system").to_str().expect("UTF-8")]);
    for unit in &units {
        let enabled = links.lines().any(|link| name_of(link) == unit.name);
        assert_eq!(enabled, unit.enabled, "{} is enabled", unit.name);
    }

    // What an administrator chose outlives the upgrade.
    let chosen = units.iter().find(|unit| unit.enabled).expect("an enabled unit");
    root.run("systemctl", &["--quiet", "disable", &chosen.name]);
    let installed = root.listing();
    root.install(&["newer-apt-ostree", "newer-apt-ostree-doc"]);
    assert_eq!(root.invoked(), "", "upgrading neither starts nor stops anything");
    assert_eq!(root.listing(), installed);
    assert_eq!(root.run("dpkg", &["--verify", names[0], names[1]]), "");

    write(root.path("var/cache/apt-ostree/package.deb"), "");
    write(root.path("var/lib/private/apt-ostree-countme/weeks"), "");
    symlink(
        "private/apt-ostree-countme",
        root.path("var/lib/apt-ostree-countme"),
    )
    .expect("a link");
    root.dpkg(&["--remove", names[0], names[1]]);
    let stopped = root.invoked();
    for unit in &units {
        assert!(
            stopped.contains(&unit.name),
            "{} is not stopped: {stopped}",
            unit.name
        );
    }
    // Until the purge, systemd's links say what was enabled, and what was downloaded is kept.
    let of_the_package = |lines: &[String]| -> Vec<String> {
        let lines = lines.iter().filter(|line| !line.starts_with("/var/"));
        lines
            .filter(|line| !line.starts_with("/etc/systemd/system/"))
            .cloned()
            .collect()
    };
    assert_eq!(of_the_package(&root.listing()), of_the_package(&before));
    assert!(root.path("var/cache/apt-ostree/package.deb").exists());
    root.dpkg(&["--purge", names[0]]);
    assert_eq!(
        root.listing(),
        before,
        "purging leaves what was there before, deployments too"
    );
}

#[test]
fn packages_live_and_go_on_debian_12() {
    live_through("bookworm");
}

#[test]
fn packages_live_and_go_on_debian_13() {
    live_through("trixie");
}
