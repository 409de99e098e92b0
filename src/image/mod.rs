//! Where the base system comes from: references, policy, credentials, the pull itself and what is stored.

pub mod blob;
mod connection;
pub mod credentials;
pub mod difference;
pub mod gc;
pub mod name;
pub mod policy;
pub mod proxy;
pub mod pull;
mod reason;
pub mod reference;
pub mod retry;
mod session;
mod signature;
mod storage;
pub mod store;
