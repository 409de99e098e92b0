//! `install` and `uninstall` in the build of an image: the image's own apt, and `container prepare` behind it.
//!
//! There is no host and no deployment here. The build's layer is what keeps a failure from having an effect, so
//! packages are set up in place, and apt may exchange the image's packages.

use crate::compose::prepare::{self, Prepared};
use crate::fault::{Fault, Kind};
use crate::host::environment;
use crate::host::runner::{Cmd, Ending, Line};
use crate::layer::debconf;
use crate::layer::intent::PackageRequest;
use crate::layer::packages::{self, PackageDifference, Packages};
use crate::report::Report;
use anyhow::Result;
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;

/// Lines of apt that a failure repeats.
const LAST_LINES: usize = 12;

/// apt as nobody watches it: no question is asked, and a changed configuration file stays as it is.
const UNATTENDED: &[&str] = &[
    "-q",
    "-y",
    "-oDpkg::Use-Pty=false",
    "-oDpkg::Options::=--force-confdef",
    "-oDpkg::Options::=--force-confold",
    // A name is a name, whatever characters are in it.
    "-oAPT::Cmd::Pattern-Only=true",
];

/// What changes in the image.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The verb, for whoever lacks the right to it.
    pub verb: &'static str,
    /// Packages to install; one that is there already is brought to the newest version.
    pub install: Vec<PackageRequest>,
    /// Package files to install.
    pub install_files: Vec<PathBuf>,
    /// Packages to remove, with what was only pulled in for them.
    pub uninstall: Vec<PackageRequest>,
    /// A package to remove that is not there is no mistake.
    pub idempotent: bool,
    /// A file with answers for debconf.
    pub debconf: Option<PathBuf>,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Built {
    /// How the packages of the image changed.
    pub difference: PackageDifference,
    /// What `container prepare` did.
    pub prepared: Prepared,
}

/// Changes the packages of the image that is built at `/`, and prepares it.
///
/// Fails when apt does, with its last lines. What was done until then stays in the container, which a build drops.
pub fn run(options: &Options, report: &dyn Report) -> Result<Built> {
    environment::require_root(options.verb)?;
    let path = PathBuf::from("/");
    let root = Dir::open_ambient_dir(&path, ambient_authority())?;
    let before = installed(&root)?;
    let words = options.words(&before)?;
    if let Some(file) = &options.debconf {
        let answers = std::fs::read(file).map_err(|error| {
            let what = format!(
                "The answers for debconf {} cannot be read: {error}",
                file.display()
            );
            Fault::new(Kind::NotFound, what)
        })?;
        debconf::answer(Cmd::new(debconf::PROGRAM), &answers)?;
    }
    if options.installs() && !has_lists(&root)? {
        let step = report.step("Fetching package lists");
        apt(&["update", "-oAPT::Update::Error-Mode=any"], &[], report)?;
        step.done("Fetched package lists");
    }
    if !words.is_empty() {
        let step = report.step("Changing packages");
        apt(&options.manner(), &words, report)?;
        apt(&["clean"], &[], report)?;
        step.done("Changed packages");
    }
    let scope = prepare::Scope::Image;
    let prepared = prepare::run(&root, &prepare::Options { path, scope }, report)?;
    Ok(Built {
        difference: packages::difference(&before, &installed(&root)?),
        prepared,
    })
}

impl Options {
    fn installs(&self) -> bool {
        !self.install.is_empty() || !self.install_files.is_empty()
    }

