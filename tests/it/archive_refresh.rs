//! Indexes of repositories: what is trusted, when they are fetched, and what a failure says.

use crate::support::archive::{Archive, SUITE};
use crate::support::base::Base;
use crate::support::keys::Key;
use crate::support::package::Package;
use crate::support::write;
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::layer::refresh::Refresh;
use apt_ostree::report::Silent;

fn tool() -> Package {
    Package::new("tool", "1")
}

/// Refreshes and returns the fault it must end with.
fn refused(base: &Base) -> Fault {
    let error = base
        .open()
        .refresh(Refresh::Always, &Silent)
        .expect_err("a refusal");
    Fault::find(&error)
        .unwrap_or_else(|| panic!("no fault: {error:#}"))
        .clone()
}

#[test]
fn lists_are_fetched_when_they_are_due() {
    let mut repository = Archive::with(&[tool()]);
    let base = Base::using(&repository, &[]);
    assert!(!base.open().has_lists());
    assert!(base.open().refresh(Refresh::IfOld, &Silent).unwrap());
    assert!(base.open().has_lists());
    assert!(!repository.web().take_requests().is_empty());
    assert!(!base.open().refresh(Refresh::IfOld, &Silent).unwrap());
    assert!(
        repository.web().take_requests().is_empty(),
        "young lists cost nothing"
    );
    assert!(base.open().refresh(Refresh::Always, &Silent).unwrap());
    assert!(!repository.web().take_requests().is_empty());

    let stamp = base.places().cache().join("apt/refreshed");
    let hours_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 3600);
    std::fs::File::open(&stamp)
        .unwrap()
        .set_modified(hours_ago)
        .unwrap();
    assert!(base.open().refresh(Refresh::IfOld, &Silent).unwrap(), "old lists");

    repository.publish_in("testing", "main", &[tool()]);
    repository.enable(&base.root(), &base.root().join("usr/etc"));
    assert!(!base.open().has_lists());
    assert!(
        base.open().refresh(Refresh::IfOld, &Silent).unwrap(),
        "other sources"
    );
}

#[test]
fn a_tree_without_sources_needs_no_network() {
    let base = Base::new(&[]);
    assert!(!base.open().refresh(Refresh::Always, &Silent).unwrap());
    assert!(base.open().has_lists());
}

#[test]
fn a_cut_network_is_told_with_the_way_around_it() {
    let mut repository = Archive::with(&[tool()]);
    let base = Base::using(&repository, &[]);
    base.open().refresh(Refresh::Always, &Silent).unwrap();
    repository.web().stop();
    let fault = refused(&base);
    assert_eq!(fault.kind, Kind::Unreachable, "{fault}");
    let name = format!("{} {SUITE}", repository.web().address());
    assert!(fault.message.contains(&name), "{fault}");
    assert!(fault.hint.unwrap().contains("--cache-only"));
    assert!(base.open().has_lists(), "what was stored stays in use");
}

#[test]
fn only_the_failing_repository_is_named() {
    let good = Archive::with(&[tool()]);
    let bad = Archive::with(&[tool()]);
    let base = Base::using(&good, &[]);
    write(base.root().join("usr/share/keyrings/bad.gpg"), bad.keyring());
    write(
        base.apt("sources.list.d/bad.sources"),
        bad.sources("/usr/share/keyrings/bad.gpg"),
    );
    base.open().refresh(Refresh::Always, &Silent).unwrap();
    bad.leave_unsigned(SUITE);
    let (mut good, mut bad) = (good, bad);
    let fault = refused(&base);
    assert_eq!(fault.kind, Kind::Denied, "{fault}");
    assert!(fault.message.contains(&bad.web().address()), "{fault}");
    assert!(!fault.message.contains(&good.web().address()), "{fault}");
}

#[test]
fn an_unsigned_repository_is_refused_even_when_the_source_trusts_it() {
    let repository = Archive::with(&[tool()]);
    repository.leave_unsigned(SUITE);
    let base = Base::using(&repository, &[]);
    assert_eq!(refused(&base).kind, Kind::Denied);
    let sources = base.apt("sources.list.d/test.sources");
    let text = std::fs::read_to_string(&sources).unwrap();
    let text = text.trim_end().to_owned() + "\nTrusted: yes\nAllow-Insecure: yes\n";
    write(&sources, text);
    write(
        base.apt("apt.conf.d/90insecure"),
        "Acquire::AllowInsecureRepositories \"true\";\nAPT::Get::AllowUnauthenticated \"true\";\n",
    );
    let fault = refused(&base);
    assert_eq!(fault.kind, Kind::Denied, "{fault}");
    assert!(
        fault.message.contains(SUITE) && fault.message.contains("not trusted"),
        "{fault}"
    );
}

