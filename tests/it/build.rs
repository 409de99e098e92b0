//! `install` and `uninstall` in the build of an image: real builds with podman, from a real signed repository.

use crate::support::archive::Archive;
use crate::support::package::Package;
use crate::support::{run, write};
use apt_ostree::host::runner::Cmd;
use std::path::PathBuf;

const BASE: &str = "localhost/base:trixie";

/// A folder to build images from, with the program under test, and a repository that the builds reach.
struct Workshop {
    folder: tempfile::TempDir,
    _archive: Archive,
}

impl Workshop {
    fn with(packages: &[Package]) -> Self {
        let folder = tempfile::tempdir().expect("directory");
        let program = folder.path().join("files/usr/bin/apt-ostree");
        write(&program, "");
        // The debug information would make up most of the image.
        run(
            "strip",
            [
                "-o",
                program.to_str().expect("UTF-8"),
                env!("CARGO_BIN_EXE_apt-ostree"),
            ],
        );
        let archive = Archive::with(packages);
        let files = folder.path().join("files");
        archive.enable(&files, &files.join("etc"));
        Self {
            folder,
            _archive: archive,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the lines of a Containerfile on top of the base image; returns whether the build went well, and its log.
    ///
    /// The image that comes of it is removed again.
    fn build(&self, lines: &str) -> (bool, String) {
        // Debian's own archive is left out: nothing but the test's repository is asked.
        let text = format!("FROM {BASE}\nRUN rm /etc/apt/sources.list\nCOPY files/ /\n{lines}\n");
        write(self.path("Containerfile"), text);
        let output = Cmd::new("podman")
            // As hack/images does: without cgroups and bridges of its own.
            .args([
                "build",
                "--isolation=chroot",
                "--network=host",
                "--layers=false",
                "--iidfile",
            ])
            .arg(self.path("image"))
            .arg(self.folder.path())
            .output()
            .expect("podman");
        let log = [output.stdout, output.stderr].concat();
        let log = String::from_utf8_lossy(&log).into_owned();
        if output.status.success() {
            let image = std::fs::read_to_string(self.path("image")).expect("the image");
            run("podman", ["rmi", image.trim()]);
        }
        (output.status.success(), log)
    }

    /// Runs lines that must go well, and returns what was printed behind `MARK `.
    fn facts(&self, lines: &str) -> Vec<String> {
        let (built, log) = self.build(lines);
        assert!(built, "{log}");

        // podman repeats the line that it runs, which begins with `STEP`.
        log.lines()
            .filter_map(|line| line.strip_prefix("MARK "))
            .map(str::to_owned)
            .collect()
    }
}

fn service() -> Package {
    Package::new("service", "1")
        .depends("service-data, debconf")
        .file("usr/bin/service", 0o755, "#!/bin/sh\n")
        .file("var/lib/service/seed", 0o644, "seed")
        .conffile("etc/service/main.conf", "main")
        .templates(
            "Template: service/name\nType: string\nDefault: nobody\nDescription: the name\n\n\
             Template: service/secret\nType: password\nDescription: the secret\n",
        )
        .config(
            "#!/bin/sh\n. /usr/share/debconf/confmodule\n\
             db_input high service/name\ndb_input high service/secret\ndb_go\n",
        )
        .script(
            "postinst",
            "#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\ndb_get service/name\n\
             echo \"$RET\" >/etc/service/name\nmkdir -p /var/log/service\n\
             echo log >/var/log/service/log\n",
        )
}

#[test]
fn a_build_installs_prepares_and_removes() {
    let workshop = Workshop::with(&[
        service(),
        Package::new("service-data", "1").field("Recommends", "tool"),
        Package::new("tool", "1"),
        Package::new("tool", "2"),
        Package::new("vendor", "3").file("opt/vendor/bin/v", 0o755, "v"),
    ]);
    Package::new("own", "5")
        .depends("vendor")
        .build(&workshop.path("own"));
    write(
        workshop.path("own/answers"),
        "service service/name string somebody\nservice service/secret password s3cret\n",
    );
    let packages = "dpkg-query -W -f 'MARK ${Package} ${Version} ${db:Status-Abbrev}\\n' \
                    | grep -E ' (service|service-data|tool|vendor|own) '";
    let facts = workshop.facts(&format!(
        "COPY own/ /tmp/own/
RUN cd /tmp/own && apt-ostree install --debconf answers service tool=1 ./own_5_all.deb
RUN apt-ostree container lint --fatal-warnings
RUN {packages}
RUN echo MARK name $(cat /etc/service/name); echo MARK seed $(cat /usr/share/factory/var/lib/service/seed); \\
    echo MARK opt $(cat /usr/lib/opt/vendor/bin/v); \\
    echo MARK left $(find /var/lib/apt/lists /var/cache/apt /var/log -type f); \\
    echo MARK secret $(grep -rl s3cret /etc /var /usr/share/factory)
RUN apt-ostree install tool && apt-ostree uninstall --install tool service \\
    && apt-ostree uninstall --idempotent service && apt-ostree container lint --fatal-warnings
RUN echo MARK afterwards; {packages}; ls /etc/service/main.conf || echo MARK purged"
    ));
    assert_eq!(
        facts,
        [
            "own 5 ii ",
            "service 1 ii ",
            "service-data 1 ii ",
            "tool 1 ii ",
            "vendor 3 ii ",
            "name somebody",
            "seed seed",
            "opt v",
            "left",
            "secret",
            "afterwards",
            "own 5 ii ",
            "tool 2 ii ",
            "vendor 3 ii ",
            "purged",
        ]
    );
}

#[test]
fn what_makes_no_sense_in_a_build_is_refused_by_name() {
    let workshop = Workshop::with(&[]);
    let mut lines = String::new();
    let cases = [
        "install --reboot --cache-only --scripts strict tool",
        "install --dry-run --json --stateroot x tool",
        "install --download-only tool",
        "install --apply-live tool",
        "install --script-timeout 5 --conflicts fail --lock-finalization --unchanged-exit-77 tool",
        "uninstall --all",
        "install https://example.org/tool.deb",
        "uninstall ./tool.deb",
        "uninstall not-there nor-this",
        "install ./missing.deb",
        "install --debconf missing tool",
        "upgrade",
        "override remove tool",
        "kargs --append=x",
    ];
    for case in cases {
        lines += &format!(
            "RUN apt-ostree {case} >/tmp/said 2>&1; status=$?; echo MARK $status $(cat /tmp/said)\n"
        );
    }
    let facts = workshop.facts(&lines);
    let expected: [(&str, &[&str]); 14] = [
        ("2", &["no `--cache-only`, `--scripts`, `--reboot` hint:"]),
        ("2", &["no `--stateroot`, `--dry-run`, `--json` hint:"]),
        ("2", &["no `--download-only` hint:"]),
        ("2", &["no `--apply-live` hint:"]),
        (
            "2",
            &["`--conflicts`, `--script-timeout`, `--unchanged-exit-77`, `--lock-finalization` hint:"],
        ),
        ("2", &["no `--all` hint:"]),
        (
            "2",
            &[
                "https://example.org/tool.deb is not fetched",
                "hint: fetch it with `ADD",
            ],
        ),
        ("2", &["./tool.deb is a file"]),
        (
            "1",
            &["`not-there` is not installed; `nor-this` is not installed"],
        ),
        ("1", &["./missing.deb cannot be read"]),
        ("1", &["missing cannot be read"]),
        (
            "1",
            &["needs a host booted from OSTree", "`FROM` names the image"],
        ),
        ("1", &["`RUN apt-ostree uninstall NAME` takes it out"]),
        ("1", &["/usr/lib/bootc/kargs.d/NAME.toml"]),
    ];
    assert_eq!(facts.len(), expected.len(), "{facts:#?}");
    for ((status, parts), fact) in expected.into_iter().zip(&facts) {
        assert!(fact.starts_with(&format!("{status} error: ")), "{status}: {fact}");
        for part in parts {
            assert!(fact.contains(part), "{part}: {fact}");
        }
    }
}

#[test]
fn a_package_that_fails_fails_the_build_and_says_why() {
    let workshop = Workshop::with(&[
        Package::new("broken", "1").script("postinst", "#!/bin/sh\necho no luck today >&2\nexit 7\n")
    ]);
    let (built, log) = workshop.build("RUN apt-ostree --quiet install broken");
    assert!(!built, "{log}");
    let (_, said) = log.split_once("error: ").unwrap_or_else(|| panic!("{log}"));
    for part in [
        "`apt-get install` failed",
        "no luck today",
        "broken package post-installation",
    ] {
        assert!(said.contains(part), "{part}: {log}");
    }
    let (built, log) = workshop.build("RUN apt-ostree install x.*y");
    assert!(!built && log.contains("`x.*y` is no package request"), "{log}");
    let (built, log) = workshop.build("RUN apt-ostree install no.such");
    assert!(
        !built && log.contains("Unable to locate package no.such"),
        "{log}"
    );
    let key = "files/usr/share/keyrings/test-archive.gpg";
    std::fs::remove_file(workshop.path(key)).unwrap();
    let (built, log) = workshop.build("RUN apt-ostree install broken");
    assert!(!built && log.contains("error: `apt-get update` failed"), "{log}");
}
