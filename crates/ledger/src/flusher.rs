//! The thread that flushes the write-ahead log and then answers.
//!
//! The writer commits without a flush and goes on with the next batch while this thread has the log flushed to disk
//! (`fdatasync`), so that the disk and the processor work at the same time. A caller is answered, and a reader is
//! shown, only what has been flushed. After a flush that failed nobody can know what is on disk: nothing is answered
//! as done any more, and the writer stops.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use crate::heads::Heads;
use crate::types::Refused;
use crate::writer::{Job, Message};

/// Brings what was committed to disk.
pub(crate) trait Disk: Send {
    /// Returns once everything written before the call is on disk.
    fn flush(&self) -> std::io::Result<()>;
}

/// The database's write-ahead log.
pub(crate) struct Wal {
    file: File,
}

impl Wal {
    /// The log beside a database that is open; its name is made durable too.
    pub(crate) fn of(database: &Path) -> std::io::Result<Self> {
        let mut name = database.as_os_str().to_owned();
        name.push("-wal");
        let file = File::open(&name)?;
        if let Some(dir) = database.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(Self { file })
    }
}

/// A store that answers a commit once it is on disk.
pub(crate) struct Committed;

impl Disk for Committed {
    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Disk for Wal {
    fn flush(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
}

/// How far commits and flushes have come. Each commit has a number.
#[derive(Debug)]
pub(crate) struct Progress {
    committed: AtomicU64,
    flushed: watch::Sender<u64>,
    failed: AtomicBool,
    /// Why, in the words of whoever said so first.
    why: OnceLock<String>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { committed: AtomicU64::new(0), flushed: watch::Sender::new(0), failed: AtomicBool::new(false), why: OnceLock::new() }
    }
}

impl Progress {
    /// The number of the commit that is about to be made visible.
    pub(crate) fn next(&self) -> u64 {
        self.committed.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether the ledger has stopped: nothing may be answered as done any more.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Nothing is answered as done from now on; readers that wait are told.
    pub(crate) fn fail(&self, why: impl Into<String>) {
        self.why.get_or_init(|| why.into());
        self.failed.store(true, Ordering::Release);
        self.flushed.send_modify(|_| ());
    }

    /// What everybody is told after that.
    pub(crate) fn lost(&self) -> Refused {
        let why = self.why.get().map_or("it has stopped", String::as_str);
        Refused::LedgerUnavailable { what: format!("{why}; the ledger stops until it is opened again") }
    }

    /// Returns once all that could be seen when this was called is on disk.
    pub(crate) async fn settled(&self) -> Result<(), Refused> {
        let seen = self.committed.load(Ordering::Acquire);
        let mut flushed = self.flushed.subscribe();
        let done = flushed.wait_for(|flushed| *flushed >= seen || self.failed()).await.is_ok();
        if self.failed() || !done { Err(self.lost()) } else { Ok(()) }
    }
}

/// A batch that is committed, with those who wait for it to be on disk.
pub(crate) struct Batch {
    pub(crate) number: u64,
    pub(crate) jobs: Vec<Box<dyn Job>>,
    pub(crate) heads: Vec<(String, i64)>,
}

/// Flushes and answers until the writer is gone.
pub(crate) struct Flusher {
    pub(crate) disk: Box<dyn Disk>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) heads: Arc<Heads>,
    pub(crate) writer: mpsc::WeakSender<Message>,
}

impl Flusher {
    /// Serve the writer's batches.
    #[allow(clippy::needless_pass_by_value)] // the thread owns both
    pub(crate) fn run(self, batches: Receiver<Batch>) {
        while let Ok(batch) = batches.recv() {
            let (start, callers) = (Instant::now(), batch.jobs.len());
            self.flush(batch);
            // Tells a writer that waits; one that is gone needs no word.
            if let Some(writer) = self.writer.upgrade() {
                let _ = writer.blocking_send(Message::Flushed(callers, start.elapsed()));
            }
        }
    }

    fn flush(&self, batch: Batch) {
        let done = if self.progress.failed() { Err(self.progress.lost()) } else { self.disk.flush().map_err(|e| failed(&e)) };
        match done {
            Ok(()) => {
                // One that connected again in between was numbered later.
                self.progress.flushed.send_modify(|flushed| *flushed = batch.number.max(*flushed));
                self.heads.grew(batch.heads);
                for job in batch.jobs {
                    job.answer(Ok(()));
                }
            }
            Err(refused) => {
                tracing::error!(error = %refused, verbs = batch.jobs.len(), "ledger flush failed: the ledger stops");
                self.progress.fail("a flush to disk failed");
                for job in batch.jobs {
                    job.answer(Err(&refused));
                }
            }
        }
    }
}

/// Starts the thread; it ends when the sender is dropped.
pub(crate) fn start(flusher: Flusher) -> std::io::Result<(Sender<Batch>, std::thread::JoinHandle<()>)> {
    let (batches, inbox) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("ledger-flusher".to_owned()).spawn(move || flusher.run(inbox))?;
    Ok((batches, thread))
}

fn failed(error: &std::io::Error) -> Refused {
    Refused::LedgerUnavailable { what: format!("the disk did not flush: {error}; the ledger stops until it is opened again") }
}
