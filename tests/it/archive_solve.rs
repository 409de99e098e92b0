//! What a request resolves to against a frozen image, and what is said when it cannot be met.

use crate::support::archive::Archive;
use crate::support::base::{Base, requesting};
use crate::support::package::Package;
use crate::support::write;
use apt_ostree::fault::{Fault, Kind};
use apt_ostree::layer::intent::{Intent, PackageRequest};
use apt_ostree::layer::plan::{Plan, Step};
use apt_ostree::layer::store;
use apt_ostree::report::Silent;
use std::collections::BTreeSet;

fn requests(names: &[&str]) -> BTreeSet<PackageRequest> {
    names
        .iter()
        .map(|name| name.parse().expect("a request"))
        .collect()
}

fn planned(base: &Base, intent: &Intent) -> Plan {
    base.solve(intent).unwrap_or_else(|error| panic!("{error:#}"))
}

fn refused(base: &Base, intent: &Intent) -> Fault {
    let error = base.solve(intent).expect_err("a refusal");
    Fault::find(&error)
        .unwrap_or_else(|| panic!("no fault: {error:#}"))
        .clone()
}

/// Returns `name:architecture=version` of what is installed.
fn names(plan: &Plan) -> Vec<String> {
    let id = |package: &apt_ostree::layer::plan::PlannedPackage| {
        format!(
            "{}:{}={}",
            package.id.name, package.id.architecture, package.id.version
        )
    };
    plan.packages.iter().map(id).collect()
}

fn installed(name: &str, version: &str) -> Package {
    Package::new(name, version).architecture("amd64")
}

#[test]
fn a_plan_has_order_sizes_addresses_and_marks() {
    let repository = Archive::with(&[
        Package::new("tool", "1:2")
            .depends("lib, base")
            .field("Recommends", "extra")
            .field("Installed-Size", "12"),
        installed("lib", "3").field("Pre-Depends", "first"),
        Package::new("first", "1"),
        Package::new("extra", "1"),
    ]);
    let base = Base::using(&repository, &[installed("base", "1")]);
    let plan = planned(&base, &requesting(&["tool"]));
    assert_eq!(
        names(&plan),
        ["first:all=1", "lib:amd64=3", "tool:all=1:2"],
        "no Recommends"
    );
    let order: Vec<(&str, Vec<&str>)> = plan
        .steps
        .iter()
        .map(|step| match step {
            Step::Unpack(all) => ("unpack", all),
            Step::Configure(all) => ("configure", all),
            Step::Remove(all) => ("remove", all),
        })
        .map(|(action, all)| (action, all.iter().map(|id| id.name.as_str()).collect()))
        .collect();
    assert_eq!(
        order,
        [
            ("unpack", vec!["first"]),
            ("configure", vec!["first"]),
            ("unpack", vec!["lib", "tool"]),
            ("configure", vec!["lib", "tool"]),
        ]
    );
    let tool = &plan.packages[2];
    assert!(!tool.automatic && plan.packages[0].automatic && plan.packages[1].automatic);
    assert_eq!(tool.installed_size, 12 * 1024);
    let file = repository.path("pool/stable/main/tool_1%3a2_all.deb");
    assert_eq!(tool.download_size, std::fs::metadata(&file).unwrap().len());
    let digest = crate::support::run("sha256sum", [file.to_str().unwrap()]);
    assert!(digest.starts_with(&tool.sha256), "{digest}");
    assert!(
        tool.uri.as_ref().unwrap().starts_with("http://127.0.0.1"),
        "{tool:?}"
    );
    assert!(tool.repository.contains("stable"), "{tool:?}");
}

#[test]
fn recommends_and_the_default_suite_follow_the_configuration_of_the_image() {
    let mut repository = Archive::with(&[
        Package::new("tool", "1").field("Recommends", "extra"),
        Package::new("extra", "1"),
    ]);
    repository.publish_in("testing", "main", &[Package::new("tool", "2")]);
    let base = Base::using(&repository, &[]);
    assert_eq!(names(&planned(&base, &requesting(&["tool"]))), ["tool:all=2"]);
    write(
        base.apt("apt.conf.d/90local"),
        "APT::Install-Recommends \"true\";\nAPT::Default-Release \"stable\";\n",
    );
    assert_eq!(
        names(&planned(&base, &requesting(&["tool"]))),
        ["extra:all=1", "tool:all=1"]
    );
    assert_eq!(
        names(&planned(&base, &requesting(&["tool/testing"]))),
        ["tool:all=2"]
    );
    assert_eq!(names(&planned(&base, &requesting(&["tool=2"]))), ["tool:all=2"]);
}

