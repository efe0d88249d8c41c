//! The one thread that writes, and its group commit.
//!
//! It runs what waits in the queue (up to a bound), each verb in a savepoint of one transaction, commits once, and hands
//! the batch to the flusher, which answers once it is on disk. While the flusher is at work the next batch is run. A verb
//! that is refused undoes only itself. If the commit fails, or SQLite ends the transaction by itself (a full disk), every
//! verb of the batch is answered `LedgerUnavailable` and none is applied. (A disk that fails to flush a commit may still
//! bring that batch back at the next opening: a start that nobody runs, which ends as an unknown outcome.) A verb whose
//! caller went away runs all the same.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::cache::Cache;
use crate::chain::{Tx, to_micros};
use crate::clock::Clock;
use crate::fault::{Fault, Outcome};
use crate::flusher::{Batch, Progress};
use crate::open::Home;
use crate::store::lock::Lock;
use crate::store::{Db, StoreError};
use crate::types::Refused;

/// Longest that a commit waits for callers to come back, a quarter of a flush if that is shorter.
const LONGEST_WAIT: Duration = Duration::from_micros(300);

/// What is sent to the writer.
pub(crate) enum Message {
    /// Run a verb.
    Run(Box<dyn Job>),
    /// A batch was flushed: so many were answered, and so long it took.
    Flushed(usize, Duration),
    /// Finish what was sent before, close the database, release the lock.
    Close(oneshot::Sender<()>),
}

/// A verb that waits for the writer and then for the commit.
pub(crate) trait Job: Send {
    /// Run it; false when what it wrote is to be undone.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Whether the caller is answered once it is committed, without the flush.
    fn is_relaxed(&self) -> bool;
    /// Answer the caller, with the verb's own answer or why the commit failed.
    fn answer(self: Box<Self>, commit: Result<(), &Refused>);
}

/// A closure as a job.
pub(crate) struct Call<T, F> {
    work: Option<F>,
    answer: Option<Result<T, Refused>>,
    relaxed: bool,
    reply: oneshot::Sender<Result<T, Refused>>,
}

impl<T, F> Call<T, F>
where
    T: Send + 'static,
    F: FnOnce(&mut Tx<'_>) -> Outcome<T> + Send + 'static,
{
    /// The job, and where its answer will be.
    pub(crate) fn queued(work: F, relaxed: bool) -> (Box<dyn Job>, oneshot::Receiver<Result<T, Refused>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { work: Some(work), answer: None, relaxed, reply }), answer)
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

    fn is_relaxed(&self) -> bool {
        self.relaxed
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
    pub(crate) db: Db,
    pub(crate) lock: Option<Lock>,
    /// Where to connect again.
    pub(crate) home: Home,
    /// A connection that was lost is not tried again before this.
    pub(crate) again: Option<Instant>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) max_batch: usize,
    pub(crate) progress: Arc<Progress>,
    pub(crate) flusher: Sender<Batch>,
    pub(crate) flushing: JoinHandle<()>,
}

/// The writer's work in hand.
#[derive(Default)]
pub(crate) struct Work {
    /// Sent and not yet run.
    pub(crate) waiting: VecDeque<Box<dyn Job>>,
    /// Run in the open transaction.
    pub(crate) run: Vec<Box<dyn Job>>,
    /// What verbs read before.
    pub(crate) cache: Cache,
    /// Whether the flusher has a batch: a commit now would wait for it anyway, so more verbs may join.
    flushing: bool,
    /// How many callers the last flush answered, and how many verbs have come since.
    answered: usize,
    come: usize,
    /// Until when those callers are waited for.
    until: Option<Instant>,
    /// Nobody can send any more.
    ended: bool,
    /// Who asked to close.
    closing: Option<oneshot::Sender<()>>,
}

impl Work {
    pub(crate) fn take(&mut self, message: Option<Message>) {
        match message {
            // What comes after the word to close is not run: its caller is told that the ledger is closed.
            Some(Message::Run(job)) if self.closing.is_none() => {
                self.come += 1;
                self.waiting.push_back(job);
            }
            Some(Message::Run(_)) => {}
            Some(Message::Flushed(answered, took)) => {
                self.flushing = false;
                (self.answered, self.come) = (answered, 0);
                self.until = Some(Instant::now() + (took / 4).min(LONGEST_WAIT));
            }
            Some(Message::Close(done)) => {
                self.closing = Some(done);
                self.ended = true;
            }
            None => self.ended = true,
        }
    }

