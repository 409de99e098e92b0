//! What the integration tests share: real registries, made images, temporary repositories and sysroots.
//!
//! - [`package`], [`archive`], [`web`], [`base`]: Debian packages, a signed apt repository, the server for it, and
//!   the least tree that apt can solve against;
//! - [`plain_root`]: plain Debian roots of any release, without a kernel or with one;
//! - [`bus`], [`polkit`], [`service`]: a message bus, who authorises on it, and the service with clients of any user;
//! - [`booted`]: the program on a host that takes itself for booted;
//! - [`checkup`]: what `fsck` says about a host that was damaged on purpose;
//! - [`chunked`]: zstd:chunked layers, honest ones and ones that lie;
//! - [`crowd`], [`raw_bus`], [`load`]: many readers of the service, clients that keep to no rule, and what a process uses;
//! - [`debian`]: a copy of the real bootable Debian image in a sysroot, and a place to layer on it;
//! - [`installation`]: plans made by hand and their run on that image;
//! - [`debian_machine`]: a host that runs the real Debian image and has an apt repository;
//! - [`desktop`]: a bus with stand-ins for NetworkManager and logind;
//! - [`fuse_file`], [`volatile_disk`], [`power_cuts`]: a disk whose cache is lost when the power is cut, and the cuts;
//! - [`home`]: a home directory of its own, so that no test sees the machine's policy, credentials or mirrors;
//! - [`layer`], [`image`]: OCI images written without podman, whole and damaged ones;
//! - [`machine`]: a scratch sysroot that follows images of a registry, and the program under test;
//! - [`paused`]: the program stopped at a checkpoint;
//! - [`ranges`]: images of one layer, of which single ranges are read;
//! - [`registry`]: a real docker-registry on loopback, with or without password and TLS;
//! - [`relay`]: a TCP relay before a registry that counts requests, breaks off or hangs;
//! - [`repo`]: temporary OSTree repositories and sysroots, `ostree fsck` and refs;
//! - [`scripted`]: a web server that answers as a test says, rightly or not, and remembers what it was asked;
//! - [`terminal`]: a real terminal (tmux) in which the program runs, and what stands on it;
//! - [`keys`]: a GnuPG key made for the test, and simple signing.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses its part of the shared support"
)]

pub mod archive;
pub mod base;
pub mod booted;
pub mod bus;
pub mod checkup;
pub mod chunked;
pub mod crowd;
pub mod debian;
pub mod debian_machine;
pub mod desktop;
pub mod forest;
pub mod fuse_file;
pub mod home;
pub mod image;
pub mod installation;
pub mod keys;
pub mod layer;
pub mod layered;
pub mod load;
pub mod machine;
pub mod mounted;
pub mod package;
pub mod paused;
pub mod plain_root;
pub mod polkit;
pub mod power_cuts;
pub mod ranges;
pub mod raw_bus;
pub mod registry;
pub mod relay;
pub mod repo;
pub mod scripted;
pub mod service;
pub mod terminal;
pub mod volatile_disk;
pub mod web;

use apt_ostree::host::runner::Cmd;
use std::path::Path;

/// Runs a program and returns its standard output; the test fails with its last words when it fails.
pub fn run<S: AsRef<std::ffi::OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> String {
    let output = Cmd::new(program).args(args).run_text();
    output.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Returns a command that runs the program under test with an isolated environment.
pub fn apt_ostree(home: &home::Home) -> Cmd {
    home.surroundings().cmd(env!("CARGO_BIN_EXE_apt-ostree"))
}

/// Writes a file and makes the directories above it.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
    std::fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