    /// Returns the verb and options of apt-get.
    fn manner(&self) -> Vec<&'static str> {
        let mut manner = vec!["install", "--no-install-recommends"];
        if !self.uninstall.is_empty() {
            manner.extend(["--purge", "--auto-remove"]);
        }
        let is_exact = |request: &PackageRequest| request.version.is_some() || request.suite.is_some();
        if !self.install_files.is_empty() || self.install.iter().any(is_exact) {
            manner.push("--allow-downgrades");
        }
        manner
    }

    /// Returns what apt-get is asked for, in its words: `name=version`, `/path`, `name-` for a removal.
    ///
    /// Fails with everything at once that is not there.
    fn words(&self, before: &Packages) -> Result<Vec<String>> {
        let mut words: Vec<String> = self.install.iter().map(ToString::to_string).collect();
        let mut mistakes = Vec::new();
        for file in &self.install_files {
            match file
                .canonicalize()
                .map(PathBuf::into_os_string)
                .map(|path| path.into_string())
            {
                Ok(Ok(path)) => words.push(path),
                Ok(Err(_)) => mistakes.push(format!("{} is not UTF-8", file.display())),
                Err(error) => mistakes.push(format!("{} cannot be read: {error}", file.display())),
            }
        }
        for request in &self.uninstall {
            let is_there = before.keys().any(|(name, architecture)| {
                let wanted = request.architecture.as_ref();
                *name == request.name && wanted.is_none_or(|wanted| wanted == architecture)
            });
            if request.version.is_some() || request.suite.is_some() {
                mistakes.push(format!("`{request}` names more than a package to remove"));
            } else if is_there {
                words.push(format!("{request}-"));
            } else if !self.idempotent {
                mistakes.push(format!("`{request}` is not installed"));
            }
        }
        if mistakes.is_empty() {
            return Ok(words);
        }
        Err(Fault::new(Kind::NotFound, mistakes.join("; ")).into())
    }
}

#[context("Reading dpkg's database")]
fn installed(root: &Dir) -> Result<Packages> {
    let status = root.read("var/lib/dpkg/status")?;
    Ok(packages::parse(&String::from_utf8_lossy(&status)))
}

/// Returns whether package lists were fetched before, in this step of the build or into a cache.
#[context("Looking for package lists")]
fn has_lists(root: &Dir) -> Result<bool> {
    let folder = Path::new("var/lib/apt/lists");
    if !root.is_dir(folder) {
        return Ok(false);
    }
    for entry in root.read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with("Release") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs apt-get and tells what it says.
fn apt(manner: &[&str], words: &[String], report: &dyn Report) -> Result<()> {
    let cmd = Cmd::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Kernel hooks make no initramfs: `container prepare` makes the one that counts.
        .env("INITRD", "No")
        .args(UNATTENDED)
        .args(manner)
        .arg("--")
        .args(words);
    let mut last = VecDeque::new();
    let (_keep, never) = oneshot::channel();
    let ending = cmd.follow(None, never, |line| {
        let (Line::Output(text) | Line::Error(text)) = line;
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(text.to_owned());
        report.note(text);
    })?;
    let how = match ending {
        Ending::Exited(status) if status.success() => return Ok(()),
        Ending::Exited(status) => status.to_string(),
        Ending::Overdue | Ending::Stopped => "it was ended".to_owned(),
    };
    let last: Vec<String> = last.into();
    Err(Fault::new(
        Kind::Invalid,
        format!("`apt-get {}` failed ({how}):\n{}", manner[0], last.join("\n")),
    )
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_in_the_words_of_apt() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.deb");
        std::fs::write(&file, "").unwrap();
        let requests = |words: &[&str]| words.iter().map(|word| word.parse().unwrap()).collect();
        let id = |name: &str| (name.to_owned(), "amd64".to_owned());
        let before = Packages::from([(id("old"), "1".to_owned()), (id("lib"), "1".to_owned())]);
        let mut options = Options {
            install: requests(&["tool", "g++:amd64=4"]),
            uninstall: requests(&["old", "lib:amd64"]),
            ..Options::default()
        };
        assert_eq!(
            options.words(&before).unwrap(),
            ["tool", "g++:amd64=4", "old-", "lib:amd64-"]
        );
        let all = [
            "install",
            "--no-install-recommends",
            "--purge",
            "--auto-remove",
            "--allow-downgrades",
        ];
        assert_eq!(options.manner(), all);
        options = Options {
            install_files: vec![file.clone()],
            ..Options::default()
        };
        let path = file.canonicalize().unwrap();
        assert_eq!(options.words(&before).unwrap(), [path.to_str().unwrap()]);
        options.install_files.push("/no/such.deb".into());
        options.uninstall = requests(&["gone", "lib:i386", "old=1"]);
        let said = options.words(&before).unwrap_err().to_string();
        for part in [
            "/no/such.deb cannot be read",
            "`gone` is not",
            "`lib:i386` is not",
            "`old=1` names more",
        ] {
            assert!(said.contains(part), "{said}");
        }
        options = Options {
            uninstall: requests(&["gone"]),
            idempotent: true,
            ..Options::default()
        };
        assert!(options.words(&before).unwrap().is_empty());
    }
}
