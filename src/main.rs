//! Entry of the command line client.

use std::process::ExitCode;

fn main() -> ExitCode {
    apt_ostree::cli::main(std::env::args_os())
}
