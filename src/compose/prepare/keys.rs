//! The net below the table of secrets: private keys that a maintainer script made and nobody foresaw.

use super::{database, rootfs};
use crate::report::Report;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use std::path::Path;

/// Longer files are no keys.
const LONGEST: u64 = 64 << 10;

/// Where a script put the hash of a password of its own choice: folder, what a line with one begins with.
const PASSWORDS: &[(&str, &str)] = &[("etc/ldap/slapd.d", "olcRootPW:")];

/// Removes private keys in PEM that are new below `/etc` and `/var` and that no package ships, and tells of each.
#[context("Looking for private keys")]
pub(super) fn strip(root: &Dir, base: &Dir, report: &dyn Report) -> Result<()> {
    let shipped = database::shipped(root)?;
    let mut keys = Vec::new();
    for (folder, before) in [("etc", "usr/etc"), ("var", "usr/share/factory/var")] {
        rootfs::walk(root, Path::new(folder), &mut |path, metadata| {
            let old = Path::new(before).join(path.strip_prefix(folder)?);
            let is_new = metadata.is_file() && !shipped.contains(path) && rootfs::look(base, &old)?.is_none();
            if !is_new || metadata.len() > LONGEST {
                return Ok(());
            }
            let bytes = root.read(path)?;
            if holds_private_key(&bytes) {
                keys.push(path.to_owned());
            }
            let text = String::from_utf8_lossy(&bytes);
            let password = |(folder, start): &&(&str, &str)| {
                path.starts_with(folder) && text.lines().any(|line| line.starts_with(*start))
            };
            if PASSWORDS.iter().any(|entry| password(&entry)) {
                report.warning(&format!(
                    "/{} holds the hash of a password that a script chose: set another one on the host.",
                    path.display()
                ));
            }
            Ok(())
        })?;
    }
    for path in keys {
        rootfs::remove(root, &path)?;
        report.warning(&format!(
            "The private key /{} that a script made was left out: every host must make its own.",
            path.display()
        ));
    }
    Ok(())
}

/// Looks for `-----BEGIN ... PRIVATE KEY-----` at the start of a line.
fn holds_private_key(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').any(|line| {
        let line = line.trim_ascii_end();
        line.starts_with(b"-----BEGIN ") && line.ends_with(b"PRIVATE KEY-----")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_keys_are_told_from_certificates() {
        for key in [
            "-----BEGIN PRIVATE KEY-----\nMII\n",
            "cert\n-----BEGIN RSA PRIVATE KEY-----\r\n",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
        ] {
            assert!(holds_private_key(key.as_bytes()), "{key}");
        }
        for other in [
            "",
            "-----BEGIN CERTIFICATE-----\n",
            "-----BEGIN PUBLIC KEY-----",
            "# put -----BEGIN PRIVATE KEY----- here",
        ] {
            assert!(!holds_private_key(other.as_bytes()), "{other}");
        }
    }
}
