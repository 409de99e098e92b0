//! Users and groups of layered packages: one id for a name, for ever, and files that belong to it.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test has nobody else to tell"
)]

use crate::support::debian::Debian;
use crate::support::layered::{Checkout, Layering};
use crate::support::package::Package;
use crate::support::write;
use std::os::unix::fs::MetadataExt;

/// A service whose script makes a user and gives it files, as adduser does it in Debian.
fn service(name: &str) -> Package {
    let postinst = format!(
        "#!/bin/sh\nset -e\n\
         adduser --system --group --quiet --no-create-home --home /var/lib/{name} {name}\n\
         install -d -o {name} -g {name} -m 0750 /var/lib/{name} /usr/share/{name}\n\
         echo data > /usr/share/{name}/state && chown {name}:{name} /usr/share/{name}/state\n"
    );
    Package::new(name, "1").script("postinst", &postinst)
}

fn user_of(tree: &Checkout, path: &str) -> (u32, u32) {
    let found = tree.path(path).symlink_metadata().expect(path);
    (found.uid(), found.gid())
}

#[test]
fn ids_stay_whatever_is_layered_together() {
    let debian = Debian::new();
    let layer = |names: &[&str]| {
        let packages: Vec<Package> = names.iter().map(|name| service(name)).collect();
        let layered = Layering::new(&debian, &packages).run();
        assert!(
            layered.translated.warnings.is_empty(),
            "{:?}",
            layered.translated.warnings
        );
        Checkout::of(&debian, &layered.commit)
    };
    // Alone, both take the same id from the scripts.
    let first = layer(&["zeta"]);
    assert_eq!(user_of(&first, "usr/share/zeta/state"), (500, 500));
    let second = layer(&["alpha"]);
    assert_eq!(user_of(&second, "usr/share/alpha/state"), (501, 501));
    let both = layer(&["alpha", "zeta"]);
    assert_eq!(user_of(&both, "usr/share/zeta/state"), (500, 500));
    assert_eq!(user_of(&both, "usr/share/alpha/state"), (501, 501));
    let passwd = both.text("usr/etc/passwd");
    assert!(
        passwd.contains("zeta:x:500:500:") && passwd.contains("alpha:x:501:501:"),
        "{passwd}"
    );
    let declared = both.text("usr/lib/sysusers.d/00-apt-ostree-image.conf");
    for line in ["g alpha 501", "g zeta 500", "u alpha 501:501 ", "u zeta 500:500 "] {
        assert!(declared.contains(line), "{line} is not in {declared}");
    }
    // A host's /var is made with names, which are the same everywhere.
    let made = both.text("usr/lib/tmpfiles.d/00-apt-ostree-image.conf");
    assert!(made.contains("d /var/lib/zeta 0750 zeta zeta -\n"), "{made}");
}

#[test]
fn a_user_of_sysusers_owns_its_files_and_members_of_groups_stay() {
    let debian = Debian::new();
    let postinst = "#!/bin/sh\nset -e\n\
        systemd-sysusers hub.conf\n\
        install -d -o hub -g hubgroup -m 2770 /usr/share/hub /etc/hub\n\
        addgroup --system --quiet certs\n\
        adduser --quiet www-data certs\n";
    let package = Package::new("hub", "1")
        .file(
            "usr/lib/sysusers.d/hub.conf",
            0o644,
            "g hubgroup -\nu hub - \"A hub\" /var/lib/hub\nm hub hubgroup\n",
        )
        .script("postinst", postinst);
    let layered = Layering::new(&debian, &[package]).run();
    let tree = Checkout::of(&debian, &layered.commit);
    let (user, group) = user_of(&tree, "usr/share/hub");
    assert!((500..=899).contains(&user) && (500..=899).contains(&group) && user != group);
    assert_eq!(tree.owner("usr/etc/hub"), (0o2770, user, group));
    let declared = tree.text("usr/lib/sysusers.d/00-apt-ostree-image.conf");
    assert!(declared.contains(&format!("u hub {user}:")), "{declared}");
    assert!(declared.contains(&format!("g hubgroup {group}\n")), "{declared}");
    assert!(declared.contains("m www-data certs\n"), "{declared}");
    assert!(
        tree.line("usr/etc/group", "certs:")
            .unwrap()
            .ends_with(":www-data")
    );
    // systemd's own lines still make the members that the package declares.
    assert!(
        tree.text("usr/lib/sysusers.d/hub.conf")
            .contains("m hub hubgroup")
    );
}

