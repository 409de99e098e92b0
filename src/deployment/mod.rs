//! Deployments of a sysroot: opening and locking it, the origin file, the way from an image to a boot entry,
//! pruning, the model that `status` shows, the transaction journal and the history of deployments.

pub mod advance;
pub mod archive;
pub mod automatic;
mod content;
pub mod driver;
pub mod finalization;
pub mod forget;
pub mod history;
pub mod journal;
pub mod layered;
pub mod live;
pub mod model;
pub mod origin;
pub mod outlook;
pub mod overlay_initrd;
pub mod prune;
mod requests;
pub mod salvage;
pub mod staging;
pub mod stamp;
pub mod sysroot;
