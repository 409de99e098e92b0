//! The rule about accounts.

use super::{Level, Rule};
use crate::compose::sysusers::{Accounts, Declared, FIRST_PERSON};

/// Not an id of anybody.
const NOBODY: u32 = 65_534;

pub(super) const SYSUSERS: Rule = Rule {
    name: "sysusers",
    level: Level::Warning,
    description: "Every system account of /etc/passwd and /etc/group has a line in sysusers.d",
    check: |check| {
        let accounts = Accounts::load(check.root)?;
        let declared = Declared::load(check.root, true)?;
        for user in &accounts.users {
            let ours = user.uid < FIRST_PERSON || user.uid == NOBODY;
            if ours && !declared.users.contains_key(&user.name) {
                let message = format!("The user {} has no line in sysusers.d", user.name);
                check.found_unprepared("etc/passwd", message);
            }
        }
        for group in &accounts.groups {
            let ours = group.gid < FIRST_PERSON || group.gid == NOBODY;
            if ours && !declared.groups.contains_key(&group.name) {
                let message = format!("The group {} has no line in sysusers.d", group.name);
                check.found_unprepared("etc/group", message);
            }
        }
        Ok(())
    },
};
