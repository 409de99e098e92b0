//! Entry of the D-Bus service.

use std::process::ExitCode;

fn main() -> ExitCode {
    apt_ostree::daemon::main(std::env::args_os())
}
