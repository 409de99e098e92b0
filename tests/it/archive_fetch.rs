//! Packages of a plan: fetched at the same time, verified, inflated, cached and bounded.

use crate::support::archive::Archive;
use crate::support::base::Base;
use crate::support::package::Package;
use crate::support::run;
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::layer::fetch::Vanished;
use apt_ostree::layer::plan::{FetchedPackage, Plan};
use apt_ostree::layer::refresh::Refresh;
use apt_ostree::layer::store;
use apt_ostree::report::Silent;
use std::path::Path;

/// A package whose file is about so many bytes.
fn sized(name: &str, bytes: usize) -> Package {
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(bytes)
    .collect();
    Package::new(name, "1").file(&format!("usr/share/{name}"), 0o644, noise)
}

fn fetch(base: &Base, plan: &Plan) -> Vec<FetchedPackage> {
    let fetched = base.open().fetch(plan, false, &Silent);
    fetched.unwrap_or_else(|error| panic!("{error:#}"))
}

fn refused(base: &Base, plan: &Plan, cache_only: bool) -> anyhow::Error {
    let fetched = base.open().fetch(plan, cache_only, &Silent);
    fetched.expect_err("a refusal")
}

fn fault(error: &anyhow::Error) -> Fault {
    Fault::find(error)
        .unwrap_or_else(|| panic!("no fault: {error:#}"))
        .clone()
}

fn debs(repository: &mut Archive) -> Vec<String> {
    let mut paths = repository.web().take_requests();
    paths.retain(|path| path.ends_with(".deb"));
    paths
}

fn members(path: &Path) -> Vec<String> {
    let list = run("ar", ["t", path.to_str().expect("UTF-8")]);
    list.lines().map(str::to_owned).collect()
}

#[test]
fn every_compression_arrives_inflated_and_is_the_same_package() {
    let packages: Vec<Package> = ["xz", "zstd", "gzip", "none"]
        .iter()
        .map(|form| {
            Package::new(&format!("in-{form}"), "1:2")
                .compression(form)
                .file("usr/bin/tool", 0o4755, "#!/bin/sh\n")
                .owner("usr/bin/tool", 6001, 6002)
                .script("postinst", "#!/bin/sh\n")
                .symlink("usr/bin/link", "tool")
        })
        .collect();
    let repository = Archive::with(&packages);
    let base = Base::using(&repository, &[]);
    let plan = base.plan(&["in-xz", "in-zstd", "in-gzip", "in-none"]);
    let fetched = fetch(&base, &plan);
    let names: Vec<&str> = fetched.iter().map(|package| package.id.name.as_str()).collect();
    assert_eq!(
        names,
        ["in-gzip", "in-none", "in-xz", "in-zstd"],
        "in the plan's order"
    );
    for package in &fetched {
        let original = repository.path(&format!("pool/stable/main/{}_1%3a2_all.deb", package.id.name));
        let members = members(&package.path);
        assert!(members.len() == 3 && members[2] == "data.tar", "{members:?}");
        let (original, inflated) = (original.to_str().unwrap(), package.path.to_str().unwrap());
        for listing in ["--contents", "--info", "--field"] {
            let skip_sizes = |text: String| {
                let lines = text.lines().filter(|line| !line.starts_with(" size "));
                lines.map(|line| format!("{line}\n")).collect::<String>()
            };
            assert_eq!(
                skip_sizes(run("dpkg-deb", [listing, original])),
                skip_sizes(run("dpkg-deb", [listing, inflated]))
            );
        }
    }
    let partial = base.places().cache().join("archives/partial");
    assert_eq!(std::fs::read_dir(partial).unwrap().count(), 0);
}

#[test]
fn packages_are_fetched_at_the_same_time() {
    let names = ["a1", "a2", "a3", "a4"];
    let packages: Vec<Package> = names.iter().map(|name| sized(name, 1000)).collect();
    let mut repository = Archive::with(&packages);
    let base = Base::using(&repository, &[]);
    let plan = base.plan(&names);
    repository.web().gather(4);
    fetch(&base, &plan);
    assert_eq!(repository.web().most_at_once(), 4);
}

