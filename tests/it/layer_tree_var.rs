//! What becomes of `/var` and `/opt`: a host gets everything a package needs there, and nothing of it replaces data.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::debian::Debian;
use crate::support::layered::{Checkout, Layering, inside};
use crate::support::package::Package;
use crate::support::run;
use std::collections::BTreeMap;
use std::path::Path;

/// Returns mode, owner, link text and content of everything below `path`, with ids.
fn state(path: &Path) -> BTreeMap<String, String> {
    let format = "%P\\0%M %U:%G %l\\0";
    let list = run(
        "find",
        [path.to_str().unwrap(), "-mindepth", "1", "-printf", format],
    );
    let mut words = list.split('\0');
    let mut state = BTreeMap::new();
    while let (Some(name), Some(facts)) = (words.next().filter(|name| !name.is_empty()), words.next()) {
        let content = if facts.starts_with('-') {
            std::fs::read_to_string(path.join(name)).expect(name)
        } else {
            String::new()
        };
        state.insert(name.to_owned(), format!("{facts} {content}"));
    }
    state
}

/// Copies the commit's tree, empties its `/var` and lets its own systemd make what a new host has.
fn new_host(debian: &Debian, commit: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix("host-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap();
    let root = folder.path().join("root");
    debian.ostree(&[
        "checkout",
        "-U",
        "-C",
        "--fsync=false",
        commit,
        root.to_str().unwrap(),
    ]);
    folder
}

/// Lets the tree's own systemd-tmpfiles work on its `/var`, with `/etc` from `usr/etc`.
fn boot(root: &Path) {
    if !root.join("etc").exists() {
        let [from, to] = ["usr/etc", "etc"].map(|name| root.join(name).to_str().unwrap().to_owned());
        run("cp", ["-a", &from, &to]);
        // systemd writes it before it makes files.
        std::fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    }
    let tmpfiles =
        inside(root, Path::new("/usr/share"), "systemd-tmpfiles").args(["--create", "--prefix=/var"]);
    let output = tmpfiles.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("Failed"), "{said}");
}

fn app() -> Package {
    let postinst = "#!/bin/sh\nset -e\n\
        adduser --system --group --quiet --no-create-home --home /var/lib/app app\n\
        chown app:app '/var/lib/app/spool dir' && chmod 2770 '/var/lib/app/spool dir'\n\
        echo 'made by a script' > '/var/lib/app/it'\"'\"'s 100%'\n\
        chown app:app /var/lib/app/it* && chmod 0640 /var/lib/app/it*\n\
        ln -s '../app/a b' '/var/lib/app/a link'\n\
        echo x > /var/log/app.log; echo x > /var/cache/app.bin; : > /var/lib/app/.lock\n\
        mkdir -p /var/lib/ghostscript/fonts && echo 'made fonts' > /var/lib/ghostscript/fonts/Fontmap\n\
        ln -s /usr/share/app/font /var/lib/ghostscript/fonts/font\n\
        install -d -o app -g app -m 0700 /var/lib/base /var/lib/base/main /var/lib/base/main/empty\n\
        echo one > /var/lib/base/main/data && chown app:app /var/lib/base/main/data\n\
        chmod 0600 /var/lib/base/main/data\n";
    Package::new("app", "1")
        .file("var/lib/app/shipped", 0o604, "shipped")
        .dir("var/lib/app/spool dir", 0o755)
        .dir("var/cache/app/kept", 0o750)
        .file("srv/www/page", 0o644, "page")
        .script("postinst", postinst)
}

#[test]
fn a_new_host_has_all_of_var_with_content_mode_and_owner() {
    let debian = Debian::new();
    let wanted = std::sync::Mutex::new(BTreeMap::new());
    let layered = Layering::new(&debian, &[app()])
        .change(|root| *wanted.lock().unwrap() = state(&root.join("var")))
        .run();
    let wanted = wanted.into_inner().unwrap();
    // The scripts took the first free ids; those of the host are 500.
    let taken = wanted["lib/app/spool dir"].split(' ').nth(1).unwrap().to_owned();
    assert_ne!(taken, "500:500");
    let tree = Checkout::of(&debian, &layered.commit);
    assert!(!tree.has("var/lib/app"), "a host's /var is not in the commit");
    let host = new_host(&debian, &layered.commit);
    let root = host.path().join("root");
    std::fs::remove_dir_all(root.join("var")).unwrap();
    std::fs::create_dir(root.join("var")).unwrap();
    boot(&root);
    let made = state(&root.join("var"));
    for (name, facts) in &wanted {
        let of_app = ["lib/app", "lib/base", "lib/ghostscript", "cache/app", "srv"];
        let dropped = ["lib/app/.lock", "cache/app.bin"];
        if !of_app.iter().any(|start| name.starts_with(start)) || dropped.contains(&name.as_str()) {
            continue;
        }
        let expected = facts.replace(&taken, "500:500");
        if name.starts_with("lib/ghostscript/fonts/Fontmap") {
            let path = root.join("var").join(name);
            assert!(path.symlink_metadata().unwrap().is_symlink());
            assert_eq!(std::fs::read_to_string(path).unwrap(), "made fonts\n");
            continue;
        }
        assert_eq!(made.get(name), Some(&expected), "{name}");
    }
    assert!(wanted.len() > 20 && made.contains_key("lib/base/main/empty"));
    for gone in ["log/app.log", "cache/app.bin", "lib/app/.lock"] {
        assert!(!made.contains_key(gone), "{gone}");
    }
    debian.assert_sound();
}

