//! Deployments of a sysroot: the model `status` shows, the origin file, staging, pruning.

pub mod model;
pub mod origin;
pub mod prune;
pub mod staging;