#[test]
fn an_account_that_owns_nothing_keeps_its_id_on_a_host_with_accounts_of_its_own() {
    let debian = Debian::new();
    let quiet = |name: &str, line: &str| {
        Package::new(name, "1")
            .file(&format!("usr/lib/sysusers.d/{name}.conf"), 0o644, line)
            .script("postinst", &format!("#!/bin/sh\nsystemd-sysusers {name}.conf\n"))
    };
    let packages = [
        quiet("lone", "u lone -:nogroup \"Owns nothing\" /run/lone\n"),
        quiet("pair", "u pair -\n"),
        quiet("fixed", "u fixed 333\n"),
        quiet("crew", "g crew -\n"),
    ];
    let layered = Layering::new(&debian, &packages).run();
    let tree = Checkout::of(&debian, &layered.commit);
    // A host whose own accounts took the place of the image's, as its merged /etc has them after a `useradd`.
    let host = tempfile::tempdir().unwrap();
    let from = tree.path("usr/lib/sysusers.d");
    let to = host.path().join("usr/lib");
    std::fs::create_dir_all(&to).unwrap();
    crate::support::run(
        "cp",
        ["-a", &from.display().to_string(), &to.display().to_string()],
    );
    let image = Checkout::of(&debian, &debian.commit);
    for (name, line) in [
        ("passwd", "mine:x:1500:1500::/:/bin/sh"),
        ("group", "mine:x:1500:"),
    ] {
        let text = image.text(&format!("usr/etc/{name}"));
        write(host.path().join("etc").join(name), format!("{text}{line}\n"));
    }
    let root = format!("--root={}", host.path().display());
    crate::support::run("systemd-sysusers", [root.as_str()]);
    let made = |file: &str, name: &str| -> String {
        let text = std::fs::read_to_string(host.path().join("etc").join(file)).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("{name} in {text}")).to_owned()
    };
    for name in ["lone", "pair", "fixed"] {
        let start = format!("{name}:");
        let wanted = tree.line("usr/etc/passwd", &start).unwrap();
        let ids = |line: &str| {
            line.split(':')
                .skip(2)
                .take(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&made("passwd", name)), ids(&wanted), "{wanted}");
    }
    assert_eq!(
        made("group", "crew").split(':').nth(2),
        tree.line("usr/etc/group", "crew:").unwrap().split(':').nth(2)
    );
    // The next layering finds nothing to tell.
    let again = Layering::new(&debian, &packages)
        .host_etc(&host.path().join("etc"))
        .run();
    assert!(
        again.translated.warnings.is_empty(),
        "{:?}",
        again.translated.warnings
    );
}

#[test]
fn the_ids_of_the_host_win_and_a_stranger_is_told() {
    let debian = Debian::new();
    let host = tempfile::tempdir().unwrap();
    write(
        host.path().join("passwd"),
        "zeta:x:321:322::/var/lib/zeta:/bin/false\n",
    );
    write(host.path().join("group"), "zeta:x:322:\n");
    let layered = Layering::new(&debian, &[service("zeta")])
        .host_etc(host.path())
        .run();
    let tree = Checkout::of(&debian, &layered.commit);
    assert_eq!(user_of(&tree, "usr/share/zeta/state"), (321, 322));

    // Later the image brings the account itself, with another id.
    let base = Layering::new(&debian, &[service("zeta")])
        .stateroot("other")
        .run();
    let own = user_of(&Checkout::of(&debian, &base.commit), "usr/share/zeta/state");
    assert_eq!(own, (500, 500));
    let again = Layering::new(&debian, &[service("zeta")])
        .over(&base.commit)
        .run();
    let warnings = again.translated.warnings.join("\n");
    assert!(
        warnings.contains("user zeta with the id 500") && warnings.contains("321"),
        "{warnings}"
    );
    assert!(
        warnings.contains("group zeta with the id 500") && warnings.contains("322"),
        "{warnings}"
    );
    let tree = Checkout::of(&debian, &again.commit);
    assert_eq!(user_of(&tree, "usr/share/zeta/state"), (500, 500));
    debian.assert_sound();
}

#[test]
fn access_control_lists_name_the_users_of_the_host() {
    let debian = Debian::new();
    let package = service("zeta");
    let layered = Layering::new(&debian, &[package])
        .change(|root| {
            // Version 2, then tag, permissions and id of each entry: user::rw- user:100:r-- group::r-- mask::r-- other::---
            let id = std::fs::metadata(root.join("usr/share/zeta/state"))
                .unwrap()
                .uid();
            assert!((100..500).contains(&id));
            let mut list = 2u32.to_le_bytes().to_vec();
            for (tag, permissions, id) in [
                (1u16, 6u16, u32::MAX),
                (2, 4, id),
                (4, 4, u32::MAX),
                (16, 4, u32::MAX),
                (32, 0, u32::MAX),
            ] {
                list.extend_from_slice(&tag.to_le_bytes());
                list.extend_from_slice(&permissions.to_le_bytes());
                list.extend_from_slice(&id.to_le_bytes());
            }
            let folder = std::fs::File::open(root.join("usr/share/zeta")).unwrap();
            let name = std::ffi::OsStr::new("state");
            apt_ostree::host::attributes::write(&folder, name, b"system.posix_acl_access", &list).unwrap();
        })
        .run();
    let tree = Checkout::of(&debian, &layered.commit);
    let list = tree
        .attribute("usr/share/zeta/state", "system.posix_acl_access")
        .unwrap();
    assert_eq!(list[16..20], 500u32.to_le_bytes());
    debian.assert_sound();
}
