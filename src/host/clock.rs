//! What time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the seconds since 1970 by the machine's clock; 0 before that.
pub fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
