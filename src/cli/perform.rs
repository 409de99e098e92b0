//! Where a change is made: by the service on a host that runs from OSTree, in this process everywhere else.
//!
//! This process also does the work for root when the service cannot be reached, and says so: a broken bus must not
//! keep a machine from being repaired. Who fails at a right, or because something else runs, is not tried again here.

use crate::cli::{Context, Global};
use crate::daemon::proxy::{Active, Service, Transaction};
use crate::fault::{Fault, Kind};
use crate::host::interrupt::Interrupt;
use crate::host::password_agent::PasswordAgent;
use crate::ops::Outcome;
use crate::ops::request::{self, Initiator, Request};
use crate::report::Report;
use anyhow::Result;
use clap::ValueEnum;
use std::path::Path;

/// Whether the service does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Use {
    /// On the booted host, unless root asks and it cannot be reached
    Auto,
    /// In any case
    Always,
    /// Never; this process does it, which needs root
    Never,
}

/// What this client calls itself.
const CLIENT: &str = "cli";

impl Context<'_> {
    /// Does what is asked for, or lets the service do it.
    pub(super) fn perform(&self, request: &Request) -> Result<Outcome> {
        if !self.global.uses_service() {
            return self.perform_here(request);
        }
        match connect(self.global) {
            Ok(service) => {
                let _agent = PasswordAgent::for_this_terminal()?;
                self.served.set(true);
                follow(service.begin(request, &self.title)?, self.report)
            }
            Err(error) if self.global.service == Use::Auto && rustix::process::geteuid().is_root() => {
                self.report.note(&format!(
                    "The service cannot be reached, so this process does the work ({error:#})."
                ));
                self.perform_here(request)
            }
            Err(error) => Err(unreachable(&error).into()),
        }
    }

    fn perform_here(&self, request: &Request) -> Result<Outcome> {
        let initiator = Initiator::of_this_process(self.title.clone());
        request::perform(request, &initiator, self.global.sysroot.as_deref(), self.report)
    }
}

impl Global {
    /// Returns whether changes are the service's work.
    fn uses_service(&self) -> bool {
        match self.service {
            Use::Always => true,
            Use::Never => false,
            Use::Auto => self.sysroot.is_none() && Path::new("/run/ostree-booted").exists(),
        }
    }
}

/// Reaches the service for a verb that is about the service itself.
pub(super) fn require_service(global: &Global) -> Result<Service> {
    connect(global).map_err(|error| unreachable(&error).into())
}

/// Returns what the service does right now; nothing where no service runs, and where it does not tell.
pub(super) fn active(global: &Global) -> Option<Active> {
    if !global.uses_service() {
        return None;
    }
    let active = Service::running().and_then(|service| service.map_or(Ok(None), |service| service.active()));
    active.unwrap_or_else(|error| {
        tracing::warn!("the service does not tell what it does: {error:#}");
        None
    })
}

/// Reaches the service, and checks that it works on the sysroot that was named.
fn connect(global: &Global) -> Result<Service> {
    let service = Service::connect()?;
    service.register(CLIENT)?;
    if let Some(wanted) = &global.sysroot {
        let served = service.path()?;
        if served.canonicalize().ok() != wanted.canonicalize().ok() {
            return Err(Fault::new(
                Kind::Usage,
                format!(
                    "The service works on {}, not on {}",
                    served.display(),
                    wanted.display()
                ),
            )
            .hint("leave `--service always` out")
            .into());
        }
    }
    Ok(service)
}

fn unreachable(error: &anyhow::Error) -> Fault {
    match Fault::find(error) {
        Some(fault) => fault.clone(),
        None => Fault::new(
            Kind::Unreachable,
            format!("The service org.aptostree.dev cannot be reached: {error:#}"),
        )
        .hint("see `systemctl status apt-ostreed`; root may do without it: `sudo apt-ostree --service never ...`"),
    }
}

/// Watches a transaction to its end; SIGINT and SIGTERM cancel it, a second one leaves it alone.
fn follow(transaction: Transaction, report: &dyn Report) -> Result<Outcome> {
    let canceller = transaction.canceller();
    let interrupt = Interrupt::stopping(move || {
        if let Err(error) = canceller.cancel() {
            tracing::warn!("the transaction cannot be cancelled: {error:#}");
        }
    })?;
    let outcome = transaction.run(report);
    drop(interrupt);
    outcome
}
