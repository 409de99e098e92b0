//! Options of the verbs that set packages up: `--debconf`, `--scripts`, `--conflicts`, `--script-timeout`, foreign
//! architectures, `--lock-finalization`. Each is kept by the host, and holds for later deployments too.

use crate::support::debian_machine::DebianMachine;
use crate::support::layer::Layer;
use crate::support::package::Package;
use crate::support::{repo, write};
use apt_ostree::host::runner::Cmd;
use apt_ostree::layer::record::{self, Record};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An answer that nobody but root may find.
const SECRET: &str = "correct-horse-battery";

fn marked(version: &str) -> Layer {
    Layer::new().file("usr/share/mark", 0o644, version)
}

fn record(host: &DebianMachine) -> Record {
    let status = host.status();
    let commit = status["deployments"][0]["checksum"].as_str().expect("a commit");
    record::read(&repo::open(&host.sysroot.repo()), commit)
        .expect("a commit")
        .expect("a derived commit")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asks for a password, and notes its digest and its length, which tell that the script got it.
fn quiz() -> Package {
    let ask = "#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\n";
    Package::new("quiz", "1")
        .depends("debconf")
        .templates("Template: quiz/answer\nType: password\nDescription: The answer\n It is secret.\n")
        .config(&format!("{ask}db_input high quiz/answer || true\ndb_go\n"))
        .script(
            "postinst",
            &format!("{ask}db_get quiz/answer\necho \"got ${{#RET}} letters\" >/usr/share/quiz\ndb_stop\n"),
        )
}

/// Returns the files below a folder whose content holds the secret.
fn holding_secret(folder: &Path) -> Vec<PathBuf> {
    let grep = Cmd::new("grep")
        .args(["-rlF", "--devices=skip", SECRET])
        .arg(folder);
    let found = grep.output().expect("grep");
    assert!(found.status.success(), "{}", stderr(&found));
    let names = String::from_utf8(found.stdout).expect("UTF-8");
    names.lines().map(PathBuf::from).collect()
}

/// Runs `work` and returns the command lines that held the secret meanwhile, as any user could see them.
fn seen_meanwhile<T>(work: impl FnOnce() -> T) -> (T, Vec<String>, usize) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut seen, mut selections) = (Vec::new(), 0);
            while !done.load(Ordering::Relaxed) {
                for process in std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok) {
                    let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                    let line = String::from_utf8_lossy(&line).into_owned();
                    selections += usize::from(line.contains("debconf-set-selections"));
                    if line.contains(SECRET) {
                        seen.push(line);
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            (seen, selections)
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let (seen, selections) = watcher.join().expect("the watcher");
        (result, seen, selections)
    })
}

#[test]
fn answers_for_debconf_reach_the_script_again_and_again_and_nobody_else() {
    let host = DebianMachine::new(&[
        quiz(),
        Package::new("one", "1").file("usr/share/one", 0o644, "one\n"),
    ]);
    let answers = host.home.path().join("answers");
    write(&answers, format!("quiz quiz/answer password {SECRET}\n"));
    let file = answers.display().to_string();
    let (output, seen, selections) = seen_meanwhile(|| {
        host.command(&["--progress=json", "install", "--debconf", &file, "quiz"])
            .env("APT_OSTREE_LOG", "trace")
            .output()
            .expect("the program starts")
    });
    assert!(output.status.success(), "{}", stderr(&output));
    let told = format!("{}{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
    assert!(told.contains("quiz") && !told.contains(SECRET), "{told}");
    assert_eq!(seen, Vec::<String>::new());
    assert!(
        selections > 0,
        "the program that takes the answers was never seen"
    );
    let got = format!("got {} letters\n", SECRET.len());
    assert_eq!(host.text(0, "usr/share/quiz"), got);
    // One file has it: not the origin, no commit, no object, no other state.
    let found = holding_secret(host.sysroot.path());
    let folder = host
        .sysroot
        .path()
        .join("ostree/deploy/default/var/lib/apt-ostree/debconf");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(&folder), "{found:?}");
    let mode = |path: &Path| path.metadata().expect("metadata").permissions().mode() & 0o777;
    assert_eq!((mode(&found[0]), mode(&folder)), (0o600, 0o700));
    // Replayed without the file, on a new image and with another list of packages.
    std::fs::remove_file(&answers).expect("the file");
    host.publish_image("2", [marked("2")]);
    host.ok(&["upgrade"]);
    assert_eq!(
        (host.text(0, "usr/share/mark"), host.text(0, "usr/share/quiz")),
        ("2".to_owned(), got.clone())
    );
    host.ok(&["install", "one"]);
    assert_eq!(host.text(0, "usr/share/quiz"), got);
    // Without it the script gets nothing.
    let other = DebianMachine::new(&[quiz()]);
    other.ok(&["install", "quiz"]);
    assert_eq!(other.text(0, "usr/share/quiz"), "got 0 letters\n");
    let errors = other.fails(1, &["install", "--debconf=/nowhere", "one"]);
    assert!(errors.contains("/nowhere"), "{errors}");
}

