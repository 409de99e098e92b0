//! The only modules that touch the machine: programs, the environment, the sysroot lock, mounts, checkpoints.

pub mod attributes;
pub mod bus;
pub mod checkpoint;
pub mod child;
pub mod clock;
pub mod durable;
pub mod environment;
pub mod folder;
pub mod interrupt;
pub mod journald;
pub mod lock;
pub mod log;
pub mod loop_device;
pub mod mounts;
pub mod password_agent;
pub mod pipes;
pub mod plain_file;
pub mod process;
pub mod runner;
pub mod sandbox;
pub mod stderr;
pub mod surroundings;
pub mod units;
pub mod watch;
