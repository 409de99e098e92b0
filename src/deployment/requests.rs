//! What an origin asks for on top of its image: [`Intent`] from the key file, and back.
//!
//! ```ini
//! [packages]
//! requested=htop;libc6:i386;nginx=1.26-1;
//! requested-local=<sha256>:name_version_architecture;
//! [overrides]
//! remove=nano;
//! replace=git/trixie-backports;
//! replace-local=<sha256>:name_version_architecture;
//! [apt-ostree]
//! scripts=strict|warn|skip
//! conflicts=fail|keep-latest|keep-base
//! debconf=<sha256>
//! regenerate-initramfs=true
//! initramfs-args=--force-drivers;nvme;
//! initramfs-etc=/etc/crypttab;
//! ```
//!
//! Groups and keys are rpm-ostree's where it has them. Invariant: what holds no request is absent, key and group,
//! because bootc refuses a host whose origin has a group `packages` or `overrides`.

use crate::deployment::origin::Origin;
use crate::fault::{Fault, Kind};
use crate::layer::intent::{ConflictMode, Intent, ScriptMode};
use anyhow::Result;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

const PACKAGES: &str = "packages";
const OVERRIDES: &str = "overrides";
const OWN: &str = "apt-ostree";

impl Origin {
    /// Returns what the origin asks for on top of its image.
    ///
    /// Fails with a fault that names the key when one holds what this program cannot use.
    pub fn intent(&self) -> Result<Intent> {
        Ok(Intent {
            packages: self.set(PACKAGES, "requested")?,
            local_packages: self.set(PACKAGES, "requested-local")?,
            removals: self.set(OVERRIDES, "remove")?,
            replacements: self.set(OVERRIDES, "replace")?,
            local_replacements: self.set(OVERRIDES, "replace-local")?,
            scripts: self.word("scripts")?.unwrap_or_default(),
            conflicts: self.word("conflicts")?.unwrap_or_default(),
            debconf: self.word("debconf")?,
            regenerate_initramfs: self.word("regenerate-initramfs")?.unwrap_or(false),
            initramfs_args: self.list(OWN, "initramfs-args")?,
            initramfs_etc: self.list(OWN, "initramfs-etc")?.into_iter().collect(),
        })
    }

    /// Makes the origin ask for exactly this; keys this program does not know stay.
    pub fn set_intent(&self, intent: &Intent) {
        self.set_list(PACKAGES, "requested", &intent.packages);
        self.set_list(PACKAGES, "requested-local", &intent.local_packages);
        self.set_list(OVERRIDES, "remove", &intent.removals);
        self.set_list(OVERRIDES, "replace", &intent.replacements);
        self.set_list(OVERRIDES, "replace-local", &intent.local_replacements);
        let scripts = (intent.scripts != ScriptMode::default()).then_some(intent.scripts);
        self.set_list(OWN, "scripts", &scripts);
        let conflicts = (intent.conflicts != ConflictMode::default()).then_some(intent.conflicts);
        self.set_list(OWN, "conflicts", &conflicts);
        self.set_list(OWN, "debconf", &intent.debconf);
        let regenerate = intent.regenerate_initramfs.then_some(true);
        self.set_list(OWN, "regenerate-initramfs", &regenerate);
        self.set_list(OWN, "initramfs-args", &intent.initramfs_args);
        self.set_list(OWN, "initramfs-etc", &intent.initramfs_etc);
    }

    /// Returns a list of texts; an absent key is an empty list.
    fn list(&self, group: &str, key: &str) -> Result<Vec<String>> {
        if !self.file.has_key(group, key).unwrap_or(false) {
            return Ok(Vec::new());
        }
        let values = self
            .file
            .string_list(group, key)
            .map_err(|error| unusable(group, key, error.message()))?;
        Ok(values.iter().map(|value| value.to_string()).collect())
    }

    fn set<T>(&self, group: &str, key: &str) -> Result<BTreeSet<T>>
    where
        T: FromStr<Err = Fault> + Ord,
    {
        self.list(group, key)?
            .iter()
            .map(|text| {
                text.parse()
                    .map_err(|fault: Fault| unusable(group, key, &fault.message).into())
            })
            .collect()
    }

