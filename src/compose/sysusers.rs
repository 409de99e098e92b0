//! systemd's sysusers.d, `/etc/passwd` and `/etc/group`: which accounts an image has and which it declares.

use super::rootfs;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The file that `container prepare` writes; its name sorts first, because the first line for a name wins.
pub(crate) const GENERATED: &str = "usr/lib/sysusers.d/00-apt-ostree-image.conf";

/// First id of people; below are the accounts of the system.
pub(crate) const FIRST_PERSON: u32 = 1000;

/// One line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) comment: String,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// One line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) gid: u32,
    pub(crate) members: Vec<String>,
}

/// The accounts of an image, in the order of its files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    pub(crate) users: Vec<User>,
    pub(crate) groups: Vec<Group>,
}

impl Accounts {
    /// Reads `/etc/passwd` and `/etc/group`, or `/usr/etc` where an image has only that.
    pub(crate) fn load(root: &Dir) -> Result<Self> {
        for folder in ["etc", "usr/etc"] {
            if rootfs::is_file(root, Path::new(folder).join("passwd"))? {
                return Self::of(&root.open_dir(folder)?);
            }
        }
        Ok(Self::default())
    }

    /// Reads `passwd` and `group` of an `/etc`.
    pub(crate) fn of(etc: &Dir) -> Result<Self> {
        let read = |name: &str| rootfs::read_text(etc, name).map(Option::unwrap_or_default);
        Ok(Self {
            users: read("passwd")?.lines().filter_map(parse_user).collect(),
            groups: read("group")?.lines().filter_map(parse_group).collect(),
        })
    }

    /// Returns the name of the user `uid`.
    pub(crate) fn user_name(&self, uid: u32) -> Option<&str> {
        let user = self.users.iter().find(|user| user.uid == uid)?;
        Some(&user.name)
    }

    /// Returns the name of the group `gid`.
    pub(crate) fn group_name(&self, gid: u32) -> Option<&str> {
        let group = self.groups.iter().find(|group| group.gid == gid)?;
        Some(&group.name)
    }
}

fn parse_user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, comment, home, shell] = fields[..] else {
        return None;
    };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        comment: comment.to_owned(),
        home: home.to_owned(),
        shell: shell.to_owned(),
    })
}

fn parse_group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields[..] else {
        return None;
    };
    Some(Group {
        name: name.to_owned(),
        gid: gid.parse().ok()?,
        members: members
            .split(',')
            .filter(|member| !member.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

/// What the sysusers.d files of an image declare; the value is the fixed id where there is one.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    pub(crate) users: BTreeMap<String, Option<u32>>,
    pub(crate) groups: BTreeMap<String, Option<u32>>,
    pub(crate) members: BTreeSet<(String, String)>,
}

impl Declared {
    /// Reads sysusers.d; with `generated` false the file that `container prepare` wrote does not count.
    pub(crate) fn load(root: &Dir, generated: bool) -> Result<Self> {
        let mut declared = Self::default();
        for folder in ["etc/sysusers.d", "usr/lib/sysusers.d"] {
            for name in rootfs::names(root, folder)? {
                let path = Path::new(folder).join(name);
                if !generated && path == Path::new(GENERATED) {
                    continue;
                }
                for line in rootfs::read_text(root, &path)?.unwrap_or_default().lines() {
                    declared.add(line);
                }
            }
        }
        Ok(declared)
    }

    /// Reads the text of one file.
    pub(crate) fn parse(text: &str) -> Self {
        let mut declared = Self::default();
        text.lines().for_each(|line| declared.add(line));
        declared
    }

    fn add(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(letter), Some(name)) = (words.first(), words.get(1)) else {
            return;
        };
        let id = words.get(2).copied().unwrap_or("-");
        match letter.trim_end_matches('!') {
            "u" => {
                let (uid, gid) = id.split_once(':').unwrap_or((id, id));
                self.users.entry((*name).to_owned()).or_insert(uid.parse().ok());
                // `uid:group` names a group that has a line of its own.
                if !id.contains(':') {
                    self.groups.entry((*name).to_owned()).or_insert(gid.parse().ok());
                }
            }
            "g" => {
                self.groups.entry((*name).to_owned()).or_insert(id.parse().ok());
            }
            "m" => {
                self.members.insert(((*name).to_owned(), id.to_owned()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_read() {
        let mut declared = Declared::default();
        for line in [
            "u root 0:0 \"Super User\" /root",
            "u! messagebus - \"Bus\"",
            "g adm 4 - -",
            "m www-data adm",
        ] {
            declared.add(line);
        }
        assert_eq!(declared.users["root"], Some(0));
        assert_eq!(declared.users["messagebus"], None);
        assert_eq!(declared.groups["messagebus"], None);
        assert_eq!(declared.groups["adm"], Some(4));
        assert!(
            declared
                .members
                .contains(&("www-data".to_owned(), "adm".to_owned()))
        );
    }

    #[test]
    fn broken_lines_are_passed_over() {
        assert_eq!(parse_user("x:y"), None);
        assert_eq!(parse_user("a:x:notanumber:1:::"), None);
        assert_eq!(
            parse_group("adm:x:4:syslog,web").unwrap().members,
            ["syslog", "web"]
        );
    }
}
