//! The service's own command line.

use clap::Parser;
use std::path::PathBuf;

/// The D-Bus service of apt-ostree; the system starts it when somebody needs it
#[derive(Clone, Debug, Parser)]
#[command(name = "apt-ostreed", version)]
pub(super) struct Arguments {
    /// Serve the sysroot at DIR instead of the booted one
    #[arg(long, value_name = "DIR")]
    pub(super) sysroot: Option<PathBuf>,
    /// Use the bus at ADDRESS instead of the system bus
    #[arg(long, value_name = "ADDRESS")]
    pub(super) bus: Option<String>,
    /// Keep the sockets of transactions in DIR
    #[arg(long, value_name = "DIR", default_value = "/run/apt-ostree")]
    pub(super) run_dir: PathBuf,
    /// Carry out one request that is read from standard input; the service starts this itself
    #[arg(long, conflicts_with_all = ["sysroot", "bus", "run_dir"])]
    pub(super) worker: bool,
}
