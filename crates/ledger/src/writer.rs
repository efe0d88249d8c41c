//! The one thread that writes, and its group commit.
//!
//! It runs what waits in the queue (up to a bound), each verb in a savepoint of one transaction, commits once, and only
//! then answers. A verb that is refused undoes only itself. If the commit fails, or SQLite ends
//! the transaction by itself (a full disk), every verb of the batch is answered `LedgerUnavailable` and none is
//! applied. (A disk that loses only the flush of a commit may still bring that batch back when the process dies before
//! the next commit: a start that nobody runs, which ends as an unknown outcome.) A verb whose caller went away runs all
//! the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::chain::{Cache, Tx, to_micros};
use crate::clock::Clock;
use crate::fault::{Outcome, unavailable};
use crate::lock::Lock;
use crate::types::Refused;

/// What is sent to the writer.
pub(crate) enum Message {
    /// Run a verb.
    Run(Box<dyn Job>),
    /// Finish what was sent before, close the database, release the lock.
    Close(oneshot::Sender<()>),
}

/// A verb that waits for the writer and then for the commit.
pub(crate) trait Job: Send {
    /// Run it; false when what it wrote is to be undone.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Answer the caller, with the verb's own answer or why the commit failed.
    fn answer(self: Box<Self>, commit: Result<(), &Refused>);
}

/// A closure as a job.
pub(crate) struct Call<T, F> {
    work: Option<F>,
    answer: Option<Result<T, Refused>>,
    reply: oneshot::Sender<Result<T, Refused>>,
}

impl<T, F> Call<T, F>
where
    T: Send + 'static,
    F: FnOnce(&mut Tx<'_>) -> Outcome<T> + Send + 'static,
{
    /// The job, and where its answer will be.
    pub(crate) fn queued(work: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T, Refused>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { work: Some(work), answer: None, reply }), answer)
    }
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> Outcome<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        self.answer = self.work.take().map(|work| work(tx).map_err(Refused::from));
        matches!(self.answer, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, commit: Result<(), &Refused>) {
        let answer = match (commit, self.answer) {
            (Err(refused), _) => Err(refused.clone()),
            (Ok(()), Some(answer)) => answer,
            (Ok(()), None) => Err(Refused::LedgerUnavailable { what: "the verb panicked".to_owned() }),
        };
        // A caller that went away needs no answer.
        let _ = self.reply.send(answer);
    }
}

/// The writer's own state.
pub(crate) struct Writer {
    pub(crate) conn: Connection,
    pub(crate) lock: Lock,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) max_batch: usize,
}

impl Writer {
    /// Serve until closed, or until the last handle is gone.
    pub(crate) fn run(self, mut queue: mpsc::Receiver<Message>) {
        let mut cache = Cache::default();
        let mut closing = None;
        while closing.is_none() {
            let mut jobs = match queue.blocking_recv() {
                Some(Message::Run(job)) => vec![job],
                Some(Message::Close(done)) => {
                    closing = Some(done);
                    break;
                }
                None => break,
            };
            // Asked again after each verb: callers that were just answered come back while others run.
            let more = || match queue.try_recv().ok()? {
                Message::Run(job) if closing.is_none() => Some(job),
                Message::Run(_) => None,
                Message::Close(done) => {
                    closing = Some(done);
                    None
                }
            };
            let commit = self.batch(&mut jobs, more, &mut cache);
            if let Err(refused) = &commit {
                tracing::error!(error = %refused, verbs = jobs.len(), "ledger batch not committed");
            }
            for job in jobs {
                job.answer(commit.as_ref().copied());
            }
        }
        queue.close();
        if let Err(error) = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "ledger closed without a checkpoint; the next open makes up for it");
        }
        drop(self.conn);
        drop(self.lock);
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    fn batch(&self, jobs: &mut Vec<Box<dyn Job>>, more: impl FnMut() -> Option<Box<dyn Job>>, cache: &mut Cache) -> Result<(), Refused> {
        let done = self.transaction(jobs, more, cache);
        if done.is_err() {
            cache.clear();
            if !self.conn.is_autocommit()
                && let Err(error) = self.conn.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "ledger rollback failed");
            }
        }
        done.map_err(|error| unavailable(&error))
    }

    fn transaction(
        &self,
        jobs: &mut Vec<Box<dyn Job>>,
        mut more: impl FnMut() -> Option<Box<dyn Job>>,
        cache: &mut Cache,
    ) -> rusqlite::Result<()> {
        let exec = |sql| self.conn.prepare_cached(sql)?.execute([]).map(drop);
        exec("BEGIN IMMEDIATE")?;
        let mut done = 0;
        while let Some(job) = jobs.get_mut(done) {
            exec("SAVEPOINT verb")?;
            let before = self.conn.total_changes();
            let now = to_micros(self.clock.now());
            let mut tx = Tx { conn: &self.conn, cache, now };
            let keep = catch_unwind(AssertUnwindSafe(|| job.run(&mut tx))).unwrap_or(false);
            if self.conn.is_autocommit() {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
                    Some("the store ended the transaction, it may be full".to_owned()),
                ));
            }
            if !keep {
                exec("ROLLBACK TO verb")?;
                if self.conn.total_changes() != before {
                    cache.clear();
                }
            }
            exec("RELEASE verb")?;
            done += 1;
            if done < self.max_batch {
                jobs.extend(more());
            }
        }
        exec("COMMIT")
    }
}
