//! Where the base system comes from: references, policy, credentials, the pull itself and what is stored.

mod assemble;
pub mod blob;
mod chunked;
pub mod commit;
mod connection;
pub mod content;
pub mod credentials;
pub mod difference;
mod encapsulated;
mod entry;
mod fetch;
pub mod gc;
mod gzip;
mod header;
mod inflate;
mod known;
mod layer;
mod merged;
pub mod name;
pub mod object;
pub mod objects;
pub mod parts;
pub mod policy;
pub mod proxy;
pub mod pull;
mod reader;
mod reason;
pub mod reference;
mod requirements;
pub mod retry;
pub mod scratch;
mod session;
mod signature;
pub mod space;
mod storage;
pub mod store;

/// What this program writes into the commits it imports as their importer; a change makes older merges worthless.
pub const IMPORTER_VERSION: &str = "apt-ostree-1";