#[test]
fn preferences_of_the_administrator_stay_in_force() {
    let mut repository = Archive::with(&[Package::new("tool", "1")]);
    repository.publish_in(
        "testing",
        "main",
        &[Package::new("tool", "2"), installed("base", "2")],
    );
    let base = Base::using(&repository, &[installed("base", "1")]);
    write(
        base.apt("preferences.d/90local.pref"),
        "Package: *\nPin: release a=testing\nPin-Priority: 100\n\nPackage: base\nPin: release a=testing\nPin-Priority: 1500\n",
    );
    assert_eq!(
        names(&planned(&base, &requesting(&["tool"]))),
        ["tool:all=1"],
        "and the image stays frozen"
    );
}

#[test]
fn what_the_image_provides_is_dormant_until_the_image_drops_it() {
    let repository = Archive::with(&[
        installed("tool", "2"),
        installed("mailer", "1").field("Provides", "mail"),
    ]);
    let base = Base::using(
        &repository,
        &[
            installed("tool", "1"),
            installed("post", "1").field("Provides", "mail (= 1), x"),
        ],
    );
    let plan = planned(&base, &requesting(&["tool", "mail"]));
    assert!(plan.is_empty() && plan.steps.is_empty());
    let dormant: Vec<(&str, &str)> = plan
        .dormant
        .iter()
        .map(|dormant| (dormant.request.as_str(), dormant.provided_by.as_str()))
        .collect();
    assert_eq!(dormant, [("mail", "post 1"), ("tool", "tool 1")]);
    base.install(&[]);
    let plan = planned(&base, &requesting(&["tool", "mail"]));
    assert_eq!(names(&plan), ["mailer:amd64=1", "tool:amd64=2"]);
    assert!(plan.dormant.is_empty());
    assert!(
        plan.packages.iter().all(|package| !package.automatic),
        "a provider was asked for"
    );
}

#[test]
fn another_version_than_the_images_is_a_matter_of_override() {
    let repository = Archive::with(&[installed("tool", "2")]);
    let base = Base::using(&repository, &[installed("tool", "1")]);
    let fault = refused(&base, &requesting(&["tool=2"]));
    assert!(fault.message.contains("the image has tool 1"), "{fault}");
    assert!(fault.hint.unwrap().contains("override replace"));
    assert_eq!(planned(&base, &requesting(&["tool=1"])).dormant.len(), 1);
}

#[test]
fn all_unknown_packages_are_in_one_error() {
    let repository = Archive::with(&[Package::new("tool", "1")]);
    let base = Base::using(&repository, &[]);
    let fault = refused(&base, &requesting(&["nothing", "tool", "nobody:amd64", "tool=9"]));
    assert_eq!(fault.kind, Kind::NotFound);
    for word in ["`nothing`", "`nobody:amd64`", "`tool=9` (there is: 1)"] {
        assert!(fault.message.contains(word), "{fault}");
    }
    assert!(!fault.message.contains("`tool`"), "{fault}");
    assert!(fault.hint.unwrap().contains("search"));
    let archive = Base::using(&repository, &[]).open();
    let error = archive.solve(&requesting(&["tool"]), &Silent).unwrap_err();
    let fault = Fault::find(&error).expect("a fault").clone();
    assert!(
        fault.hint.unwrap().contains("refresh-md"),
        "there are no lists yet"
    );
}

#[test]
fn a_path_is_no_request_and_says_what_is() {
    let fault = "/usr/bin/tool".parse::<PackageRequest>().unwrap_err();
    assert_eq!(fault.kind, Kind::Usage);
    assert!(fault.message.contains("`/usr/bin/tool`") && fault.hint.unwrap().contains("NAME"));
}

#[test]
fn everything_unsatisfiable_is_told_at_once_with_apts_reason() {
    let repository = Archive::with(&[
        Package::new("fine", "1"),
        Package::new("broken", "1").depends("missing-library"),
        Package::new("also", "1").depends("fine (>= 5)"),
    ]);
    let base = Base::using(&repository, &[]);
    let fault = refused(&base, &requesting(&["fine", "broken", "also"]));
    assert!(
        fault.message.contains("`broken`") && fault.message.contains("missing-library"),
        "{fault}"
    );
    assert!(
        fault.message.contains("`also`") && fault.message.contains("fine (>= 5)"),
        "{fault}"
    );
    assert!(!fault.message.contains("`fine`"), "{fault}");
    assert_eq!(
        fault.hint.as_deref(),
        Some("go on without them: `apt-ostree uninstall also broken`")
    );
}

