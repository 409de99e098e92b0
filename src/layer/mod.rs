//! Packages on top of an image: from an [`intent::Intent`] and a base commit to a derived commit.
//!
//! From scratch every time: the base's tree, apt's plan for the requests, the target's own dpkg run in a sandbox over
//! an overlay, and the overlay's upper directory folded over the base like one more layer of the image. Nothing is
//! written through a hard link of the repository, nothing of a package runs outside the sandbox, and until the
//! commit is written there is only scratch that the next run removes.

mod acquire;
pub mod analysis;
pub mod answers;
mod apt_conf;
pub mod archive;
pub mod assemble;
pub mod base;
pub mod cache;
pub mod change;
pub mod changelog;
pub mod commit;
mod conflicts;
mod deb;
pub(crate) mod debconf;
mod dkms;
pub mod download;
pub mod etc;
mod expected;
mod explain;
pub mod fetch;
pub mod ids;
pub mod intent;
mod owners;
pub mod packages;
pub mod places;
pub mod plan;
mod question;
pub mod record;
pub mod refresh;
pub mod run;
mod scripts;
pub mod search;
mod seed;
mod shell;
mod simulation;
mod solve;
mod sources;
pub mod stage;
mod steps;
pub mod store;
pub mod translate;
mod upper;
mod watch;
