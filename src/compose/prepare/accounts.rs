//! Accounts as sysusers.d lines, for hosts whose own `/etc/passwd` no longer follows the image's.
//!
//! The ids are fixed: files of the image belong to them.

use super::{Scope, rootfs};
use crate::compose::sysusers::{Accounts, Declared, FIRST_PERSON, GENERATED, User};
use anyhow::Result;
use cap_std_ext::cap_std::fs::{Dir, MetadataExt};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

/// Declares every system account of the image that no package declares, or not with the id its files have.
pub(super) fn declare(root: &Dir, scope: &Scope<'_>) -> Result<()> {
    let accounts = Accounts::load(root)?;
    let declared = Declared::load(root, false)?;
    let (mut owners, mut owning_groups) = owners(root, scope)?;
    if let Scope::Layer(layer) = scope {
        let (users, groups) = brought(&Accounts::load(layer.base)?, &accounts);
        owners.extend(users);
        owning_groups.extend(groups);
    }
    let text = lines(&accounts, &declared, &owners, &owning_groups);
    if text.is_empty() {
        rootfs::remove(root, GENERATED)?;
        return Ok(());
    }
    let header = "# Written by apt-ostree container prepare: system accounts that no package declares.\n";
    rootfs::write(root, GENERATED, &format!("{header}{text}"), 0o644)?;
    Ok(())
}

/// Returns the users and groups other than root that own something below `/usr` or `/etc`.
///
/// Of an image below, only what it declares itself is looked at: its owners are in there.
fn owners(root: &Dir, scope: &Scope<'_>) -> Result<(BTreeSet<u32>, BTreeSet<u32>)> {
    let (mut users, mut groups) = (BTreeSet::new(), BTreeSet::new());
    let mut folders = vec![(root, "usr"), (root, "etc")];
    if let Scope::Layer(layer) = scope {
        if let Some(text) = rootfs::read_text(layer.base, GENERATED)? {
            let declared = Declared::parse(&text);
            users.extend(declared.users.values().flatten());
            groups.extend(declared.groups.values().flatten());
            folders = vec![(layer.upper, "usr")];
        }
    }
    for (root, folder) in folders {
        rootfs::walk(root, Path::new(folder), &mut |_, metadata| {
            users.insert(metadata.uid());
            groups.insert(metadata.gid());
            Ok(())
        })?;
    }
    users.remove(&0);
    groups.remove(&0);
    Ok((users, groups))
}

/// Returns the ids of accounts that came with packages on top of an image.
///
/// A host has given them for ever, so another one must not be picked at boot, even where nothing belongs to them yet.
fn brought(base: &Accounts, now: &Accounts) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let users = now
        .users
        .iter()
        .filter(|user| !base.users.iter().any(|known| known.name == user.name));
    let groups = now
        .groups
        .iter()
        .filter(|group| !base.groups.iter().any(|known| known.name == group.name));
    (
        users.map(|user| user.uid).collect(),
        groups.map(|group| group.gid).collect(),
    )
}

fn lines(
    accounts: &Accounts,
    declared: &Declared,
    owners: &BTreeSet<u32>,
    owning_groups: &BTreeSet<u32>,
) -> String {
    let mut text = String::new();
    for group in accounts.groups.iter().filter(|group| group.gid < FIRST_PERSON) {
        let fixed = declared.groups.get(&group.name);
        if fixed.is_none() || fixed != Some(&Some(group.gid)) && owning_groups.contains(&group.gid) {
            writeln!(text, "g {} {}", group.name, group.gid).expect("writing to a string cannot fail");
        }
    }
    for user in accounts.users.iter().filter(|user| user.uid < FIRST_PERSON) {
        let fixed = declared.users.get(&user.name);
        if fixed.is_none() || fixed != Some(&Some(user.uid)) && owners.contains(&user.uid) {
            text.push_str(&user_line(user));
        }
    }
    for group in accounts.groups.iter().filter(|group| group.gid < FIRST_PERSON) {
        for member in &group.members {
            if !declared.members.contains(&(member.clone(), group.name.clone()))
                && accounts
                    .users
                    .iter()
                    .any(|user| user.name == *member && user.uid < FIRST_PERSON)
            {
                writeln!(text, "m {member} {}", group.name).expect("writing to a string cannot fail");
            }
        }
    }
    text
}

fn user_line(user: &User) -> String {
    let field = |value: &str| {
        if value.is_empty() {
            "-".to_owned()
        } else {
            value.replace('%', "%%")
        }
    };
    let comment = user
        .comment
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%");
    format!(
        "u {} {}:{} \"{comment}\" {} {}\n",
        user.name,
        user.uid,
        user.gid,
        field(&user.home),
        field(&user.shell)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::sysusers::Group;

    #[test]
    fn undeclared_accounts_and_owners_get_fixed_ids() {
        let user = |name: &str, uid: u32| User {
            name: name.into(),
            uid,
            gid: uid,
            comment: "A \"name\"".into(),
            home: "/var/x".into(),
            shell: "/bin/sh".into(),
        };
        let group = |name: &str, gid: u32, members: &[&str]| Group {
            name: name.into(),
            gid,
            members: members.iter().map(|member| (*member).to_owned()).collect(),
        };
        let accounts = Accounts {
            users: vec![
                user("web", 33),
                user("bus", 997),
                user("quiet", 996),
                user("person", 1000),
            ],
            groups: vec![
                group("web", 33, &["bus", "person"]),
                group("bus", 997, &[]),
                group("quiet", 996, &[]),
            ],
        };
        let mut declared = Declared::default();
        for name in ["bus", "quiet"] {
            declared.users.insert(name.into(), None);
            declared.groups.insert(name.into(), None);
        }
        let text = lines(&accounts, &declared, &BTreeSet::new(), &BTreeSet::from([997]));
        assert_eq!(
            text,
            "g web 33\ng bus 997\nu web 33:33 \"A \\\"name\\\"\" /var/x /bin/sh\nm bus web\n"
        );
    }
}