#[test]
fn requests_that_exclude_each_other_are_named_together() {
    let repository = Archive::with(&[
        Package::new("one", "1").field("Conflicts", "two"),
        Package::new("two", "1"),
    ]);
    let base = Base::using(&repository, &[]);
    planned(&base, &requesting(&["one"]));
    let fault = refused(&base, &requesting(&["one", "two"]));
    assert!(fault.message.contains("`one`, `two`"), "{fault}");
}

#[test]
fn an_image_older_than_the_archive_is_told_by_package_and_version() {
    let repository = Archive::with(&[
        Package::new("tool", "1").depends("base (>= 2)"),
        installed("base", "2").depends("libbase (= 2)"),
        installed("libbase", "2"),
    ]);
    let base = Base::using(&repository, &[installed("base", "1"), installed("libbase", "1")]);
    let fault = refused(&base, &requesting(&["tool"]));
    assert!(
        fault
            .message
            .contains("`tool` needs base 2 where the image has 1"),
        "{fault}"
    );
    assert!(
        fault.message.contains("libbase 2 where the image has 1"),
        "{fault}"
    );
    let hint = fault.hint.unwrap();
    assert!(
        hint.contains("apt-ostree upgrade") && hint.contains("override replace base libbase"),
        "{hint}"
    );

    let intent = Intent {
        replacements: requests(&["base", "libbase"]),
        ..requesting(&["tool"])
    };
    let plan = planned(&base, &intent);
    assert_eq!(names(&plan), ["base:amd64=2", "libbase:amd64=2", "tool:all=1"]);
    assert_eq!(plan.packages[0].replaces.as_deref(), Some("1"));
    assert!(!plan.packages[0].automatic);
}

#[test]
fn what_would_take_a_package_out_of_the_image_is_refused() {
    let repository = Archive::with(&[Package::new("clash", "1").field("Conflicts", "base")]);
    let base = Base::using(
        &repository,
        &[installed("base", "1"), installed("user", "1").depends("base")],
    );
    let fault = refused(&base, &requesting(&["clash"]));
    assert!(fault.message.contains("`clash` would take"), "{fault}");
    assert!(
        fault.message.contains("base") && fault.message.contains("user"),
        "{fault}"
    );
    let intent = Intent {
        removals: requests(&["base", "user"]),
        ..requesting(&["clash"])
    };
    let plan = planned(&base, &intent);
    let removed: Vec<&str> = plan.removals.iter().map(|id| id.name.as_str()).collect();
    assert_eq!(removed, ["base", "user"]);
    assert_eq!(plan.removals[0].version, "1");
}

#[test]
fn removals_work_offline_and_count_only_while_the_image_has_the_package() {
    let base = Base::new(&[installed("editor", "1"), installed("user", "1").depends("editor")]);
    let remove = |names: &[&str]| Intent {
        removals: requests(names),
        ..Intent::default()
    };
    let fault = refused(&base, &remove(&["editor"]));
    assert!(fault.message.contains("user"), "{fault}");
    let plan = planned(&base, &remove(&["editor", "user"]));
    assert_eq!(plan.removals.len(), 2);
    assert!(
        matches!(plan.steps.as_slice(), [Step::Remove(all)] if all.len() == 2),
        "{:?}",
        plan.steps
    );
    base.install(&[]);
    assert!(planned(&base, &remove(&["editor", "user"])).is_empty());
    let fault = refused(&base, &remove(&["dpkg"]));
    assert!(fault.message.contains("essential"), "{fault}");
    let intent = Intent {
        removals: requests(&["editor"]),
        ..requesting(&["editor"])
    };
    let fault = refused(&base, &intent);
    assert!(fault.message.contains("an override removes it"), "{fault}");
}

