//! The ids of users and groups that layered packages bring: given once on a host and kept for ever.
//!
//! A maintainer script takes the first free id, so that ids would depend on which packages are layered together,
//! while files in `/var` keep the owner they had. After the scripts ran, every new system account therefore gets the
//! id that this host has for its name. The table is `ids.json` in the host's state; a name never leaves it.

use super::places::Places;
use crate::compose::sysusers::Accounts;
use crate::fault::{self, Fault};
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use fn_error_context::context;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

const FILE: &str = "ids.json";
const FORMAT: u32 = 1;

/// Ids that Debian gives to system accounts as they come; all others are fixed by a package and stay as they are.
const DYNAMIC: RangeInclusive<u32> = 100..=999;

/// Ids that this host gives. Debian's tools go upwards from 100 and systemd downwards from 999, so both rarely come here.
const GIVEN: RangeInclusive<u32> = 500..=899;

/// The table of a host and what it has to fit.
#[derive(Debug)]
pub struct Ids {
    folder: PathBuf,
    table: Table,
    saved: Table,
    host: Accounts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Table {
    format: u32,
    users: BTreeMap<String, u32>,
    groups: BTreeMap<String, u32>,
}

/// From the ids that a run of the scripts took to those of the host; ids that stay are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Users by the id they took.
    pub users: BTreeMap<u32, u32>,
    /// Groups by the id they took.
    pub groups: BTreeMap<u32, u32>,
}

impl Mapping {
    /// Returns whether every id stays.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Returns the user id that stands for `uid`.
    pub fn user(&self, uid: u32) -> u32 {
        self.users.get(&uid).copied().unwrap_or(uid)
    }

    /// Returns the group id that stands for `gid`.
    pub fn group(&self, gid: u32) -> u32 {
        self.groups.get(&gid).copied().unwrap_or(gid)
    }

    fn of_kind_mut(&mut self, kind: Kind) -> &mut BTreeMap<u32, u32> {
        match kind {
            Kind::User => &mut self.users,
            Kind::Group => &mut self.groups,
        }
    }
}

