//! What packages cannot do: harm the host or the repository, reach the network, run for ever.

use crate::support::debian::Debian;
use crate::support::installation::{Installation, read};
use crate::support::package::Package;
use apt_ostree::layer::run::RunOptions;
use std::path::Path;
use std::time::Duration;

fn sh(body: &str) -> String {
    format!("#!/bin/sh\n{body}\n")
}

#[test]
fn a_script_that_removes_everything_hurts_nothing() {
    let debian = Debian::new();
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("precious"), "x").unwrap();
    let installation = Installation::of(&[Package::new("destroyer", "1").script(
        "postinst",
        &sh("echo goodbye; rm -rf --no-preserve-root / 2>/dev/null; exit 0"),
    )]);
    let said = installation.refused(&debian, &RunOptions::default());
    assert!(
        said.contains("No program starts any more") && said.contains("the postinst of destroyer"),
        "{said}"
    );
    assert!(host.path().join("precious").exists() && Path::new("/usr/bin/true").exists());
    assert!(debian.leftovers().is_empty());
}

#[test]
fn there_is_no_network_and_nothing_of_the_host() {
    let debian = Debian::new();
    let mark = tempfile::Builder::new()
        .prefix("host-file-")
        .tempfile_in("/tmp")
        .unwrap();
    let body = "{ ip -o link show; echo; ip route; } >/usr/share/links 2>&1\n\
                ls -A /run >/usr/share/run; ls -A /tmp >/usr/share/tmp; ls -A /sys >/usr/share/sys; ls /dev >/usr/share/dev\n\
                ls -d /proc/[0-9]* | wc -l >/usr/share/processes\n\
                dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames >/dev/null 2>&1 && echo answered >/usr/share/bus\n\
                exit 0";
    let installation = Installation::of(&[Package::new("explorer", "1").script("postinst", &sh(body))]);
    installation.ok(&debian, |stage, _| {
        let links = read(stage, "usr/share/links");
        assert!(
            links.contains("lo:") && links.trim().lines().count() == 1,
            "{links}"
        );
        assert_eq!(read(stage, "usr/share/run"), "apt-ostree\n");
        let temporary = read(stage, "usr/share/tmp");
        assert!(!temporary.contains("host-file-"), "{temporary}");
        assert_eq!(read(stage, "usr/share/sys"), "");
        let devices = read(stage, "usr/share/dev");
        assert!(
            !devices
                .lines()
                .any(|name| name.starts_with("vd") || name == "kmsg" || name == "mem")
        );
        let processes: u32 = read(stage, "usr/share/processes").trim().parse().unwrap();
        assert!(processes < 12, "{processes}");
        assert!(!stage.root().join("usr/share/bus").exists());
    });
    drop(mark);
}

#[test]
fn seven_capabilities_are_all_there_is() {
    let debian = Debian::new();
    let body = "grep -E '^Cap(Eff|Prm)|^NoNewPrivs' /proc/self/status >/usr/share/capabilities\n\
                mount -t tmpfs none /mnt && echo mount >>/usr/share/done\n\
                mknod /dev/shm/disk b 8 0 && echo mknod >>/usr/share/done\n\
                mknod /usr/share/disk b 8 0 && echo mknod >>/usr/share/done\n\
                echo x >/proc/sys/kernel/domainname && echo sysctl >>/usr/share/done\n\
                echo h >/proc/sysrq-trigger && echo sysrq >>/usr/share/done\n\
                echo x >/sys/x && echo sys >>/usr/share/done\n\
                chroot / true && echo chroot >>/usr/share/done\n\
                chattr +i /usr/share/capabilities && echo chattr >>/usr/share/done\n\
                exit 0";
    let installation = Installation::of(&[Package::new("climber", "1").script("postinst", &sh(body))]);
    installation.ok(&debian, |stage, _| {
        // CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, SETGID 6, SETUID 7, SETFCAP 31.
        let seven = format!("{:016x}", 1_u64 << 31 | 0b1101_1011);
        let found = read(stage, "usr/share/capabilities");
        for line in ["CapPrm", "CapEff"] {
            assert!(found.contains(&format!("{line}:\t{seven}")), "{found}");
        }
        // Which is why no program can gain what the bounding set still allows.
        assert!(found.contains("NoNewPrivs:\t1"), "{found}");
        assert!(
            !stage.root().join("usr/share/done").exists(),
            "{}",
            read(stage, "usr/share/done")
        );
    });
}

#[test]
fn links_of_a_package_lead_nowhere_outside() {
    let debian = Debian::new();
    let host = tempfile::tempdir().unwrap();
    let target = host.path().to_str().unwrap();
    let link = Package::new("linker", "1")
        .symlink("usr/share/linked", target)
        .symlink(
            "usr/share/upwards",
            &format!("../../../../../../../../../..{target}"),
        );
    let follower = Package::new("follower", "1").script(
        "postinst",
        &sh("mkdir -p /usr/share/linked/. 2>/dev/null; echo x >/usr/share/linked/file 2>/dev/null; echo x >/usr/share/upwards/file 2>/dev/null; exit 0"),
    );
    let unpacker = Package::new("unpacker", "1").file("usr/share/linked/deep/file", 0o644, "x");
    let installation = Installation::of(&[link, follower, unpacker]);
    installation.run(&debian, &RunOptions::default(), |_, ran| {
        // Whether dpkg takes the third package does not matter; where its file ends does.
        drop(ran);
    });
    assert_eq!(std::fs::read_dir(host.path()).unwrap().count(), 0);
    debian.assert_sound();
}

#[test]
fn a_hung_script_is_ended_at_the_limit_and_named() {
    let debian = Debian::new();
    let installation = Installation::of(&[Package::new("sleeper", "1").script(
        "postinst",
        &sh("echo before the sleep; sleep 1000000 & setsid sleep 1000001; wait"),
    )]);
    let options = RunOptions {
        script_timeout: Duration::from_secs(2),
        ..RunOptions::default()
    };
    let said = installation.refused(&debian, &options);
    assert!(
        said.contains("2 s") && said.contains("the postinst of sleeper") && said.contains("before the sleep"),
        "{said}"
    );
    let sleeping = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with(b"sleep\x00100000"))
    });
    assert!(!sleeping && debian.leftovers().is_empty());
}

#[test]
fn a_failure_names_package_and_script_and_shows_the_last_lines() {
    let debian = Debian::new();
    for script in ["preinst", "postinst"] {
        let broken = Package::new("broken", "1").script(script, &sh("echo cannot go on >&2; exit 7"));
        let installation = Installation::of(&[Package::new("sound", "1"), broken]);
        let said = installation.refused(&debian, &RunOptions::default());
        assert!(
            said.contains(&format!("the {script} of broken")) && said.contains("cannot go on"),
            "{said}"
        );
    }
}
