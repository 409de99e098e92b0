//! `--version`, in rpm-ostree's YAML form.

/// What is built in, by rpm-ostree's words where it has them.
const FEATURES: &[&str] = &["rust", "container", "layering"];

/// The commit this was built from, where whoever built it said so.
const COMMIT: Option<&str> = option_env!("APT_OSTREE_GIT");

/// Returns what `--version` prints.
pub(crate) fn text() -> String {
    let commit = COMMIT.map_or(String::new(), |commit| format!(" Git: {commit}\n"));
    let features: String = FEATURES
        .iter()
        .map(|feature| format!("  - {feature}\n"))
        .collect();
    format!(
        "apt-ostree:\n Version: '{}'\n{commit} Features:\n{features}",
        env!("CARGO_PKG_VERSION")
    )
}
