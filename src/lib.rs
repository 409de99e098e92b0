//! apt-ostree: runs Debian as an image.
//!
//! A host tracks one OCI image reference, imports that image into its OSTree repository, boots what it
//! imported and can always go back. `docs/architecture.md` tells how the parts fit.
//!
//! The arrows between the modules go one way, and `tests/it/layering.rs` fails on one that does not:
//! `cli, daemon -> ops -> deployment -> layer -> {image, boot, compose} -> {tree, host}`; [`config`], [`fault`] and
//! [`report`] are leaves.
//! Nothing below `cli` and `daemon` prints, names clap or reads the environment outside [`host`].

pub mod boot;
pub mod cli;
pub mod compose;
pub mod config;
pub mod daemon;
pub mod deployment;
pub mod fault;
pub mod host;
pub mod image;
pub mod layer;
pub mod ops;
pub mod report;
pub mod tree;