    /// Whether the ledger is to be closed, or nobody is left to ask anything of it.
    pub(crate) fn is_closing(&self) -> bool {
        self.ended
    }

    /// Whether callers that were just answered may come back in a moment: who misses a flush waits for two.
    fn expects_more(&self) -> bool {
        !self.ended && self.come < self.answered && self.until.is_some_and(|until| Instant::now() < until)
    }
}

impl Writer {
    /// Serve until closed, or until the last handle is gone.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut work = Work::default();
        loop {
            // No more than a batch is taken ahead, so that callers beyond the queue's bound wait for room.
            while !work.ended
                && work.waiting.len() < self.max_batch
                && let Ok(message) = queue.try_recv()
            {
                work.take(Some(message));
            }
            let full = work.run.len() >= self.max_batch;
            if !full && !work.waiting.is_empty() {
                self.next(&mut work);
            } else if !work.run.is_empty() && !work.flushing {
                if !full && work.expects_more() {
                    std::thread::yield_now();
                } else {
                    self.commit(&mut work, &mut queue);
                }
            } else if work.ended && work.run.is_empty() {
                break;
            } else if work.ended {
                // Nobody sends any more, not even the flusher: the next commit queues behind its batch.
                work.flushing = false;
            } else {
                work.take(queue.blocking_recv());
            }
        }
        self.close(queue, work.closing);
    }

    fn close(self, mut queue: mpsc::Receiver<Message>, closing: Option<oneshot::Sender<()>>) {
        queue.close();
        // The flusher has its batches still; it ends once there can be no more.
        drop(self.flusher);
        drop(queue);
        if self.flushing.join().is_err() {
            tracing::error!("the ledger's flusher broke off");
        }
        self.db.close();
        drop(self.lock);
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    /// Run the next verb, in a transaction that is opened if there is none.
    fn next(&mut self, work: &mut Work) {
        let Some(mut job) = work.waiting.pop_front() else { return };
        if let Err(refused) = self.ready(work) {
            job.answer(Err(&refused));
            return;
        }
        let done = self.verb(job.as_mut(), work.run.is_empty(), &mut work.cache);
        work.run.push(job);
        if let Err(fault) = done {
            if matches!(fault, Fault::Store(StoreError::Taken)) {
                self.progress.fail("another core has opened the ledger");
            }
            self.undo(work, &fault.into());
        }
    }

    fn verb(&self, job: &mut dyn Job, first: bool, cache: &mut Cache) -> Outcome<()> {
        if first {
            self.db.begin()?;
        }
        self.db.savepoint()?;
        cache.mark();
        let now = to_micros(self.clock.now());
        let mut tx = Tx { db: &self.db, cache, now };
        let keep = catch_unwind(AssertUnwindSafe(|| job.run(&mut tx))).unwrap_or(false);
        if let Some(error) = self.db.ended() {
            return Err(error.into());
        }
        if !keep {
            self.db.undo()?;
            cache.back();
        }
        self.db.release()
    }

    fn commit(&mut self, work: &mut Work, queue: &mut mpsc::Receiver<Message>) {
        let number = self.progress.next();
        let heads = match work.cache.flush(&self.db).and_then(|heads| self.db.commit().map(|()| heads)) {
            Ok(heads) => heads,
            Err(Fault::Store(StoreError::Doubt(what))) => {
                self.resolve(work, queue, &what);
                Vec::new()
            }
            Err(fault) => {
                self.undo(work, &fault.into());
                Vec::new()
            }
        };
        let (relaxed, jobs): (Vec<_>, Vec<_>) = std::mem::take(&mut work.run).into_iter().partition(|job| job.is_relaxed());
        for job in relaxed {
            job.answer(Ok(()));
        }
        work.flushing = true;
        self.flush(Batch { number, jobs, heads });
    }

    pub(crate) fn flush(&self, batch: Batch) {
        if let Err(unsent) = self.flusher.send(batch) {
            self.progress.fail("the flusher broke off");
            for job in unsent.0.jobs {
                job.answer(Err(&self.progress.lost()));
            }
        }
    }

    /// Nothing of the open transaction is applied.
    pub(crate) fn undo(&self, work: &mut Work, refused: &Refused) {
        work.cache.clear();
        if let Err(fault) = self.db.rollback() {
            tracing::error!(error = %Refused::from(fault), "ledger rollback failed");
        }
        tracing::error!(error = %refused, verbs = work.run.len(), "ledger batch not committed");
        for job in work.run.drain(..) {
            job.answer(Err(refused));
        }
    }
}