#[test]
fn live_data_is_never_merged_with_what_a_layer_brings() {
    let debian = Debian::new();
    let first = Layering::new(&debian, &[app()]).run();
    let host = new_host(&debian, &first.commit);
    let root = host.path().join("root");
    boot(&root);
    let database = root.join("var/lib/base");
    std::fs::write(database.join("main/data"), "live").unwrap();
    std::fs::write(database.join("main/more"), "live").unwrap();
    std::fs::remove_dir(database.join("main/empty")).unwrap();
    std::fs::write(root.join("var/lib/app/shipped"), "changed by the host").unwrap();
    let before = state(&root.join("var"));
    boot(&root);
    assert_eq!(state(&root.join("var")), before);

    // The next layer generates other fonts: the host follows, its data stay.
    let next = Layering::new(&debian, &[app()])
        .change(|root| {
            std::fs::write(root.join("var/lib/ghostscript/fonts/Fontmap"), "new fonts\n").unwrap();
            std::fs::write(root.join("var/lib/base/main/second"), "").unwrap();
        })
        .run();
    let updated = new_host(&debian, &next.commit);
    let new_root = updated.path().join("root");
    std::fs::remove_dir_all(new_root.join("var")).unwrap();
    std::fs::rename(root.join("var"), new_root.join("var")).unwrap();
    boot(&new_root);
    let fonts = new_root.join("var/lib/ghostscript/fonts/Fontmap");
    assert_eq!(std::fs::read_to_string(fonts).unwrap(), "new fonts\n");
    assert_eq!(state(&new_root.join("var")), before);
}

#[test]
fn a_database_is_declared_as_one_unit() {
    let debian = Debian::new();
    let layered = Layering::new(&debian, &[app()]).run();
    let tree = Checkout::of(&debian, &layered.commit);
    let made = tree.text("usr/lib/tmpfiles.d/00-apt-ostree-image.conf");
    let lines: Vec<&str> = made
        .lines()
        .filter(|line| line.contains("/var/lib/base"))
        .collect();
    assert_eq!(lines, ["C /var/lib/base 0700 app app -"]);
    assert!(
        made.contains("L+ /var/lib/ghostscript/fonts/Fontmap - - - - ../../../../usr/share/factory/var/")
    );
    assert_eq!(tree.text("usr/share/factory/var/lib/base/main/data"), "one\n");
}

#[test]
fn an_opt_payload_is_in_usr_with_any_name() {
    let debian = Debian::new();
    let package = Package::new("vendor", "1")
        .file(
            "opt/Big Vendor's \"app\"/bin/run it",
            0o755,
            "#!/bin/sh\necho running\n",
        )
        .symlink("opt/Big Vendor's \"app\"/current", "bin/run it");
    let layered = Layering::new(&debian, &[package]).run();
    let tree = Checkout::of(&debian, &layered.commit);
    assert_eq!(
        tree.owner("usr/lib/opt/Big Vendor's \"app\"/bin/run it"),
        (0o755, 0, 0)
    );
    let host = new_host(&debian, &layered.commit);
    let root = host.path().join("root");
    boot(&root);
    assert_eq!(
        std::fs::read_to_string(root.join("var/opt/Big Vendor's \"app\"/current")).unwrap(),
        "#!/bin/sh\necho running\n"
    );
    // Without the package nothing of it is left.
    let without = Layering::new(&debian, &[]).run();
    assert!(!Checkout::of(&debian, &without.commit).has("usr/lib/opt"));
}

#[test]
fn lines_for_var_go_with_the_package() {
    let debian = Debian::new();
    let with = Package::new("state", "1").file("var/lib/state/file", 0o644, "1");
    let without = Package::new("state", "2").file("usr/share/state/file", 0o644, "1");
    let generated = "usr/lib/tmpfiles.d/00-apt-ostree-image.conf";
    let first = Layering::new(&debian, &[with]).run();
    assert!(
        Checkout::of(&debian, &first.commit)
            .text(generated)
            .contains("/var/lib/state/file")
    );
    let second = Layering::new(&debian, &[without]).run();
    let tree = Checkout::of(&debian, &second.commit);
    assert!(!tree.text(generated).contains("/var/lib/state"));
    assert!(!tree.has("usr/share/factory/var/lib/state"));
}
