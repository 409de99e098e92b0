//! The program under test on its own, stopped at a checkpoint, to be killed or to be in somebody's way.

use super::home::Home;
use apt_ostree::host::runner::Cmd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

/// Starts the program on a sysroot with this in `APT_OSTREE_CHECKPOINT`.
pub fn spawn(home: &Home, sysroot: &Path, arguments: &[&str], checkpoint: &str) -> Child {
    let surroundings = home.surroundings();
    // What a shell starts in the background ignores SIGINT, and so would the program.
    let mut command = surroundings.server_command("env");
    command.args(["--default-signal=INT,TERM", env!("CARGO_BIN_EXE_apt-ostree")]);
    command.arg("--sysroot").arg(sysroot).args(arguments);
    command.env("APT_OSTREE_CHECKPOINT", checkpoint);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program starts")
}

/// Waits until a thread of the process says that it stands at its checkpoint.
pub fn wait_until_parked(child: &mut Child) {
    for _ in 0..600 {
        assert!(
            child.try_wait().expect("a child").is_none(),
            "the process ended before its checkpoint"
        );
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("tasks");
        let parked = tasks.filter_map(Result::ok).any(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "checkpoint\n")
        });
        if parked {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the process never reached its checkpoint");
}

/// Sends a signal by its name, for example `INT`.
pub fn send(signal: &str, child: &Child) {
    Cmd::new("kill")
        .args([format!("-{signal}"), child.id().to_string()])
        .run()
        .expect("kill");
}

/// Returns whether a signal ended the program, or it ended itself as a shell tells of that.
pub fn ended_by(status: ExitStatus, number: i32) -> bool {
    status.signal() == Some(number) || status.code() == Some(128 + number)
}
