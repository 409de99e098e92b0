//! Plain Debian roots of `hack/image-root`, which keeps their archives.

use super::run;
use std::path::Path;
use tempfile::TempDir;

/// Unpacks the root of a release that has these packages besides the minimum.
pub fn unpack<S: AsRef<str>>(release: &str, packages: impl IntoIterator<Item = S>) -> TempDir {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/image-root");
    let mut arguments = vec![release.to_owned()];
    arguments.extend(packages.into_iter().map(|package| package.as_ref().to_owned()));
    let archive = run(&script.to_string_lossy(), &arguments);
    let folder = tempfile::tempdir().expect("directory");
    let target = folder.path().to_str().expect("UTF-8");
    run("tar", ["-xpf", archive.trim(), "-C", target]);
    folder
}