fn starter() -> Package {
    Package::new("starter", "1")
        .file("usr/share/starter", 0o644, "x")
        .script(
            "postinst",
            "#!/bin/sh\ntouch /usr/share/starter-ran\nsystemctl restart starter.service\n",
        )
}

#[test]
fn scripts_that_cannot_work_are_refused_told_or_left_out() {
    let host = DebianMachine::new(&[starter()]);
    let before = host.state();
    let errors = host.fails(1, &["install", "--scripts=strict", "starter"]);
    assert!(
        errors.contains("starter.postinst line 3: `systemctl restart starter.service`"),
        "{errors}"
    );
    assert!(errors.contains("--scripts=skip"), "{errors}");
    assert_eq!(host.state(), before);
    assert!(host.leftovers().is_empty());
    // Told once and recorded once.
    let output = host.run(&["install", "starter"]);
    let told = stderr(&output);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("starter.postinst line 3").count(), 1, "{told}");
    let warnings = record(&host).warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("starter.postinst line 3"),
        "{warnings:?}"
    );
    assert!(host.has(0, "usr/share/starter-ran"));
    // The choice is kept: what is made next obeys it.
    host.ok(&["uninstall", "starter", "--scripts=skip"]);
    host.ok(&["install", "starter"]);
    let skipped = |host: &DebianMachine| {
        assert!(host.has(0, "usr/share/starter") && !host.has(0, "usr/share/starter-ran"));
        let record = record(host);
        assert!(
            record.skipped_scripts.len() == 1 && record.skipped_scripts[0].starts_with("starter.postinst"),
            "{record:?}"
        );
    };
    skipped(&host);
    host.publish_image("2", [marked("2")]);
    host.ok(&["upgrade"]);
    assert_eq!(host.text(0, "usr/share/mark"), "2");
    skipped(&host);
    let before = host.state();
    host.publish_image("3", [marked("3")]);
    let deployments = host.status()["deployments"].clone();
    host.fails(1, &["upgrade", "--scripts=strict"]);
    assert_eq!(host.status()["deployments"], deployments);
    assert!(before.keys().all(|key| host.state().contains_key(key)));
    host.fails(2, &["install", "--scripts=maybe", "starter"]);
}

