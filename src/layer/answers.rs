//! Stored answers for debconf: what `--debconf FILE` gave, replayed whenever the packages are set up again.
//!
//! One file per set of answers at [`Places::debconf`], named by its SHA-256 and readable by root alone: answers may be
//! passwords. The origin names the set in use.

use crate::fault::{Fault, Kind};
use crate::host::plain_file;
use crate::layer::places::Places;
use anyhow::{Context, Result};
use fn_error_context::context;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// More answers than all packages of Debian ask for.
const LARGEST: u64 = 1 << 20;

/// Stores the answers of a file and returns the name of the set.
///
/// Fails when the file cannot be read, or a line of it is no answer as `debconf-set-selections` takes it.
#[context("Storing the answers for debconf in {}", plain_file::shown(file))]
pub fn store(places: &Places, file: &Path) -> Result<String> {
    let content = plain_file::read_text(file, LARGEST)?;
    check(&content)?;
    let digest = hex::encode(Sha256::digest(&content));
    let path = places.debconf(&digest);
    let folder = path.parent().context("The folder of the answers")?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut new = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .tempfile_in(folder)?;
    new.write_all(content.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(&path)?;
    Ok(digest)
}

/// Returns the answers of a set; fails when they are gone.
pub fn load(places: &Places, digest: &str) -> Result<Vec<u8>> {
    let path = places.debconf(digest);
    std::fs::read(&path).map_err(|error| {
        Fault::new(
            Kind::NotFound,
            format!(
                "The answers for debconf {} cannot be read: {error}",
                path.display()
            ),
        )
        .hint("give them again with `--debconf FILE`")
        .into()
    })
}

/// Removes the sets that no deployment names.
#[context("Removing unused answers for debconf")]
pub fn forget_unused(places: &Places, used: &BTreeSet<String>) -> Result<()> {
    let folder = places.debconf("");
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !used.contains(entry.file_name().to_string_lossy().as_ref()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Fails for a line that is not `PACKAGE QUESTION TYPE [VALUE]`; the value is not repeated, it may be a password.
fn check(content: &str) -> Result<(), Fault> {
    for (number, line) in content.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.split_whitespace().count() < 3 {
            return Err(Fault::new(
                Kind::Usage,
                format!("Line {} is no answer (PACKAGE QUESTION TYPE VALUE)", number + 1),
            )
            .hint("`debconf-get-selections` prints answers in the right form"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn answers_are_kept_for_root_alone_until_nothing_names_them() {
        let sysroot = tempfile::tempdir().unwrap();
        let places = Places::of(sysroot.path(), "debian");
        let file = sysroot.path().join("answers");
        std::fs::write(
            &file,
            "# mine\ntool tool/password password s3cret\ntool tool/empty string\n",
        )
        .unwrap();
        let digest = store(&places, &file).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&places.debconf(&digest)), 0o600);
        assert_eq!(mode(&places.debconf("")), 0o700);
        assert_eq!(load(&places, &digest).unwrap(), std::fs::read(&file).unwrap());
        forget_unused(&places, &BTreeSet::from([digest.clone()])).unwrap();
        assert!(load(&places, &digest).is_ok());
        forget_unused(&places, &BTreeSet::new()).unwrap();
        let error = load(&places, &digest).unwrap_err();
        assert!(Fault::find(&error).unwrap().hint.is_some());
        std::fs::write(&file, "tool secret\n").unwrap();
        let error = store(&places, &file).unwrap_err();
        let fault = Fault::find(&error).unwrap();
        assert!(
            fault.message.contains("Line 1") && !fault.message.contains("secret"),
            "{fault}"
        );
    }
}