impl Ids {
    /// Reads the table of a host; a host without one begins an empty one.
    ///
    /// `etc` is the host's own `/etc`, where accounts may exist already; none for a host that has no deployment yet.
    /// Fails with a fault on a table that a newer program wrote or that is damaged: giving ids anew would leave files
    /// to strangers.
    #[context("Reading the ids of layered users")]
    pub fn load(places: &Places, etc: Option<&Path>) -> Result<Self> {
        let folder = places.state();
        let path = folder.join(FILE);
        let table = match std::fs::read(&path) {
            Ok(bytes) => parse(&bytes, &path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Table {
                format: FORMAT,
                ..Table::default()
            },
            Err(error) => return Err(error).with_context(|| format!("Opening {}", path.display())),
        };
        let host = match etc {
            Some(etc) => Accounts::of(&Dir::open_ambient_dir(etc, ambient_authority())?)?,
            None => Accounts::default(),
        };
        Ok(Self {
            folder,
            saved: table.clone(),
            table,
            host,
        })
    }

    /// Writes the table in one step unless it is unchanged.
    #[context("Writing the ids of layered users")]
    pub fn save(&mut self) -> Result<()> {
        if self.table == self.saved {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)?;
        let folder = Dir::open_ambient_dir(&self.folder, ambient_authority())?;
        let temporary = format!("{FILE}.new");
        let mut options = OpenOptions::new();
        let mut file = folder.open_with(
            &temporary,
            options.write(true).create(true).truncate(true).mode(0o644),
        )?;
        serde_json::to_writer_pretty(&mut file, &self.table)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        folder.rename(&temporary, &folder, FILE)?;
        rustix::fs::fsync(folder.open(".")?)?;
        self.saved = self.table.clone();
        Ok(())
    }

    /// Gives every account that `now` has and `base` has not its id on this host.
    ///
    /// Returns which ids change, and sentences about what does not fit together. Fails when no id is left.
    pub(crate) fn assign(&mut self, base: &Accounts, now: &Accounts) -> Result<(Mapping, Vec<String>)> {
        let base = Table::of(base);
        let now = Table::of(now);
        let host = Table::of(&self.host);
        let mut warnings = self.strangers(&base);
        let mut mapping = Mapping::default();
        let names: BTreeSet<&String> = now.users.keys().chain(now.groups.keys()).collect();
        for name in names {
            // A user's group comes second and takes the user's number where it can: that is what people expect.
            for kind in [Kind::User, Kind::Group] {
                let Some(taken) = now.of_kind(kind).get(name) else {
                    continue;
                };
                if base.of_kind(kind).contains_key(name) || !DYNAMIC.contains(taken) {
                    continue;
                }
                let known = self.known(kind, name, &base, &host, &mut warnings);
                let twin = self.table.of_kind(kind.other()).get(name).copied();
                let is_free = |id: &u32| {
                    ![&base, &host, &self.table]
                        .iter()
                        .any(|table| table.uses(*id, name))
                };
                let id = known
                    .or(twin.filter(is_free))
                    .or_else(|| GIVEN.into_iter().find(is_free))
                    .ok_or_else(|| no_id_left(name))?;
                self.table.of_kind_mut(kind).insert(name.clone(), id);
                mapping.of_kind_mut(kind).entry(*taken).or_insert(id);
            }
        }
        mapping.users.retain(|from, to| from != to);
        mapping.groups.retain(|from, to| from != to);
        Ok((mapping, warnings))
    }

    /// Returns the id that the name has on this host: in its `/etc`, else in the table.
    fn known(
        &self,
        kind: Kind,
        name: &str,
        base: &Table,
        host: &Table,
        warnings: &mut Vec<String>,
    ) -> Option<u32> {
        let on_host = host.of_kind(kind).get(name).copied();
        let given = self.table.of_kind(kind).get(name).copied();
        if let (Some(on_host), Some(given)) = (on_host, given) {
            if on_host != given {
                warnings.push(format!(
                    "The {kind} {name} has the id {on_host} in this host's /etc and had {given} when it was layered before: files of {given} in /var no longer belong to it."
                ));
            }
        }
        let id = on_host.or(given)?;
        let Some(stranger) = base.name_of(kind, id) else {
            return Some(id);
        };
        // While nothing on the host has the id as far as its accounts tell, the name can have another.
        on_host?;
        warnings.push(format!(
            "The id {id} is this host's for the {kind} {name}, and the image's for {stranger}: each can use the files of the other."
        ));
        Some(id)
    }

    /// Tells of accounts that this host gave an id and that the image brings with another one.
    fn strangers(&self, base: &Table) -> Vec<String> {
        let mut warnings = Vec::new();
        for kind in [Kind::User, Kind::Group] {
            for (name, given) in self.table.of_kind(kind) {
                if let Some(id) = base.of_kind(kind).get(name).filter(|id| *id != given) {
                    warnings.push(format!(
                        "The image now brings the {kind} {name} with the id {id}; on this host it was layered with {given}, and files in /var that belong to it may have to be given to it again."
                    ));
                }
            }
        }
        warnings
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    User,
    Group,
}

impl Kind {
    fn other(self) -> Self {
        match self {
            Self::User => Self::Group,
            Self::Group => Self::User,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Group => "group",
        })
    }
}

impl Table {
    fn of(accounts: &Accounts) -> Self {
        let users = accounts.users.iter().map(|user| (user.name.clone(), user.uid));
        let groups = accounts
            .groups
            .iter()
            .map(|group| (group.name.clone(), group.gid));
        Self {
            format: FORMAT,
            users: users.collect(),
            groups: groups.collect(),
        }
    }

    fn of_kind(&self, kind: Kind) -> &BTreeMap<String, u32> {
        match kind {
            Kind::User => &self.users,
            Kind::Group => &self.groups,
        }
    }

    fn of_kind_mut(&mut self, kind: Kind) -> &mut BTreeMap<String, u32> {
        match kind {
            Kind::User => &mut self.users,
            Kind::Group => &mut self.groups,
        }
    }

    fn name_of(&self, kind: Kind, id: u32) -> Option<&str> {
        let mut names = self.of_kind(kind).iter();
        names
            .find(|(_, known)| **known == id)
            .map(|(name, _)| name.as_str())
    }

