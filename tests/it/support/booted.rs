//! The program on a host that takes itself for booted: in the real image's deployment as root directory, everything
//! below it read only as on a host, with its own `/run`.
//!
//! There is no systemd inside, so nothing that talks to it can be shown here.

use super::machine::Machine;
use apt_ostree::host::runner::Cmd;
use std::process::Output;

/// Mounts what a booted host has, and runs the words behind `$0` in there.
const SCRIPT: &str = r#"
set -eu
sysroot=$1 root=$2 program=$3; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind "$sysroot" "$root/sysroot"
mount --bind "$sysroot/boot" "$root/boot"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mkdir "$root/run/ostree"
touch "$root/run/ostree-booted"
cp "$program" "$root/run/apt-ostree"
for place in "$root" "$root/sysroot" "$root/boot"; do mount -o remount,bind,ro "$place"; done
exec chroot "$root" "$@"
"#;

/// Runs a command on the machine, booted from its first deployment; `/run/apt-ostree` is the program under test.
pub fn run(machine: &Machine, command: &[&str]) -> Output {
    Cmd::new("unshare")
        .args(["--mount", "sh", "-c", SCRIPT, "booted"])
        .arg(machine.sysroot.path())
        .arg(machine.root(0))
        .arg(env!("CARGO_BIN_EXE_apt-ostree"))
        .args(command)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .expect("unshare")
}