#[test]
fn many_packages_share_few_connections() {
    let names: Vec<String> = (0..40).map(|number| format!("p{number}")).collect();
    let packages: Vec<Package> = names.iter().map(|name| Package::new(name, "1")).collect();
    let mut repository = Archive::with(&packages);
    let base = Base::using(&repository, &[]);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let plan = base.plan(&names);
    debs(&mut repository);
    assert_eq!(fetch(&base, &plan).len(), 40);
    assert_eq!(debs(&mut repository).len(), 40, "each once");
}

#[test]
fn what_is_cached_needs_no_network() {
    let mut repository = Archive::with(&[sized("tool", 1000), Package::new("other", "1")]);
    let base = Base::using(&repository, &[]);
    let plan = base.plan(&["tool"]);
    let both = base.plan(&["tool", "other"]);
    let missing = fault(&refused(&base, &plan, true));
    assert_eq!(missing.kind, Kind::NotFound);
    assert!(missing.message.contains("tool") && missing.hint.unwrap().contains("--cache-only"));
    assert!(debs(&mut repository).is_empty(), "nothing was asked for");
    fetch(&base, &plan);
    repository.web().stop();
    let archive = base.open();
    let again = archive
        .solve(&crate::support::base::requesting(&["tool"]), &Silent)
        .unwrap();
    assert_eq!(again, plan, "solving needs no network either");
    assert_eq!(archive.fetch(&again, true, &Silent).unwrap().len(), 1);
    drop(archive);
    let missing = fault(&refused(&base, &both, true));
    assert!(missing.message.ends_with("the packages other"), "{missing}");
    assert_eq!(fault(&refused(&base, &both, false)).kind, Kind::Unreachable);
}

#[test]
fn a_damaged_cache_is_noticed_and_fetched_again() {
    let mut repository = Archive::with(&[sized("tool", 100_000)]);
    let base = Base::using(&repository, &[]);
    let plan = base.plan(&["tool"]);
    let path = fetch(&base, &plan)[0].path.clone();
    let good = std::fs::read(&path).unwrap();
    debs(&mut repository);
    fetch(&base, &plan);
    assert!(debs(&mut repository).is_empty());

    let mut bad = good.clone();
    bad[50_000] ^= 1;
    for damage in [&bad[..], &good[..70_000], b""] {
        std::fs::write(&path, damage).unwrap();
        assert_eq!(fetch(&base, &plan)[0].path, path);
        assert_eq!(std::fs::read(&path).unwrap(), good);
        assert_eq!(debs(&mut repository).len(), 1);
    }
    // Touched and found whole: nothing to fetch.
    std::fs::write(&path, &good).unwrap();
    fetch(&base, &plan);
    assert!(debs(&mut repository).is_empty());
    std::fs::write(path.with_extension("sum"), "{").unwrap();
    fetch(&base, &plan);
    assert_eq!(debs(&mut repository).len(), 1);
}

#[test]
fn a_forged_package_is_refused() {
    let repository = Archive::with(&[sized("tool", 1000)]);
    let base = Base::using(&repository, &[]);
    let plan = base.plan(&["tool"]);
    sized("tool", 2000).build(&repository.path("pool/stable/main"));
    let refused = fault(&refused(&base, &plan, false));
    assert_eq!(refused.kind, Kind::Invalid, "{refused}");
    assert!(refused.message.contains("tool"), "{refused}");
    let archives = base.places().cache().join("archives");
    let kept = std::fs::read_dir(archives)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().is_file());
    assert_eq!(kept.count(), 0);
}