    /// Returns whether another name than `name` has the id, as a user or as a group.
    fn uses(&self, id: u32, name: &str) -> bool {
        let mut all = self.users.iter().chain(&self.groups);
        all.any(|(other, known)| *known == id && other != name)
    }
}

fn parse(bytes: &[u8], path: &Path) -> Result<Table> {
    let refuse = |reason: String| {
        let message = format!("{} cannot be used: {reason}", path.display());
        Fault::new(fault::Kind::Invalid, message).hint(
            "restore it from a backup; without it, packages that are layered anew do not own their files in /var",
        )
    };
    let table: Table = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
    if table.format != FORMAT {
        return Err(refuse(format!(
            "its format is {} and this program knows {FORMAT}",
            table.format
        ))
        .into());
    }
    Ok(table)
}

fn no_id_left(name: &str) -> anyhow::Error {
    let message = format!(
        "No id from {} to {} is left for the account {name}",
        GIVEN.start(),
        GIVEN.end()
    );
    Fault::new(fault::Kind::Unsupported, message)
        .hint("create the account on the host with `useradd --system`; layering then uses its id")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::sysusers::{Group, User};

    fn accounts(users: &[(&str, u32, u32)], groups: &[(&str, u32)]) -> Accounts {
        let user = |(name, uid, gid): &(&str, u32, u32)| User {
            name: (*name).to_owned(),
            uid: *uid,
            gid: *gid,
            comment: String::new(),
            home: String::new(),
            shell: String::new(),
        };
        let group = |(name, gid): &(&str, u32)| Group {
            name: (*name).to_owned(),
            gid: *gid,
            members: Vec::new(),
        };
        Accounts {
            users: users.iter().map(user).collect(),
            groups: groups.iter().map(group).collect(),
        }
    }

    fn ids(folder: &Path) -> Ids {
        Ids::load(&Places::of(folder, "default"), None).unwrap()
    }

    fn maps(pairs: &[(u32, u32)]) -> BTreeMap<u32, u32> {
        pairs.iter().copied().collect()
    }

    #[test]
    fn a_name_keeps_its_id_whatever_comes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let base = accounts(
            &[("root", 0, 0), ("taken", 501, 501)],
            &[("root", 0), ("other", 502)],
        );
        let mut first = ids(folder.path());
        let now = accounts(
            &[("db", 100, 102), ("root", 0, 0)],
            &[("db", 102), ("certs", 103)],
        );
        let (mapping, warnings) = first.assign(&base, &now).unwrap();
        // `certs` comes first in the alphabet; 501 and 502 are the image's.
        assert_eq!(mapping.groups, maps(&[(103, 500), (102, 503)]));
        assert_eq!(mapping.users, maps(&[(100, 503)]));
        assert!(warnings.is_empty(), "{warnings:?}");
        first.save().unwrap();
        let mut second = ids(folder.path());
        // Another package takes what the first had, and what comes outside the dynamic range stays.
        let now = accounts(
            &[("abc", 100, 100), ("db", 503, 101), ("virt", 64055, 101)],
            &[("db", 101)],
        );
        let (mapping, _) = second.assign(&base, &now).unwrap();
        assert_eq!(mapping.users, maps(&[(100, 504)]));
        assert_eq!(mapping.groups, maps(&[(101, 503)]));
    }

    #[test]
    fn the_host_wins_and_what_does_not_fit_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = ids(folder.path());
        table.host = accounts(&[("db", 105, 106)], &[("db", 106)]);
        let base = accounts(&[("bus", 105, 107)], &[]);
        let now = accounts(&[("db", 100, 100)], &[("db", 100)]);
        let (mapping, warnings) = table.assign(&base, &now).unwrap();
        assert_eq!((mapping.user(100), mapping.group(100)), (105, 106));
        assert!(
            warnings[0].contains("user db") && warnings[0].contains("bus"),
            "{warnings:?}"
        );
        // The image brings the account itself.
        let base = accounts(&[("db", 120, 106)], &[("db", 106)]);
        let (mapping, warnings) = table.assign(&base, &base.clone()).unwrap();
        assert!(mapping.is_empty() && warnings.len() == 1);
        assert!(warnings[0].contains("120") && warnings[0].contains("105"));
    }

    #[test]
    fn ids_change_places_in_one_pass() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = ids(folder.path());
        table.host = accounts(&[("a", 101, 101), ("b", 100, 100)], &[]);
        let now = accounts(&[("a", 100, 100), ("b", 101, 101)], &[]);
        let (mapping, _) = table.assign(&Accounts::default(), &now).unwrap();
        assert_eq!(mapping.users, maps(&[(100, 101), (101, 100)]));
    }

    #[test]
    fn a_table_that_cannot_be_read_is_no_empty_table() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(folder.path(), "default");
        std::fs::create_dir_all(places.state()).unwrap();
        for text in ["", "{\"format\":2,\"users\":{},\"groups\":{}}"] {
            std::fs::write(places.state().join(FILE), text).unwrap();
            let error = Ids::load(&places, None).unwrap_err();
            assert!(Fault::find(&error).is_some(), "{error:#}");
        }
    }

    #[test]
    fn ids_run_out_with_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = ids(folder.path());
        let names: Vec<String> = (0..=400).map(|number| format!("user{number}")).collect();
        let users: Vec<_> = names.iter().map(|name| (name.as_str(), 100, 100)).collect();
        let error = table
            .assign(&Accounts::default(), &accounts(&users, &[]))
            .unwrap_err();
        assert!(error.to_string().contains("No id from 500 to 899"), "{error:#}");
    }
}
