//! `--version`, in rpm-ostree's YAML form.

/// What `--version` prints behind the program's name.
pub(crate) const LONG: &str = concat!(
    "\n Version: '",
    env!("CARGO_PKG_VERSION"),
    "'\n Features:\n  - rust"
);
