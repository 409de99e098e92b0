//! Rules about what must differ between machines, and about timers that change a host by themselves.

use super::{Level, Rule, rootfs};
use crate::compose::prepare::{APT_UNITS, SECRETS, enablement_links, is_host_key};
use std::path::Path;

pub(super) const HOST_IDENTITY: Rule = Rule {
    name: "host-identity",
    level: Level::Error,
    description: "No machine id, SSH host key or other secret of one machine is in the image",
    check: |check| {
        match rootfs::read_text(check.root, "etc/machine-id")?
            .as_deref()
            .map(str::trim)
        {
            None | Some("uninitialized") => {}
            Some("") => check.found_unprepared(
                "etc/machine-id",
                "It is empty, which hides the first boot from systemd",
            ),
            Some(_) => check.found_unprepared(
                "etc/machine-id",
                "All hosts of the image would have the same machine id",
            ),
        }
        for name in rootfs::names(check.root, "etc/ssh")? {
            if is_host_key(&name.to_string_lossy()) {
                let path = Path::new("etc/ssh").join(name);
                check.found_unprepared(path, "All hosts of the image would share this host key");
            }
        }
        for folder in ["", "usr/share/factory"] {
            for path in SECRETS {
                let path = Path::new(folder).join(path);
                if rootfs::is_file(check.root, &path)? {
                    check.found_unprepared(path, "It belongs to one machine and not into an image");
                }
            }
        }
        Ok(())
    },
};

pub(super) const APT_TIMERS: Rule = Rule {
    name: "apt-timers",
    level: Level::Error,
    description: "No timer or service that runs apt or dpkg by itself is enabled",
    check: |check| {
        for (folder, name) in enablement_links(check.root)? {
            let path = Path::new(&folder).join(&name);
            let masked = rootfs::link_target(check.root, &path)?
                .is_some_and(|target| target == Path::new("/dev/null"));
            if APT_UNITS.contains(&name.as_str()) && !masked {
                check.found_unprepared(
                    path,
                    "The unit is enabled and would change packages behind the image's back",
                );
            }
        }
        Ok(())
    },
};