#[test]
fn a_file_of_two_packages_stays_whose_the_host_says() {
    let image_file = "usr/share/base-files/motd";
    let host = DebianMachine::new(&[Package::new("claims", "1")
        .file(image_file, 0o600, "claimed\n")
        .file("usr/share/claims", 0o644, "x")]);
    let of_image = host.text(0, image_file);
    let before = host.state();
    for arguments in [
        vec!["install", "claims"],
        vec!["install", "--conflicts=fail", "claims"],
    ] {
        let errors = host.fails(1, &arguments);
        assert!(
            errors.contains("/usr/share/base-files/motd is in base-files and in claims")
                && errors.contains("hint: "),
            "{errors}"
        );
    }
    assert_eq!(host.state(), before);
    let output = host.run(&["install", "--conflicts=keep-base", "claims"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        stderr(&output).matches("of base-files, not of claims").count(),
        1,
        "{}",
        stderr(&output)
    );
    assert_eq!(host.text(0, image_file), of_image);
    assert!(host.has(0, "usr/share/claims"));
    host.publish_image("2", [marked("2")]);
    host.ok(&["upgrade"]);
    assert_eq!(host.text(0, image_file), of_image, "the host keeps to it");
    host.ok(&["upgrade", "--conflicts=keep-latest"]);
    assert_eq!(host.text(0, image_file), "claimed\n");
    let mode = host.root(0).join(image_file).metadata().expect("the file");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    assert_eq!(record(&host).warnings.len(), 1);
    host.assert_sound();
}

#[test]
fn force_replacefiles_is_the_mode_that_keeps_the_latest() {
    let image_file = "usr/share/base-files/motd";
    let host = DebianMachine::new(&[]);
    let claims = Package::new("claims", "1").file(image_file, 0o644, "claimed\n");
    let file = host.file(&claims);
    let errors = host.fails(1, &["install", &file]);
    assert!(errors.contains("is in base-files and in claims"), "{errors}");
    host.fails(2, &["install", "--force-replacefiles", "--conflicts=fail", &file]);
    host.ok(&["install", "--force-replacefiles", &file]);
    assert_eq!(host.text(0, image_file), "claimed\n");
    host.publish_image("2", [marked("2")]);
    host.ok(&["upgrade"]);
    assert_eq!(host.text(0, image_file), "claimed\n", "the host keeps to it");
}

#[test]
fn a_script_that_takes_too_long_is_named_with_its_last_words() {
    let host =
        DebianMachine::new(&[Package::new("slow", "1")
            .script("postinst", "#!/bin/sh\necho reached the middle\nsleep 1000003\n")]);
    let before = host.state();
    let errors = host.fails(1, &["install", "--script-timeout", "2s", "slow"]);
    for part in [
        "2 s",
        "postinst of slow",
        "reached the middle",
        "--script-timeout",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert_eq!(host.state(), before);
    assert!(host.leftovers().is_empty());
    host.fails(2, &["install", "--script-timeout", "soon", "slow"]);
}

#[test]
fn packages_of_another_architecture_stand_beside_those_of_the_image() {
    let library = |architecture: &str| {
        Package::new("shared", "1")
            .architecture(architecture)
            .field("Multi-Arch", "same")
            .file(&format!("usr/lib/{architecture}/shared"), 0o644, architecture)
            .file("usr/share/doc/shared/both", 0o644, "both\n")
    };
    let host = DebianMachine::new(&[
        library("amd64"),
        library("i386"),
        Package::new("game", "1")
            .architecture("i386")
            .depends("shared")
            .file("usr/games/game", 0o755, "game\n"),
    ]);
    let before = host.state();
    let errors = host.fails(1, &["install", "game:i386"]);
    assert!(errors.contains("APT::Architectures"), "{errors}");
    assert_eq!(host.state(), before);
    write(
        host.root(0).join("etc/apt/apt.conf.d/90foreign"),
        "APT::Architectures { \"amd64\"; \"i386\"; };\n",
    );
    host.ok(&["install", "game:i386", "shared"]);
    let together = |host: &DebianMachine| {
        assert_eq!(host.text(0, "usr/lib/i386/shared"), "i386");
        assert_eq!(host.text(0, "usr/lib/amd64/shared"), "amd64");
        assert_eq!(host.text(0, "usr/share/doc/shared/both"), "both\n");
        assert!(host.has(0, "usr/games/game"));
        let arch = host.text(0, "usr/lib/sysimage/dpkg/arch");
        assert!(arch.contains("i386"), "{arch}");
    };
    together(&host);
    host.publish_image("2", [marked("2")]);
    host.ok(&["upgrade"]);
    together(&host);
    host.ok(&["uninstall", "game:i386"]);
    assert!(!host.has(0, "usr/games/game") && !host.has(0, "usr/lib/i386/shared"));
    assert!(host.has(0, "usr/lib/amd64/shared"));
    host.assert_sound();
}

#[test]
fn nothing_is_left_to_finalize_on_a_sysroot_that_is_not_booted() {
    let host = DebianMachine::new(&[Package::new("one", "1").file("usr/share/one", 0o644, "one\n")]);
    host.ok(&["install", "--lock-finalization", "one"]);
    assert!(host.has(0, "usr/share/one"), "written at once");
    let errors = host.fails(2, &["finalize-deployment", "--allow-missing-checksum"]);
    assert!(errors.contains("did not boot from"), "{errors}");
}
