//! `kargs --editor`, on a real pseudo-terminal.

use crate::support::machine::Machine;
use crate::support::write;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

/// Makes an editor that runs this `sed` expression on the file, and returns the value of `$EDITOR`.
fn editor(machine: &Machine, expression: &str) -> String {
    let program = machine.home.path().join("editor");
    let text = format!("#!/bin/sh\n[ \"$1\" = --wait ] && [ -t 0 ] && sed -i '{expression}' \"$2\"\n");
    write(&program, text);
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("mode");
    format!("{} --wait", program.display())
}

/// Runs a verb on a terminal of its own; what it says comes all on standard output.
fn on_terminal(machine: &Machine, arguments: &str, editor: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_apt-ostree");
    let line = format!(
        "{program} --sysroot {} {arguments}",
        machine.sysroot.path().display()
    );
    let script = machine.home.surroundings().cmd("script");
    script
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("EDITOR", editor)
        .env_remove("VISUAL")
        .output()
        .expect("script")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn arguments_are_edited_checked_and_applied_as_one_change() {
    let machine = Machine::deployed();
    machine.ok(&["kargs", "--append=quiet", "--append=keep=1"]);
    let edit = editor(&machine, "s/quiet/splash debug/");
    let output = on_terminal(&machine, "kargs --editor", &edit);
    assert!(output.status.success(), "{}", said(&output));
    let shown = machine.ok(&["kargs"]);
    assert!(
        shown.contains("splash debug keep=1") && !shown.contains("quiet"),
        "{shown}"
    );

    let before = machine.state();
    let unchanged = on_terminal(
        &machine,
        "kargs --editor --unchanged-exit-77",
        &editor(&machine, "s/x/x/"),
    );
    assert_eq!(unchanged.status.code(), Some(77), "{}", said(&unchanged));
    for (expression, words) in [
        ("s/splash/evil=$(id)/", "GRUB would read"),
        ("/^[^#]/d", "No kernel arguments are left"),
    ] {
        let output = on_terminal(&machine, "kargs --editor", &editor(&machine, expression));
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    let output = on_terminal(&machine, "kargs --editor", "false");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("The editor `false` failed"),
        "{}",
        said(&output)
    );
    let errors = machine.fails(2, &["kargs", "--editor"]);
    assert!(errors.contains("no terminal"), "{errors}");
    machine.fails(2, &["kargs", "--editor", "--append=x"]);
    assert_eq!(machine.state(), before);
}

#[test]
fn arguments_that_changed_meanwhile_are_not_overwritten() {
    let machine = Machine::deployed();
    let other = machine.home.path().join("other");
    let program = env!("CARGO_BIN_EXE_apt-ostree");
    let sysroot = machine.sysroot.path().display();
    write(
        &other,
        format!(
            "#!/bin/sh\n{program} --sysroot {sysroot} kargs --append=other=1 >/dev/null 2>&1\necho mine=1 >>\"$1\"\n"
        ),
    );
    std::fs::set_permissions(&other, PermissionsExt::from_mode(0o755)).expect("mode");
    let output = on_terminal(&machine, "kargs --editor", &other.display().to_string());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("changed while they were edited"),
        "{}",
        said(&output)
    );
    let shown = machine.ok(&["kargs"]);
    assert!(shown.contains("other=1") && !shown.contains("mine=1"), "{shown}");
}