    /// Returns the one value of a key of our own group.
    fn word<T>(&self, key: &str) -> Result<Option<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let values = self.list(OWN, key)?;
        let Some(text) = values.first() else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|error: T::Err| unusable(OWN, key, &error.to_string()).into())
    }

    /// Writes the values of a key, or removes the key and the group that it leaves empty.
    fn set_list<'a, T: Display + 'a>(&self, group: &str, key: &str, values: impl IntoIterator<Item = &'a T>) {
        let values: Vec<String> = values.into_iter().map(T::to_string).collect();
        let single = group == OWN && !key.starts_with("initramfs-");
        if let (true, [value]) = (single, values.as_slice()) {
            self.file.set_string(group, key, value);
            return;
        }
        if !values.is_empty() {
            let list: String = values.iter().map(|value| list_item(value)).collect();
            self.file.set_value(group, key, &list);
            return;
        }
        if self.file.has_key(group, key).unwrap_or(false) {
            self.file.remove_key(group, key).expect("the key was just seen");
        }
        let is_empty = self.file.keys(group).is_ok_and(|keys| keys.is_empty());
        if is_empty {
            self.file.remove_group(group).expect("the group was just seen");
        }
    }
}

/// Returns a value with what ends it in a list, in GLib's form; the bindings cannot write lists.
fn list_item(value: &str) -> String {
    let mut item = String::new();
    for (place, c) in value.chars().enumerate() {
        match c {
            ' ' if place == 0 => item.push_str("\\s"),
            '\t' if place == 0 => item.push_str("\\t"),
            '\n' => item.push_str("\\n"),
            '\r' => item.push_str("\\r"),
            '\\' => item.push_str("\\\\"),
            ';' => item.push_str("\\;"),
            c => item.push(c),
        }
    }
    item.push(';');
    item
}

fn unusable(group: &str, key: &str, reason: &str) -> Fault {
    Fault::new(
        Kind::Invalid,
        format!("The origin's key `{key}` in `[{group}]` cannot be used: {reason}"),
    )
    .hint("drop every request with `apt-ostree reset`, or mend the origin file")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        let file = ostree_ext::glib::KeyFile::new();
        file.load_from_data(text, ostree_ext::glib::KeyFileFlags::KEEP_COMMENTS)
            .unwrap();
        Origin { file }
    }

    #[test]
    fn an_intent_round_trips_and_leaves_nothing_behind_when_it_is_empty() {
        let origin = origin("[origin]\nrefspec=a\n");
        let before = origin.file.to_data();
        let local = |name: &str| format!("{}:{name}_1_all", "a".repeat(64)).parse().unwrap();
        let intent = Intent {
            packages: ["htop", "nginx=1:2-3", "git/sid"]
                .map(|text| text.parse().unwrap())
                .into(),
            local_packages: [local("one")].into(),
            removals: ["nano".parse().unwrap()].into(),
            replacements: ["bash".parse().unwrap()].into(),
            local_replacements: [local("two")].into(),
            scripts: ScriptMode::Strict,
            conflicts: ConflictMode::KeepBase,
            debconf: Some("d".repeat(64)),
            regenerate_initramfs: true,
            initramfs_args: vec!["--add".to_owned(), " crypt;\t\\ lvm\n".to_owned()],
            initramfs_etc: ["/etc/crypttab".to_owned()].into(),
        };
        origin.set_intent(&intent);
        assert_eq!(origin.intent().unwrap(), intent);
        let text = origin.file.to_data().to_string();
        assert!(
            text.contains("[packages]\nrequested=git/sid;htop;nginx=1:2-3;\n"),
            "{text}"
        );
        assert!(text.contains("regenerate-initramfs=true\n"), "{text}");
        origin.set_intent(&Intent::default());
        assert_eq!(origin.intent().unwrap(), Intent::default());
        assert_eq!(origin.file.to_data(), before);
    }

    #[test]
    fn what_is_not_known_stays() {
        let origin = origin("[packages]\nrequested=htop;\nother=1\n[modules]\nlegacy=2\n");
        origin.set_intent(&Intent::default());
        assert_eq!(
            origin.file.to_data(),
            "[packages]\nother=1\n\n[modules]\nlegacy=2\n"
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, key) in [
            ("[packages]\nrequested=--force;", "`requested` in `[packages]`"),
            (
                "[packages]\nrequested-local=foo;",
                "`requested-local` in `[packages]`",
            ),
            ("[overrides]\nremove=A B;", "`remove` in `[overrides]`"),
            ("[overrides]\nreplace=repo=x,y;", "`replace` in `[overrides]`"),
            ("[apt-ostree]\nscripts=maybe", "`scripts` in `[apt-ostree]`"),
            ("[apt-ostree]\nregenerate-initramfs=ja", "`regenerate-initramfs`"),
        ] {
            let error = origin(text).intent().unwrap_err();
            let fault = Fault::find(&error).unwrap();
            assert!(fault.message.contains(key), "{text}: {fault}");
        }
    }
}