#[test]
fn a_replacement_follows_the_repository_and_holds_count() {
    let mut repository = Archive::with(&[installed("base", "2")]);
    let base = Base::using(&repository, &[installed("base", "1")]);
    let replace = |name: &str| Intent {
        replacements: requests(&[name]),
        ..Intent::default()
    };
    assert_eq!(names(&planned(&base, &replace("base"))), ["base:amd64=2"]);
    repository.publish(&[installed("base", "3"), installed("base", "0")]);
    assert_eq!(names(&planned(&base, &replace("base"))), ["base:amd64=3"]);
    assert_eq!(
        names(&planned(&base, &replace("base=0"))),
        ["base:amd64=0"],
        "also backwards"
    );
    let hold = std::fs::read_to_string(base.root().join("usr/lib/sysimage/dpkg/status")).unwrap();
    let (before, after) = hold.rsplit_once("install ok installed").expect("a status");
    write(
        base.root().join("usr/lib/sysimage/dpkg/status"),
        format!("{before}hold ok installed{after}"),
    );
    let fault = refused(&base, &replace("base"));
    assert!(fault.message.contains("holds `base` at version 1"), "{fault}");
    assert_eq!(names(&planned(&base, &replace("base=3"))), ["base:amd64=3"]);
    base.install(&[]);
    assert!(
        planned(&base, &replace("base")).is_empty(),
        "inactive without the package"
    );
}

#[test]
fn a_replacement_that_needs_others_names_them() {
    let repository = Archive::with(&[
        installed("base", "2").depends("libbase (= 2)"),
        installed("libbase", "2"),
    ]);
    let base = Base::using(
        &repository,
        &[
            installed("base", "1").depends("libbase (= 1)"),
            installed("libbase", "1"),
        ],
    );
    let replace = |names: &[&str]| Intent {
        replacements: requests(names),
        ..Intent::default()
    };
    let fault = refused(&base, &replace(&["base"]));
    assert!(
        fault.message.contains("libbase 2 where the image has 1"),
        "{fault}"
    );
    assert_eq!(planned(&base, &replace(&["base", "libbase"])).packages.len(), 2);
}

#[test]
fn foreign_architectures_follow_the_rules_of_multi_arch() {
    let library = |architecture: &str| {
        Package::new("lib", "1")
            .architecture(architecture)
            .field("Multi-Arch", "same")
    };
    let repository = Archive::with(&[
        library("amd64"),
        library("i386"),
        Package::new("game", "1")
            .architecture("i386")
            .depends("lib, runner, tool:any"),
        Package::new("runner", "1")
            .architecture("amd64")
            .field("Multi-Arch", "foreign"),
        Package::new("tool", "1")
            .architecture("amd64")
            .field("Multi-Arch", "allowed"),
        Package::new("plain", "1").architecture("i386").depends("single"),
        Package::new("single", "1").architecture("amd64"),
    ]);
    let base = Base::using(&repository, &[]);
    let fault = refused(&base, &requesting(&["game:i386"]));
    assert!(fault.message.contains("the image takes amd64"), "{fault}");
    assert!(fault.hint.unwrap().contains("APT::Architectures"));

    write(base.root().join("usr/lib/sysimage/dpkg/arch"), "amd64\ni386\n");
    let plan = planned(&base, &requesting(&["game:i386", "lib"]));
    assert_eq!(
        names(&plan),
        [
            "game:i386=1",
            "lib:amd64=1",
            "lib:i386=1",
            "runner:amd64=1",
            "tool:amd64=1"
        ]
    );
    assert_eq!(plan.foreign_architectures, ["i386"]);
    let fault = refused(&base, &requesting(&["plain:i386"]));
    assert!(fault.message.contains("single"), "{fault}");

    std::fs::remove_file(base.root().join("usr/lib/sysimage/dpkg/arch")).unwrap();
    write(
        base.apt("apt.conf.d/90arch"),
        "APT::Architectures { \"amd64\"; \"i386\"; };\n",
    );
    assert_eq!(
        planned(&base, &requesting(&["game:i386"])).foreign_architectures,
        ["i386"]
    );
}

#[test]
fn a_library_of_two_architectures_keeps_one_version() {
    let library = |architecture: &str, version: &str| {
        Package::new("lib", version)
            .architecture(architecture)
            .field("Multi-Arch", "same")
    };
    let repository = Archive::with(&[library("amd64", "2"), library("i386", "2")]);
    let base = Base::using(&repository, &[library("amd64", "1")]);
    write(base.root().join("usr/lib/sysimage/dpkg/arch"), "amd64\ni386\n");
    let fault = refused(&base, &requesting(&["lib:i386"]));
    assert!(fault.message.contains("lib 2 where the image has 1"), "{fault}");
}

