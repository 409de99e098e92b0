//! An OSTree tree in memory: union with whiteouts, path look-up, write-out.
//!
//! An OCI layer and an overlay's upper directory are the same thing, a difference with whiteouts, and
//! [`Directory::apply`] is the one place that folds such a difference over a lower tree. Directories are read
//! when they are touched and written when they changed, so a small change to a large tree stays small.

mod checksum;
mod children;
mod difference;
mod directory;
mod merge;
mod metadata;
mod variant;

pub use checksum::Checksum;
pub use children::Children;
pub use difference::Change;
pub use directory::{Directory, Entries, Found, MetadataKind, Objects};
pub use merge::{OPAQUE, WHITEOUT_PREFIX};
pub use metadata::{Metadata, Xattrs};