#[test]
fn another_key_is_refused_also_when_good_lists_are_stored() {
    let mut repository = Archive::with(&[tool()]);
    let base = Base::using(&repository, &[]);
    base.open().refresh(Refresh::Always, &Silent).unwrap();
    repository.change_key(Key::new("intruder"));
    let fault = refused(&base);
    assert_eq!(fault.kind, Kind::Denied, "{fault}");
    assert!(fault.message.contains(&repository.web().address()), "{fault}");
    assert!(fault.hint.unwrap().contains("Signed-By"));
}

#[test]
fn a_key_that_does_not_exist_does_not_turn_into_any_key() {
    let repository = Archive::with(&[tool()]);
    let base = Base::new(&[]);
    write(
        base.apt("sources.list.d/test.sources"),
        repository.sources("/usr/share/keyrings/none.gpg"),
    );
    write(base.apt("trusted.gpg.d/any.gpg"), repository.keyring());
    assert_eq!(refused(&base).kind, Kind::Denied);
}

#[test]
fn an_expired_or_tampered_index_is_refused() {
    let repository = Archive::with(&[tool()]);
    let base = Base::using(&repository, &[]);
    repository.sign(SUITE, "Valid-Until: Sat, 01 Feb 2020 00:00:00 UTC\n");
    let fault = refused(&base);
    assert_eq!(fault.kind, Kind::Denied, "{fault}");
    assert!(fault.message.contains("stable/InRelease"), "{fault}");
    repository.sign(SUITE, "");
    let index = repository.path("dists/stable/main/binary-amd64/Packages");
    let text = std::fs::read_to_string(&index).unwrap();
    write(&index, text.replace("Package: tool", "Package: toil"));
    let fault = refused(&base);
    assert_eq!(fault.kind, Kind::Denied, "{fault}");
    assert!(fault.message.contains("Packages"), "{fault}");
}

#[test]
fn credentials_of_auth_conf_d_open_a_repository_and_stay_private() {
    let mut repository = Archive::with(&[tool()]);
    repository.web().require("dXNlcjpzZWNyZXQ=");
    let base = Base::using(&repository, &[]);
    let fault = refused(&base);
    assert_eq!(fault.kind, Kind::Denied, "{fault}");
    assert!(fault.hint.unwrap().contains("auth.conf.d"));
    let machine = repository.web().address();
    let login = format!("machine {machine} login user password secret\n");
    write(base.apt("auth.conf.d/test.conf"), login);
    base.open().refresh(Refresh::Always, &Silent).unwrap();
    let copy = base.places().cache().join("apt/etc/auth.conf.d/test.conf");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(copy).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o600);
    std::fs::remove_file(base.apt("auth.conf.d/test.conf")).unwrap();
    assert_eq!(
        refused(&base).kind,
        Kind::Denied,
        "nothing is left of removed credentials"
    );
}

#[test]
fn no_hook_of_an_image_runs() {
    let repository = Archive::with(&[tool()]);
    let base = Base::using(&repository, &[]);
    let sign = base.root().join("ran");
    let touch = format!("touch {}", sign.display());
    let program = base.root().join("program");
    write(&program, format!("#!/bin/sh\n{touch}\necho DIRECT\n"));
    let run = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, run).unwrap();
    let program = program.display();
    let hooks = format!(
        "APT::Update::Pre-Invoke {{ \"{touch}\"; }};\nAPT::Update::Post-Invoke {{ \"{touch}\"; }};\n\
         APT::Update::Post-Invoke-Success {{ \"{touch}\"; }};\nDPkg::Pre-Invoke {{ \"{touch}\"; }};\n\
         DPkg::Pre-Install-Pkgs {{ \"{touch}\"; }};\nDPkg::Post-Invoke {{ \"{touch}\"; }};\n\
         Acquire::http::Proxy-Auto-Detect \"{program}\";\nDir::Bin::dpkg \"{program}\";\n\
         Dir::Bin::gpg \"{program}\";\nDir::Bin::Methods \"{program}\";\nDir::Bin::apt-key \"{program}\";\n"
    );
    write(base.apt("apt.conf.d/docker-clean"), &hooks);
    write(base.apt("apt.conf"), &hooks);
    base.open().refresh(Refresh::Always, &Silent).unwrap();
    assert!(!sign.exists());
}

#[test]
fn keys_and_sources_of_the_administrator_count() {
    let repository = Archive::with(&[tool()]);
    let mut base = Base::new(&[]);
    let etc = base.root().join("../etc");
    base.etc.current = Some(etc.clone());
    base.etc.before = Some(base.etc.after.clone());
    write(etc.join("debian_version"), "13\n");
    write(etc.join("apt/keyrings/mine.gpg"), repository.keyring());
    write(
        etc.join("apt/sources.list.d/mine.sources"),
        repository.sources("/etc/apt/keyrings/mine.gpg"),
    );
    assert!(base.open().refresh(Refresh::IfOld, &Silent).unwrap());
}
