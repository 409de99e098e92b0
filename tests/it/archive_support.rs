//! The repository of the tests, read by a real apt.

use crate::support::archive::Archive;
use crate::support::package::Package;
use crate::support::{run, write};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_package_is_what_was_described() {
    let folder = tempfile::tempdir().unwrap();
    let file = Package::new("tool", "1:2")
        .depends("libc6")
        .file("usr/bin/tool", 0o4755, "#!/bin/sh\n")
        .owner("usr/bin/tool", 6001, 6002)
        .symlink("usr/bin/other", "tool")
        .dir("var/lib/tool", 0o700)
        .conffile("etc/tool.conf", "a\n")
        .script("postinst", "#!/bin/sh\nexit 0\n")
        .triggers("interest-noawait /usr/bin\n")
        .compression("xz")
        .build(folder.path());
    let file = file.to_str().unwrap();
    assert!(file.ends_with("tool_1%3a2_all.deb"), "{file}");
    assert_eq!(
        run("dpkg-deb", ["-f", file, "Version", "Depends"]),
        "Version: 1:2\nDepends: libc6\n"
    );
    let list = run("dpkg-deb", ["-c", file]);
    for line in [
        "-rwsr-xr-x 6001/6002",
        "drwx------ root/root",
        "./usr/bin/other -> tool",
    ] {
        assert!(list.contains(line), "{list}");
    }
    let control = folder.path().join("control");
    run("dpkg-deb", ["-e", file, control.to_str().unwrap()]);
    assert_eq!(
        std::fs::read_to_string(control.join("conffiles")).unwrap(),
        "/etc/tool.conf\n"
    );
    assert_eq!(
        std::fs::metadata(control.join("postinst"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o755
    );
}

#[test]
fn apt_accepts_the_repository() {
    let mut archive = Archive::with(&[Package::new("tool", "1")]);
    archive.publish_in("testing", "extra", &[Package::new("tool", "2")]);
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    write(path("key.gpg"), archive.keyring());
    write(path("sources/test.sources"), archive.sources(&path("key.gpg")));
    write(path("status"), "");
    for folder in ["state/lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let options = format!(
        "-oDir::Etc=/dev/null -oDir::Etc::sourcelist=/dev/null -oDir::Etc::sourceparts={} -oDir::State={} \
         -oDir::Cache={} -oDir::State::status={} -oAPT::Sandbox::User=root",
        path("sources"),
        path("state"),
        path("cache"),
        path("status")
    );
    let apt = |program: &str, words: &str| run(program, options.split(' ').chain(words.split(' ')));
    apt("apt-get", "update --error-on=any");
    let found = apt("apt-cache", "madison tool");
    assert!(
        found.contains("testing/extra amd64") && found.contains("stable/main amd64"),
        "{found}"
    );
    assert!(
        archive
            .web()
            .take_requests()
            .iter()
            .any(|path| path.ends_with("/stable/InRelease"))
    );
}
