//! Carrying a request out in this process.

use crate::deployment::driver::Driver;
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::host::{environment, mounts};
use crate::ops::Outcome;
use crate::ops::request::Request;
use crate::ops::request::recorded::recorded;
use crate::report::Report;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// The one verb that works on a sysroot which libostree refuses to load.
const FSCK: &str = "fsck";

/// Who asked for a request, and in which words; for people and the journal, never for a decision about rights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Initiator {
    /// What was asked for, normally the words of the command line behind the program's name.
    pub title: String,
    /// The user's id.
    pub uid: u32,
    /// The user's name, where it is known.
    pub user: Option<String>,
    /// The client as it named itself, for example `cli`.
    pub client: Option<String>,
    /// The client's unique name on the bus; none for work in the client's own process.
    pub bus_name: Option<String>,
    /// The systemd unit the client runs in, where it is known.
    pub unit: Option<String>,
}

impl Initiator {
    /// Returns the user of this process, with the words of a command line.
    pub fn of_this_process(title: impl Into<String>) -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self {
            title: title.into(),
            uid,
            user: environment::user_name(uid),
            client: Some("cli".to_owned()),
            unit: environment::unit_of(std::process::id()),
            ..Self::default()
        }
    }
}

impl fmt::Display for Initiator {
    /// Writes rpm-ostree's form, for example `client(id:cli dbus:1.2 unit:session-3.scope uid:0)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("client(")?;
        let named = [
            ("id", &self.client),
            ("dbus", &self.bus_name),
            ("unit", &self.unit),
        ];
        for (key, value) in named {
            if let Some(value) = value {
                let value = value.trim_start_matches(':');
                write!(f, "{key}:{value} ")?;
            }
        }
        write!(f, "uid:{})", self.uid)
    }
}

/// Does what is asked for, in a mount namespace of its own.
///
/// The calling process is in that namespace afterwards as far as the calling thread and threads it starts later go.
/// The transaction journal keeps a record of it. Fails without root before anything is looked at on the booted host.
pub fn perform(
    request: &Request,
    initiator: &Initiator,
    sysroot: Option<&Path>,
    report: &dyn Report,
) -> Result<Outcome> {
    let host = open(request.verb(), sysroot)?;
    if request.reboots() && host.booted().is_none() {
        // It would hit the wrong machine.
        return Err(Fault::new(
            Kind::Usage,
            format!(
                "`--reboot` makes no sense for {}, which this machine did not boot from",
                host.path().display()
            ),
        )
        .into());
    }
    if request.minds_driver() {
        Driver::refuse_beside(&host)?;
    }
    if let Request::Deploy(options) = request {
        if let Some(name) = &options.register_driver {
            let registered = register(name, initiator, &host)?;
            if options.revision.is_empty() {
                return Ok(registered);
            }
        }
    }
    recorded(request.verb(), initiator, report, |journal, report| {
        request.run(host.journalled(journal), report)
    })
}

/// Registers the caller as what drives updates; only a systemd unit can be told to be active.
fn register(name: &str, initiator: &Initiator, host: &Host) -> Result<Outcome> {
    environment::require_root("deploy")?;
    let unit = initiator.unit.clone().ok_or_else(|| {
        Fault::new(
            Kind::Unsupported,
            format!("{name} cannot be registered as update driver: the caller runs in no systemd unit"),
        )
        .hint("let the driver's own service do it")
    })?;
    let driver = Driver {
        name: name.to_owned(),
        unit,
    };
    Ok(if driver.register(host)? {
        Outcome::Changed(format!(
            "Registered as update driver: {} ({})",
            driver.name, driver.unit
        ))
    } else {
        Outcome::Unchanged(format!("{} is registered already.", driver.name))
    })
}

/// Opens a sysroot to be changed, from a mount namespace of its own in which it is writable.
///
/// Fails without root on the booted host. Elsewhere taking the lock tells what is missing.
pub fn open(verb: &str, sysroot: Option<&Path>) -> Result<Host> {
    let is_booted = Path::new("/run/ostree-booted").exists();
    if sysroot.is_none() && !is_booted {
        // The build of an image often has no right to a mount namespace; opening fails with what to do instead.
        let typed = verb
            .replacen("override-", "override ", 1)
            .replacen("image-", "image ", 1);
        return Host::open(None, &typed, false);
    }
    if rustix::process::geteuid().is_root() {
        mounts::enter_private()?;
    } else if sysroot.is_none() {
        environment::require_root(verb)?;
    }
    if verb == FSCK {
        return Host::open_unloaded(sysroot, verb, true);
    }
    Host::open(sysroot, verb, true)
}
