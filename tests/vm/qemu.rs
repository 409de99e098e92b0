//! The command line of QEMU.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use crate::monitor::Monitor;
use crate::support::run;
use cap_std_ext::cmdext::CapStdExtCommandExt;
use std::process::{Child, Command, Stdio};

/// The firmware's code; Secure Boot is off in it, while the chain it starts is the signed one.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// The firmware's empty variables.
pub(crate) const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// How the guest's instructions are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// By the processor itself.
    Kvm,
    /// By translation, everywhere and slowly.
    Tcg,
}

impl Accelerator {
    /// Returns what works here: a `/dev/kvm` may be there and still not run any guest.
    pub(crate) fn find() -> Self {
        static FOUND: OnceLock<Accelerator> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let found = if Path::new("/dev/kvm").exists() && kvm_runs() {
                Self::Kvm
            } else {
                Self::Tcg
            };
            crate::tell(&format!("virtual machines run by {found:?}"));
            found
        })
    }

    /// Returns how long `seconds` of a real machine may take here.
    pub(crate) fn allow(self, seconds: u64) -> Duration {
        Duration::from_secs(match self {
            Self::Kvm => seconds * 2,
            Self::Tcg => seconds * 10,
        })
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max,-cx16"],
        }
    }
}

/// Returns the arguments that make up the machine; a saved state fits only the same ones.
pub(crate) fn arguments(folder: &Path, accelerator: Accelerator, credentials: &[String]) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut arguments: Vec<String> = accelerator.arguments().map(str::to_owned).to_vec();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    // A boot hardly uses a second processor; that one runs another test's machine.
    add(&[
        "-smp",
        "1",
        "-m",
        "2048",
        "-machine",
        "q35",
        "-nodefaults",
        "-display",
        "none",
        "-vga",
        "none",
    ]);
    add(&[
        "-chardev",
        &format!("file,id=serial,append=on,path={}", path("serial.log")),
        "-serial",
        "chardev:serial",
    ]);
    add(&[
        "-qmp",
        &format!("unix:{},server=on,wait=off", path("monitor.sock")),
    ]);
    add(&[
        "-drive",
        &format!("if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}"),
    ]);
    add(&[
        "-drive",
        &format!("if=pflash,format=raw,unit=1,file={}", path("vars.fd")),
    ]);
    add(&[
        "-drive",
        &format!(
            "file={},if=none,id=disk,format=raw,cache=unsafe,discard=unmap",
            path("disk.raw")
        ),
    ]);
    // Without the index the firmware tries to boot from the network first, which takes minutes.
    add(&["-device", "virtio-blk-pci,drive=disk,bootindex=0"]);
    add(&[
        "-netdev",
        "user,id=net",
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
        "-device",
        "virtio-rng-pci",
    ]);
    add(&["-device", "virtio-serial-pci"]);
    add(&[
        "-chardev",
        &format!("socket,id=agent,server=on,wait=off,path={}", path("agent.sock")),
    ]);
    add(&["-device", "virtserialport,chardev=agent,name=vmtest"]);
    for credential in credentials {
        add(&["-smbios", &format!("type=11,value={credential}")]);
    }
    arguments
}

/// Starts QEMU; it ends with this thread.
#[expect(
    clippy::disallowed_methods,
    reason = "a virtual machine is not run to its end"
)]
pub(crate) fn start(folder: &Path, arguments: &[String]) -> Child {
    let log = std::fs::File::create(folder.join("qemu.log")).expect("qemu.log");
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command.lifecycle_bind_to_parent_thread();
    command.spawn().expect("qemu-system-x86_64")
}

/// Returns QEMU's version line.
pub(crate) fn version() -> String {
    let text = run("qemu-system-x86_64", ["--version"]);
    text.lines().next().unwrap_or_default().to_owned()
}

/// Lets the firmware run for a moment: nested virtualisation may fail at the first instruction.
fn kvm_runs() -> bool {
    let folder = tempfile::tempdir().expect("directory");
    std::fs::copy(VARIABLES, folder.path().join("vars.fd")).expect("firmware variables");
    std::fs::File::create(folder.path().join("disk.raw"))
        .and_then(|file| file.set_len(1 << 20))
        .expect("disk");
    let mut child = start(folder.path(), &arguments(folder.path(), Accelerator::Kvm, &[]));
    let runs = Monitor::try_connect(&folder.path().join("monitor.sock"), Duration::from_secs(5)).is_some_and(
        |mut monitor| {
            std::thread::sleep(Duration::from_secs(2));
            monitor.status().is_some_and(|status| status == "running")
        },
    );
    child.kill().expect("kill");
    child.wait().expect("wait");
    runs
}
