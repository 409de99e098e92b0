//! The history told: what was published, the deployments that other programs made, and what was begun and came to nothing.

use super::boots::{self, Boot};
use super::{Entry, Facts};
use crate::deployment::journal::{Ending, Record, Records};
use crate::deployment::origin;
use crate::deployment::sysroot::Host;
use anyhow::Result;
use ostree_ext::ostree;
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

/// One thing that happened: a deployment that was made, or a transaction that made none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Account {
    /// When, in seconds since 1970; of a deployment that other programs made and that is gone, its first boot.
    pub at: u64,
    /// What came of it.
    pub state: State,
    /// The verb; none where another program did it, or nobody noted it.
    pub verb: Option<String>,
    /// The command line.
    pub title: Option<String>,
    /// Who asked, in words.
    pub initiator: Option<String>,
    /// The user id of who asked.
    pub uid: Option<u32>,
    /// The number of the transaction.
    pub transaction: Option<u64>,
    /// The deployment that was made.
    pub deployment: Option<String>,
    /// Its stateroot.
    pub stateroot: Option<String>,
    /// Whether it is still there.
    pub present: bool,
    /// The deployment it continues.
    pub from: Option<String>,
    /// What that one consists of, as far as it is known.
    pub before: Option<Facts>,
    /// What it consists of.
    pub after: Option<Facts>,
    /// How often it was booted.
    pub boots: u64,
    /// When first, in seconds since 1970.
    pub first_boot: Option<u64>,
    /// When last, in seconds since 1970.
    pub last_boot: Option<u64>,
    /// The kernel it ran last.
    pub kernel: Option<String>,
    /// What there is to say of a transaction that did not end well.
    pub text: Option<String>,
}

/// What came of a deployment or a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The machine runs from it.
    Booted,
    /// It waits for the next shutdown.
    Staged,
    /// It is the first boot entry, and not the one the machine runs from.
    BootsNext,
    /// It was booted, or could have been, and an older one was preferred after that.
    RolledBack,
    /// It was booted at some time.
    WasBooted,
    /// It was never booted, as far as anybody noted.
    NeverBooted,
    /// A transaction that was interrupted and made no deployment.
    Interrupted,
    /// A transaction that failed.
    Failed,
    /// A transaction that somebody stopped.
    Cancelled,
}

