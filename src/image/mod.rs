//! Where the base system comes from: references, policy, credentials, the pull itself and what is stored.

pub mod credentials;
pub mod gc;
pub mod policy;
pub mod proxy;
pub mod pull;
pub mod reference;
pub mod store;