#[test]
fn local_packages_are_solved_with_the_repositories() {
    let repository = Archive::with(&[Package::new("lib", "1"), Package::new("tool", "1")]);
    let base = Base::using(&repository, &[installed("base", "1")]);
    let folder = tempfile::tempdir().unwrap();
    let add = |package: &Package| store::add_local(&base.places(), &package.build(folder.path())).unwrap();
    let local = |package: &Package| Intent {
        local_packages: [add(package)].into(),
        ..Intent::default()
    };
    let tool = local(
        &Package::new("tool", "5")
            .depends("lib")
            .field("Installed-Size", "3"),
    );
    let plan = planned(&base, &tool);
    assert_eq!(names(&plan), ["lib:all=1", "tool:all=5"]);
    let planned_tool = &plan.packages[1];
    assert_eq!(
        (planned_tool.uri.as_deref(), planned_tool.repository.as_str()),
        (None, "local")
    );
    assert_eq!(planned_tool.sha256, tool.local_packages.first().unwrap().sha256);
    assert!(planned_tool.download_size > 0 && planned_tool.installed_size == 3072);
    assert!(!planned_tool.automatic && plan.packages[0].automatic);

    let fault = refused(&base, &local(&Package::new("odd", "1").architecture("arm64")));
    assert!(
        fault.message.contains("is for arm64, and the image takes amd64"),
        "{fault}"
    );
    let fault = refused(&base, &local(&installed("base", "2")));
    assert!(fault.hint.unwrap().contains("override replace"));
    assert_eq!(planned(&base, &local(&installed("base", "1"))).dormant.len(), 1);

    let replace = Intent {
        local_replacements: [add(&installed("base", "2"))].into(),
        ..Intent::default()
    };
    let plan = planned(&base, &replace);
    assert_eq!(names(&plan), ["base:amd64=2"]);
    assert_eq!(plan.packages[0].replaces.as_deref(), Some("1"));

    store::forget_unused(&base.places(), &[]).unwrap();
    let fault = refused(&base, &tool);
    assert!(fault.message.contains("gone") && fault.hint.unwrap().contains("uninstall tool"));
}

#[test]
fn a_local_package_needs_neither_sources_nor_network() {
    let base = Base::new(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = Package::new("tool", "1").build(folder.path());
    let intent = Intent {
        local_packages: [store::add_local(&base.places(), &file).unwrap()].into(),
        ..Intent::default()
    };
    assert_eq!(names(&planned(&base, &intent)), ["tool:all=1"]);
}

#[test]
fn a_package_that_vanished_blocks_by_name_and_with_a_way_out() {
    let mut repository = Archive::with(&[Package::new("tool", "1"), Package::new("other", "1")]);
    let base = Base::using(&repository, &[]);
    planned(&base, &requesting(&["tool", "other"]));
    repository.publish(&[Package::new("other", "1")]);
    let fault = refused(&base, &requesting(&["tool", "other"]));
    assert_eq!(fault.message, "No repository has `tool`");
}

#[test]
fn an_image_without_database_is_refused() {
    let base = Base::new(&[]);
    std::fs::remove_file(base.root().join("usr/lib/sysimage/dpkg/status")).unwrap();
    let error = base.try_open().unwrap_err();
    assert!(Fault::find(&error).unwrap().message.contains("dpkg database"));
}

#[test]
fn only_debian_packages_over_safe_ways_become_local_packages() {
    let base = Base::new(&[]);
    let text = base.root().join("no.deb");
    write(&text, "hello");
    let kind = |error: anyhow::Error| Fault::find(&error).expect("a fault").kind;
    let places = base.places();
    assert_eq!(kind(store::add_local(&places, &text).unwrap_err()), Kind::Invalid);
    assert_eq!(
        kind(store::add_local(&places, &base.root()).unwrap_err()),
        Kind::Usage
    );
    assert_eq!(
        kind(store::add_local(&places, &text.with_extension("none")).unwrap_err()),
        Kind::NotFound
    );
    assert_eq!(
        kind(store::download_url(&places, "http://127.0.0.1/x.deb").unwrap_err()),
        Kind::Denied
    );
    let port = crate::support::registry::free_port();
    let uri = format!("https://127.0.0.1:{port}/x.deb");
    assert_eq!(
        kind(store::download_url(&places, &uri).unwrap_err()),
        Kind::Unreachable
    );
    let kept = std::fs::read_dir(places.state().join("local")).unwrap().count();
    assert_eq!(kept, 0, "nothing is left of a refused file");
}
