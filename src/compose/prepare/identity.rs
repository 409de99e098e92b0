//! What makes one machine differ from another: taken out of the image, made on the first boot.

use super::rootfs;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use std::path::Path;

/// Files that every machine must have of its own.
pub(crate) const SECRETS: &[&str] = &[
    "etc/ssl/private/ssl-cert-snakeoil.key",
    "etc/ssl/certs/ssl-cert-snakeoil.pem",
    "etc/nvme/hostid",
    "etc/nvme/hostnqn",
    "etc/iscsi/initiatorname.iscsi",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/NetworkManager/secret_key",
    "var/cache/debconf/passwords.dat",
    "var/cache/debconf/passwords.dat-old",
];

/// Locks and copies that account and package tools leave in `/etc`.
const DEBRIS: &[&str] = &[
    "etc/.pwd.lock",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
];

/// Name endings of what dpkg and ucf leave beside a configuration file.
pub(crate) const PACKAGE_DEBRIS: &[&str] = &[
    ".dpkg-new",
    ".dpkg-tmp",
    ".dpkg-old",
    ".dpkg-dist",
    ".dpkg-bak",
    ".dpkg-remove",
    ".ucf-new",
    ".ucf-old",
    ".ucf-dist",
    ".ucf-tmp",
];

const SSH_UNIT: &str = "\
[Unit]
Description=Make the missing SSH host keys of this machine
# Debian's own service does it where it takes this for the first boot; the condition is looked at afterwards.
After=sshd-keygen.service
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
";

const SSH_DROP_IN: &str = "\
[Unit]
Wants=apt-ostree-ssh-keys.service
After=apt-ostree-ssh-keys.service
";

const SNAKEOIL_UNIT: &str = "\
[Unit]
Description=Make the self-signed certificate of this machine
ConditionPathExists=!/etc/ssl/private/ssl-cert-snakeoil.key
DefaultDependencies=no
After=local-fs.target systemd-sysusers.service systemd-tmpfiles-setup.service
Before=basic.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=/usr/sbin/make-ssl-cert generate-default-snakeoil
";

/// Tells whether a file of `/etc/ssh` is a host key.
pub(crate) fn is_host_key(name: &str) -> bool {
    name.starts_with("ssh_host_") && (name.ends_with("_key") || name.ends_with("_key.pub"))
}

/// Removes machine identity, secrets and leftovers, and ships units that make anew what a machine needs.
pub(super) fn strip(root: &Dir) -> Result<()> {
    // Literally this word, so that systemd takes the first boot for one; an empty file would not do.
    rootfs::write(root, "etc/machine-id", "uninitialized\n", 0o644)?;
    for name in rootfs::names(root, "etc/ssh")? {
        if is_host_key(&name.to_string_lossy()) {
            rootfs::remove(root, Path::new("etc/ssh").join(name))?;
        }
    }
    for path in SECRETS.iter().chain(DEBRIS).chain(&["etc/hostname"]) {
        rootfs::remove(root, path)?;
    }
    remove_dangling_certificates(root)?;
    let mut debris = Vec::new();
    rootfs::walk(root, Path::new("etc"), &mut |path, metadata| {
        let name = path.to_string_lossy();
        if metadata.is_file() && PACKAGE_DEBRIS.iter().any(|ending| name.ends_with(ending)) {
            debris.push(path.to_owned());
        }
        Ok(())
    })?;
    for path in debris {
        rootfs::remove(root, path)?;
    }
    ship_units(root)
}

/// Removes the hash link of the certificate that [`SECRETS`] names.
fn remove_dangling_certificates(root: &Dir) -> Result<()> {
    let folder = Path::new("etc/ssl/certs");
    for name in rootfs::names(root, folder)? {
        let path = folder.join(name);
        if rootfs::link_target(root, &path)?.is_some_and(|target| target.ends_with("ssl-cert-snakeoil.pem")) {
            rootfs::remove(root, &path)?;
        }
    }
    Ok(())
}

fn ship_units(root: &Dir) -> Result<()> {
    let units = Path::new("usr/lib/systemd/system");
    let ssh = units.join("apt-ostree-ssh-keys.service");
    let services = ["ssh.service", "ssh@.service", "sshd@.service"];
    let has_ssh = rootfs::is_file(root, "usr/sbin/sshd")?;
    if has_ssh {
        rootfs::write(root, &ssh, SSH_UNIT, 0o644)?;
    } else {
        rootfs::remove(root, &ssh)?;
    }
    for service in services {
        let drop_in = units.join(format!("{service}.d/10-apt-ostree-keys.conf"));
        if has_ssh {
            rootfs::write(root, &drop_in, SSH_DROP_IN, 0o644)?;
        } else if rootfs::remove(root, &drop_in)? {
            rootfs::remove(root, units.join(format!("{service}.d")))?;
        }
    }
    let snakeoil = units.join("apt-ostree-snakeoil.service");
    let wanted = units.join("basic.target.wants/apt-ostree-snakeoil.service");
    if rootfs::is_file(root, "usr/sbin/make-ssl-cert")? {
        rootfs::write(root, &snakeoil, SNAKEOIL_UNIT, 0o644)?;
        rootfs::link(root, &wanted, "../apt-ostree-snakeoil.service")?;
    } else {
        rootfs::remove(root, &wanted)?;
        rootfs::remove(root, &snakeoil)?;
    }
    Ok(())
}
