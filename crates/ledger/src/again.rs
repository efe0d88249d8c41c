//! What the writer does once its connection to a server is lost: it says so to everybody at once, connects again, and
//! finds out what became of a commit that nobody answered.
//!
//! It never writes before it has the lock again and its claim still is the newest; else the ledger stops, as it does when
//! the server has lost what it had committed.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::fault::unavailable;
use crate::flusher::Batch;
use crate::open::{Home, heads};
use crate::store::postgres::{Again, reopen_writer};
use crate::store::{Db, StoreError};
use crate::types::Refused;
use crate::writer::{Message, Work, Writer};

/// Shortest time between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest that callers whose commit is in doubt wait for an answer.
const DOUBT: Duration = Duration::from_secs(60);

impl Writer {
    /// Whether verbs can be run; connects again if the connection is lost and it is time to.
    pub(crate) fn ready(&mut self, work: &mut Work) -> Result<(), Refused> {
        if self.progress.failed() {
            return Err(self.progress.lost());
        }
        if !self.db.is_lost() {
            return Ok(());
        }
        if self.again.is_some_and(|again| Instant::now() < again) {
            return Err(away("the connection to Postgres is lost"));
        }
        // In the open transaction nothing can be run any more; its end tells its callers.
        if !work.run.is_empty() {
            return Err(away("the connection to Postgres is lost"));
        }
        self.connect(work)?;
        if self.progress.failed() { Err(self.progress.lost()) } else { Ok(()) }
    }

    /// Connect again. Returns how many batches were committed under the claim.
    fn connect(&mut self, work: &mut Work) -> Result<i64, Refused> {
        self.again = Some(Instant::now() + PAUSE);
        let (Home::Server(server), Db::Postgres(session)) = (&self.home, &self.db) else { return Err(self.progress.lost()) };
        let Some(claim) = session.claim() else { return Err(self.progress.lost()) };
        let found = match reopen_writer(server, &claim).and_then(|found| match found {
            Again::Mine(db, batch) => heads(&db).map(|heads| (Again::Mine(db, batch), heads)),
            taken @ Again::Taken(_) => Ok((taken, Vec::new())),
        }) {
            Ok(found) => found,
            Err(fault) => {
                let refused = Refused::from(fault);
                tracing::warn!(error = %refused, "the ledger has no connection to Postgres");
                return Err(refused);
            }
        };
        work.cache.clear();
        match found {
            (Again::Mine(_, batch), _) if batch < claim.batch => {
                self.progress.fail("Postgres has lost what it had committed, as a replica that was behind would");
                tracing::error!(committed = claim.batch, found = batch, "Postgres has lost committed batches of the ledger");
                Err(self.progress.lost())
            }
            (Again::Mine(db, batch), heads) => {
                self.db = *db;
                tracing::info!("the ledger is connected to Postgres again");
                let number = self.progress.next();
                self.flush(Batch { number, jobs: Vec::new(), heads });
                Ok(batch)
            }
            (Again::Taken(batch), _) => {
                self.progress.fail("another core has opened the ledger");
                tracing::error!("another core has opened the ledger");
                batch.ok_or_else(|| self.progress.lost())
            }
        }
    }

    /// The commit of the batch was not answered: find out whether it was done. Those of its callers who can be told are
    /// left to be answered, the others are told that it is in doubt.
    pub(crate) fn resolve(&mut self, work: &mut Work, queue: &mut mpsc::Receiver<Message>, what: &str) {
        let before = match &self.db {
            Db::Postgres(session) => session.claim().map(|claim| claim.batch),
            Db::Sqlite(_) => None,
        };
        tracing::warn!(error = what, verbs = work.run.len(), "the ledger looks whether a batch was committed");
        let until = Instant::now() + DOUBT;
        let found = loop {
            let wait = self.again.map_or(Duration::ZERO, |again| again.saturating_duration_since(Instant::now()));
            if wait.is_zero() {
                match self.connect(work) {
                    Ok(batch) => break Some(batch),
                    Err(_) if self.progress.failed() || work.is_closing() || Instant::now() > until => break None,
                    Err(_) => {}
                }
            } else {
                self.deny(work, queue, wait);
            }
        };
        let refused = match (found, before) {
            (Some(found), Some(before)) if found > before => return,
            (Some(_), Some(_)) => unavailable(&StoreError::Lost(format!("the batch was not committed: {what}"))),
            _ => away(
                "the connection to Postgres was lost in a commit, and whether it was done is not known; asked again, the same is answered as it was done",
            ),
        };
        self.undo(work, &refused);
    }

    /// While the server is away nobody waits for it: what is asked within a time is refused.
    fn deny(&self, work: &mut Work, queue: &mut mpsc::Receiver<Message>, within: Duration) {
        let Home::Server(server) = &self.home else { return };
        // Those that had come before the commit are waiting already.
        if work.waiting.is_empty()
            && let Some(message) = server.within(within, queue.recv())
        {
            work.take(message);
        }
        for job in work.waiting.drain(..) {
            job.answer(Err(&away("the connection to Postgres is lost")));
        }
    }
}

fn away(what: &str) -> Refused {
    Refused::LedgerUnavailable { what: what.to_owned() }
}
