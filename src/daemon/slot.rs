//! The one place for a transaction: who has it, who may share it, and who has to wait.

use crate::daemon::socket::SocketFile;
use crate::daemon::transaction::{Phase, Transaction};
use crate::fault::{Fault, Kind};
use crate::ops::request::Request;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The place; what is over does not hold it.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<Arc<Transaction>>>);

/// What came of asking for the place.
pub(super) enum Taken {
    /// The transaction is new, with its socket.
    New(Arc<Transaction>, SocketFile),
    /// The same request was made before.
    Joined(Arc<Transaction>),
}

impl Slot {
    /// Returns the transaction that has the place.
    pub(super) fn current(&self) -> Option<Arc<Transaction>> {
        self.lock()
            .clone()
            .filter(|transaction| transaction.phase() != Phase::Finished)
    }

    /// Takes the place for a new transaction, or finds one for the same request.
    ///
    /// Files make every request one of its own. Fails with who runs what while another transaction has the place.
    pub(super) fn take(
        &self,
        request: &Request,
        has_files: bool,
        make: impl FnOnce() -> anyhow::Result<(Transaction, SocketFile)>,
    ) -> anyhow::Result<Taken> {
        let mut place = self.lock();
        if let Some(other) = place.as_ref().filter(|other| other.phase() != Phase::Finished) {
            let is_same = other.request == *request && !has_files && other.files.is_empty();
            if is_same && other.phase() != Phase::Cancelling {
                return Ok(Taken::Joined(Arc::clone(other)));
            }
            return Err(busy(other).into());
        }
        let (transaction, socket) = make()?;
        let transaction = Arc::new(transaction);
        *place = Some(Arc::clone(&transaction));
        Ok(Taken::New(transaction, socket))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Transaction>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy(other: &Transaction) -> Fault {
    let who = &other.initiator;
    let user = match &who.user {
        Some(name) => format!("{name} ({who})"),
        None => who.to_string(),
    };
    let doing = match other.phase() {
        Phase::Cancelling => "is being cancelled",
        _ => "runs",
    };
    Fault::new(
        Kind::Busy,
        format!("The transaction `{}` of {user} {doing}", who.title),
    )
    .hint("wait for it, or cancel it with `apt-ostree cancel`")
}