/// Returns what happened, the newest first, and a sentence for each part of it that cannot be read.
///
/// Needs neither root nor the lock; what failed or was interrupted is told to root alone, who may read the records.
pub fn account(host: &Host) -> Result<(Vec<Account>, Vec<String>)> {
    let (entries, mut problems) = super::read(host.path())?;
    let (boots, unreadable) = boots::read(host.path())?;
    problems.extend(unreadable);
    let deployments = host.deployments();
    let ids: Vec<String> = deployments.iter().map(origin::id).collect();
    let mut accounts: Vec<Account> = entries.into_iter().map(of_entry).collect();
    let known = |accounts: &[Account], id: &str| {
        accounts
            .iter()
            .any(|known| known.deployment.as_deref() == Some(id))
    };
    for (deployment, id) in deployments.iter().zip(&ids) {
        if !known(&accounts, id) {
            accounts.push(of_deployment(host, deployment, id));
        }
    }
    for (id, booted) in &boots {
        if !known(&accounts, id) {
            let first = booted.boots.first().map_or(0, |boot| boot.at);
            accounts.push(unknown(first, id, &booted.stateroot, booted.facts.clone()));
        }
    }
    // The newest first; the sort is stable, so that what happened in one second stays in its order.
    accounts.sort_by_key(|account| std::cmp::Reverse(account.at));
    for (id, booted) in &boots {
        assign(&mut accounts, id, booted.forgotten, &booted.boots);
    }
    judge(&mut accounts, &standing(host, &deployments, &ids));
    look_back(&mut accounts);
    if let Some(records) = Records::open(host.path())? {
        for record in records.read()? {
            match record {
                Ok(record) => add_transaction(&mut accounts, record),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
    }
    accounts.sort_by_key(|account| std::cmp::Reverse(account.at));
    Ok((accounts, problems))
}

fn of_entry(entry: Entry) -> Account {
    Account {
        verb: entry.verb,
        title: entry.title,
        initiator: entry.initiator,
        uid: entry.uid,
        transaction: entry.transaction,
        from: entry.from,
        ..unknown(entry.created, &entry.deployment, &entry.stateroot, entry.to)
    }
}

/// Returns what is known of a deployment that somebody else made, or that was made before there was a history.
fn of_deployment(host: &Host, deployment: &ostree::Deployment, id: &str) -> Account {
    let facts = Facts::of_deployment(host, deployment);
    unknown(made(host, deployment), id, &deployment.osname(), facts)
}

fn unknown(at: u64, deployment: &str, stateroot: &str, facts: Facts) -> Account {
    Account {
        at,
        state: State::NeverBooted,
        verb: None,
        title: None,
        initiator: None,
        uid: None,
        transaction: None,
        deployment: Some(deployment.to_owned()),
        stateroot: Some(stateroot.to_owned()),
        present: false,
        from: None,
        before: None,
        after: Some(facts),
        boots: 0,
        first_boot: None,
        last_boot: None,
        kernel: None,
        text: None,
    }
}

/// Returns when the directory of a deployment was made; 0 where that cannot be told.
fn made(host: &Host, deployment: &ostree::Deployment) -> u64 {
    let path = host
        .path()
        .join(host.sysroot().deployment_dirpath(deployment).as_str());
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return 0;
    };
    let born = metadata.created().ok();
    born.and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or_else(
            || u64::try_from(metadata.ctime()).unwrap_or(0),
            |since| since.as_secs(),
        )
}

/// Gives each boot to the youngest deployment of this id that was there then; accounts come newest first.
///
/// A clock that was wrong at boot must not lose one: what is older than all belongs to the oldest.
fn assign(accounts: &mut [Account], id: &str, forgotten: u64, boots: &[Boot]) {
    let places: Vec<usize> = (0..accounts.len())
        .filter(|place| accounts[*place].deployment.as_deref() == Some(id))
        .collect();
    let Some(oldest) = places.last() else { return };
    accounts[*oldest].boots += forgotten;
    for boot in boots {
        let there = places.iter().find(|place| accounts[**place].at <= boot.at);
        let account = &mut accounts[*there.unwrap_or(oldest)];
        account.boots += 1;
        account.first_boot = Some(account.first_boot.map_or(boot.at, |first| first.min(boot.at)));
        account.last_boot = Some(account.last_boot.map_or(boot.at, |last| last.max(boot.at)));
        account.kernel = Some(boot.kernel.clone());
    }
}

/// Where a deployment stands now.
#[derive(Clone, Copy, Debug)]
struct Standing {
    place: usize,
    booted: bool,
    staged: bool,
}

fn standing(host: &Host, deployments: &[ostree::Deployment], ids: &[String]) -> BTreeMap<String, Standing> {
    let booted = host.booted();
    let stand = |(place, deployment): (usize, &ostree::Deployment)| Standing {
        place,
        booted: booted.as_ref().is_some_and(|booted| booted.equal(deployment)),
        staged: deployment.is_staged(),
    };
    ids.iter()
        .cloned()
        .zip(deployments.iter().enumerate().map(stand))
        .collect()
}

/// Says what became of each deployment; accounts come newest first.
fn judge(accounts: &mut [Account], standing: &BTreeMap<String, Standing>) {
    let stands: Vec<Option<Standing>> = (0..accounts.len())
        .map(|place| {
            let id = accounts[place].deployment.as_deref()?;
            // Of several with one id only the youngest can be the one that is there.
            let is_youngest = accounts[..place]
                .iter()
                .all(|younger| younger.deployment.as_deref() != Some(id));
            standing.get(id).copied().filter(|_| is_youngest)
        })
        .collect();
    for place in 0..accounts.len() {
        let (account, stand) = (&accounts[place], stands[place]);
        let preferred = accounts.iter().zip(&stands).skip(place + 1).any(|(older, its)| {
            older.stateroot == account.stateroot
                && (matches!((stand, its), (Some(stand), Some(its)) if its.place < stand.place)
                    || (account.boots > 0 && older.last_boot > account.last_boot))
        });
        let state = match stand {
            Some(stand) if stand.booted => State::Booted,
            Some(stand) if stand.staged => State::Staged,
            Some(stand) if stand.place == 0 => State::BootsNext,
            _ if preferred => State::RolledBack,
            _ if account.boots > 0 => State::WasBooted,
            _ => State::NeverBooted,
        };
        accounts[place].state = state;
        accounts[place].present = stand.is_some();
    }
}

/// Says of each deployment what the one it continues consists of; accounts come newest first.
fn look_back(accounts: &mut [Account]) {
    for place in 0..accounts.len() {
        let before = accounts[place].from.as_ref().and_then(|from| {
            let mut older = accounts[place + 1..].iter();
            older.find(|older| older.deployment.as_ref() == Some(from))
        });
        accounts[place].before = before.and_then(|before| before.after.clone());
    }
}

/// Adds a transaction that did not end well, or says so of the deployment that it made all the same.
fn add_transaction(accounts: &mut Vec<Account>, record: Record) {
    let (ending, text) = match record.finished {
        Some(finished) => (finished.result, finished.text),
        None if record.begun.process.is_alive() => return,
        None => (
            Ending::Interrupted,
            "It was interrupted; the next command that changes something says what that means".to_owned(),
        ),
    };
    let state = match ending {
        Ending::Done | Ending::Unchanged => return,
        Ending::Failed => State::Failed,
        Ending::Cancelled => State::Cancelled,
        Ending::Interrupted => State::Interrupted,
    };
    let made = accounts.iter_mut().find(|account| {
        account.transaction == Some(record.number) && account.verb.as_ref() == Some(&record.begun.verb)
    });
    if let Some(made) = made {
        made.text = Some(text);
        return;
    }
    accounts.push(Account {
        at: record.begun.at,
        state,
        verb: Some(record.begun.verb),
        title: Some(record.begun.title),
        initiator: Some(record.begun.initiator),
        uid: Some(record.begun.uid),
        transaction: Some(record.number),
        deployment: None,
        stateroot: None,
        present: false,
        from: record.begun.deployments.first().cloned(),
        before: None,
        after: None,
        boots: 0,
        first_boot: None,
        last_boot: None,
        kernel: None,
        text: Some(text),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(at: u64, id: &str) -> Account {
        unknown(at, id, "debian", Facts::default())
    }

    fn boot(at: u64) -> Boot {
        Boot {
            id: at.to_string(),
            at,
            kernel: "6.12".to_owned(),
        }
    }

    fn stand(place: usize, booted: bool) -> Standing {
        Standing {
            place,
            booted,
            staged: false,
        }
    }

    #[test]
    fn boots_go_to_the_deployment_that_was_there_then() {
        let mut accounts = [made(300, "a"), made(200, "b"), made(100, "a")];
        assign(&mut accounts, "a", 2, &[boot(5), boot(150), boot(250), boot(310)]);
        assign(&mut accounts, "gone", 0, &[boot(5)]);
        let told = accounts.map(|account| (account.boots, account.first_boot, account.last_boot));
        assert_eq!(
            told,
            [
                (1, Some(310), Some(310)),
                (0, None, None),
                (5, Some(5), Some(250))
            ]
        );
    }

    #[test]
    fn an_older_one_that_was_preferred_makes_a_rollback() {
        let states = |boots: &[(&str, u64)], standing: &[(&str, Standing)]| {
            let mut accounts = [made(300, "c"), made(200, "b"), made(100, "a")];
            for (id, at) in boots {
                assign(&mut accounts, id, 0, &[boot(*at)]);
            }
            let standing = standing
                .iter()
                .map(|(id, stand)| ((*id).to_owned(), *stand))
                .collect();
            judge(&mut accounts, &standing);
            accounts.map(|account| account.state)
        };
        use State::{Booted, BootsNext, NeverBooted, RolledBack, WasBooted};
        for (boots, standing, expected) in [
            // c runs, b was skipped, a was booted.
            (
                &[("a", 110), ("c", 310)][..],
                &[("c", stand(0, true)), ("b", stand(1, false))][..],
                [Booted, NeverBooted, WasBooted],
            ),
            // The user chose b in the boot menu after c had run.
            (
                &[("b", 210), ("c", 310), ("b", 320)],
                &[("c", stand(0, false)), ("b", stand(1, true))],
                [BootsNext, Booted, NeverBooted],
            ),
            // The same after `rollback`.
            (
                &[("b", 210), ("c", 310), ("b", 320)],
                &[("b", stand(0, true)), ("c", stand(1, false))],
                [RolledBack, Booted, NeverBooted],
            ),
            // `rollback` before anything of it was booted.
            (
                &[],
                &[("b", stand(0, false)), ("c", stand(1, false))],
                [RolledBack, BootsNext, NeverBooted],
            ),
            // All are gone; b was left for a.
            (
                &[("a", 110), ("b", 210), ("a", 220), ("c", 310)],
                &[],
                [WasBooted, RolledBack, WasBooted],
            ),
        ] {
            assert_eq!(states(boots, standing), expected, "{boots:?} {standing:?}");
        }
    }
}
