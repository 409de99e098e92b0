//! What every machine must have of its own: the files, and the units that make them anew where a package needs them.

use super::rootfs;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use std::path::Path;

/// Files that are taken out of images and layers; programs that need one and have no unit here make it themselves.
pub(crate) const SECRETS: &[&str] = &[
    "etc/ssl/private/ssl-cert-snakeoil.key",
    "etc/ssl/certs/ssl-cert-snakeoil.pem",
    "etc/bind/rndc.key",
    "etc/nvme/hostid",
    "etc/nvme/hostnqn",
    "etc/iscsi/initiatorname.iscsi",
    "var/lib/dbus/machine-id",
    "var/lib/dkms/mok.key",
    "var/lib/dkms/mok.pub",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/NetworkManager/secret_key",
    "var/cache/debconf/passwords.dat",
    "var/cache/debconf/passwords.dat-old",
];

/// Names of such files wherever they are in `/var`.
const SECRET_NAMES: &[&str] = &[".erlang.cookie"];

/// A unit that makes a secret where it is missing.
struct Maker {
    /// The program that makes it; images without it get no unit.
    program: &'static str,
    unit: &'static str,
    text: &'static str,
    hook: Hook,
}

/// What starts such a unit.
enum Hook {
    /// A target, for a secret that many services may need.
    Target(&'static str),
    /// The services that cannot start without.
    Services(&'static [&'static str]),
}

const MAKERS: &[Maker] = &[
    Maker {
        program: "usr/sbin/sshd",
        unit: "apt-ostree-ssh-keys.service",
        text: "\
[Unit]
Description=Make the missing SSH host keys of this machine
# Debian's own service does it where it takes this for the first boot; the condition is looked at afterwards.
After=sshd-keygen.service
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
",
        hook: Hook::Services(&["ssh.service", "ssh@.service", "sshd@.service"]),
    },
    Maker {
        program: "usr/sbin/make-ssl-cert",
        unit: "apt-ostree-snakeoil.service",
        text: "\
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
",
        hook: Hook::Target("basic.target"),
    },
    Maker {
        program: "usr/sbin/rndc-confgen",
        unit: "apt-ostree-rndc-key.service",
        text: "\
[Unit]
Description=Make the key by which this machine's name server is controlled
ConditionPathExists=!/etc/bind/rndc.key

[Service]
Type=oneshot
ExecStart=/usr/sbin/rndc-confgen -a -u bind
",
        hook: Hook::Services(&["named.service"]),
    },
];

/// Tells whether a file of `/etc/ssh` is a host key.
pub(crate) fn is_host_key(name: &str) -> bool {
    name.starts_with("ssh_host_") && (name.ends_with("_key") || name.ends_with("_key.pub"))
}

/// Tells whether the path below the root is one that every machine must have of its own.
pub(super) fn is_secret(path: &Path) -> bool {
    let named = |name: &&str| path.starts_with("var") && path.file_name().is_some_and(|file| file == *name);
    SECRETS.iter().any(|secret| path == Path::new(secret)) || SECRET_NAMES.iter().any(named)
}

/// Removes the secrets that stand outside `/var` and ships the units that make them anew.
///
/// Those of `/var` go when it is emptied.
pub(super) fn strip(root: &Dir) -> Result<()> {
    for name in rootfs::names(root, "etc/ssh")? {
        if is_host_key(&name.to_string_lossy()) {
            rootfs::remove(root, Path::new("etc/ssh").join(name))?;
        }
    }
    for path in SECRETS {
        rootfs::remove(root, path)?;
    }
    remove_dangling_certificates(root)?;
    MAKERS.iter().try_for_each(|maker| ship(root, maker))
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

/// Writes the unit and what starts it, or removes both from an image that has lost the program.
fn ship(root: &Dir, maker: &Maker) -> Result<()> {
    let units = Path::new("usr/lib/systemd/system");
    let needed = rootfs::is_file(root, maker.program)?;
    if needed {
        rootfs::write(root, units.join(maker.unit), maker.text, 0o644)?;
    } else {
        rootfs::remove(root, units.join(maker.unit))?;
    }
    match &maker.hook {
        Hook::Target(target) => {
            let link = units.join(format!("{target}.wants")).join(maker.unit);
            if needed {
                rootfs::link(root, link, &format!("../{}", maker.unit))?;
            } else {
                rootfs::remove(root, link)?;
            }
        }
        Hook::Services(services) => {
            for service in *services {
                let folder = units.join(format!("{service}.d"));
                let drop_in = folder.join("10-apt-ostree-keys.conf");
                if needed {
                    let text = format!("[Unit]\nWants={0}\nAfter={0}\n", maker.unit);
                    rootfs::write(root, drop_in, &text, 0o644)?;
                } else if rootfs::remove(root, drop_in)? && rootfs::names(root, &folder)?.is_empty() {
                    rootfs::remove(root, folder)?;
                }
            }
        }
    }
    Ok(())
}