#[test]
fn a_vanished_package_can_be_solved_again_and_names_itself() {
    let mut repository = Archive::with(&[Package::new("tool", "1"), Package::new("other", "1")]);
    let base = Base::using(&repository, &[]);
    let plan = base.plan(&["tool", "other"]);
    repository.publish(&[Package::new("tool", "2"), Package::new("other", "1")]);
    let error = refused(&base, &plan, false);
    let vanished = error
        .downcast_ref::<Vanished>()
        .unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(vanished.packages[0].name, "tool");
    let told = fault(&error);
    assert_eq!(told.message, "The repository no longer has tool 1");
    assert!(told.hint.unwrap().contains("apt-ostree uninstall tool"));
    let plan = base.plan(&["tool", "other"]);
    assert_eq!(fetch(&base, &plan)[1].id.version, "2");
    assert_eq!(
        debs(&mut repository)
            .iter()
            .filter(|path| path.contains("other"))
            .count(),
        1
    );
}

#[test]
fn another_file_of_the_same_version_is_another_package() {
    let mut repository = Archive::with(&[sized("tool", 1000)]);
    let base = Base::using(&repository, &[]);
    let first = fetch(&base, &base.plan(&["tool"]));
    repository.publish(&[sized("tool", 3000)]);
    let second = fetch(&base, &base.plan(&["tool"]));
    assert_eq!(first[0].id, second[0].id);
    assert_ne!(first[0].path, second[0].path);
}

#[test]
fn local_packages_are_inflated_too() {
    let base = Base::new(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = sized("tool", 1000).compression("xz").build(folder.path());
    let local = store::add_local(&base.places(), &file).unwrap();
    let intent = apt_ostree::layer::intent::Intent {
        local_packages: [local].into(),
        ..Default::default()
    };
    let plan = base.solve(&intent).unwrap();
    let fetched = base.open().fetch(&plan, true, &Silent).unwrap();
    assert_eq!(members(&fetched[0].path)[2], "data.tar");
    assert_eq!(
        base.open().fetch(&plan, true, &Silent).unwrap()[0].path,
        fetched[0].path
    );
    // The host's own copy is not trusted blindly either.
    let kept = base
        .places()
        .state()
        .join("local")
        .join(format!("{}.deb", plan.packages[0].sha256));
    std::fs::remove_dir_all(base.places().cache().join("archives")).unwrap();
    sized("tool", 2000).build(folder.path());
    std::fs::copy(&file, kept).unwrap();
    assert_eq!(fault(&refused(&base, &plan, true)).kind, Kind::Invalid);
}

#[test]
fn credentials_are_used_for_packages_too() {
    let mut repository = Archive::with(&[Package::new("tool", "1")]);
    let base = Base::using(&repository, &[]);
    let login = format!(
        "machine {} login user password secret\n",
        repository.web().address()
    );
    let file = base.apt("auth.conf.d/test.conf");
    crate::support::write(&file, login);
    repository.web().require("dXNlcjpzZWNyZXQ=");
    let plan = base.plan(&["tool"]);
    std::fs::rename(&file, base.apt("away")).unwrap();
    assert_eq!(fault(&refused(&base, &plan, false)).kind, Kind::Denied);
    std::fs::rename(base.apt("away"), &file).unwrap();
    fetch(&base, &plan);
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_needed() {
    let repository = Archive::with(&[sized("tool", 1000), sized("other", 1000)]);
    let base = Base::using(&repository, &[]);
    let plan = base.plan(&["tool", "other"]);
    let fetched = fetch(&base, &plan);
    let archive = base.open();
    archive.trim(&[]).unwrap();
    assert!(
        fetched.iter().all(|package| package.path.exists()),
        "far below the bound"
    );
    archive.trim_to(&[fetched[1].id.clone()], 0).unwrap();
    assert!(!fetched[0].path.exists() && fetched[1].path.exists());
    assert!(!fetched[0].path.with_extension("sum").exists());
}

#[test]
fn refreshing_keeps_the_packages() {
    let repository = Archive::with(&[Package::new("tool", "1")]);
    let base = Base::using(&repository, &[]);
    let fetched = fetch(&base, &base.plan(&["tool"]));
    base.open().refresh(Refresh::Always, &Silent).unwrap();
    assert!(fetched[0].path.exists());
}
