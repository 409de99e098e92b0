//! Virtual machine tests: hosts that are booted by firmware, shim and GRUB and driven from outside.
//!
//! `hack/vm-test` makes the images and runs them; the feature `vm-tests` keeps them out of a plain `cargo test`.
//! The guest needs nothing for this: systemd takes the agent, a shell on a virtio port, from SMBIOS.
//!
//! ```text
//! APT_OSTREE_CACHE/vm-images/RELEASE/{one,two,three,layers,grub2,grub2-two}   OCI directories, made by hack/vm-test
//! APT_OSTREE_CACHE/packages                                           packages for guests, made by hack/packages
//! APT_OSTREE_CACHE/vm/KEY/{disk.raw,vars.fd,state}                     a booted host, restored in two seconds
//! target/vm/TEST/{serial.log,agent.log,journal.log}                    what a failed test leaves behind
//! ```

mod agent;
mod disk;
mod guest;
mod layers;
mod layers_in_guest;
mod layers_live;
mod live;
mod machine;
mod menu;
mod monitor;
mod outside;
mod power;
mod qemu;
mod service;
mod services;
mod shelf;
mod story;
#[path = "../it/support/mod.rs"]
mod support;
mod update;
mod update_grub2;

/// Writes a line for the person who watches; the runs are long.
#[expect(clippy::print_stderr, reason = "a test run is watched by people")]
fn tell(text: &str) {
    eprintln!("{text}");
}
