//! The handle: checks and digests on the caller's side, the rest by the writer or a reader.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::attempts::{self, Which};
use crate::canonical::canonical;
use crate::chain::Tx;
use crate::clock::Clock;
use crate::counters;
use crate::fault::{Outcome, invalid};
use crate::flusher::{self, Committed, Disk, Flusher, Progress, Wal};
use crate::heads::Heads;
use crate::keys::{self, Key, Keys};
use crate::open::{Config, Home, OpenError, Opened, open};
use crate::query::{self, Filter, Page};
use crate::read::{self, Pool, SCRUB, Standing};
use crate::record::Record;
use crate::store::Db;
use crate::types::{
    Attempt, Begin, Begun, CounterKey, CounterValue, Held, Hold, Idempotency, KeyedDigest, Note, OrgId, Refused, Release, Settle, Settled,
};
use crate::verbs::definition::{Defined, Definition};
use crate::verbs::seal::Sealing;
use crate::verbs::{self, body};
use crate::verify::Head;
use crate::writer::{Call, Message, Writer};

/// When a caller is answered: an Org's explicit choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once what it asked for is flushed to disk.
    #[default]
    Durable,
    /// Once it is committed; the flush follows. The process may die without loss, the machine may not.
    Relaxed,
}

/// The ledger. Clones share one writer; the last one dropped closes it.
#[derive(Clone)]
pub struct Ledger {
    queue: mpsc::Sender<Message>,
    pool: Arc<Pool>,
    keys: Arc<Keys>,
    heads: Arc<Heads>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Open the ledger: take its lock, migrate it, check that its chains end where their heads say.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::Locked`] when another process has it open.
    #[allow(clippy::needless_pass_by_value)] // settings are handed over
    pub fn open(config: Config, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        // On a thread of its own, since it blocks and the caller may be one that must not.
        let opened = std::thread::scope(|threads| threads.spawn(|| open(&config)).join());
        let opened = opened.map_err(|_| OpenError::Damaged("the opening broke off".to_owned()))??;
        let disk: Box<dyn Disk> = match &opened.home {
            Home::File(path) => Box::new(Wal::of(path).map_err(|source| OpenError::Files { path: path.clone(), source })?),
            Home::Server(_) => Box::new(Committed),
        };
        Self::start(opened, &config, clock, disk)
    }

    fn start(opened: Opened, config: &Config, clock: Arc<dyn Clock>, disk: Box<dyn Disk>) -> Result<Self, OpenError> {
        let (queue, inbox) = mpsc::channel(config.queue);
        let progress = Arc::new(Progress::default());
        let heads = Arc::new(Heads::new(opened.heads));
        let (progress_, heads_) = (Arc::clone(&progress), Arc::clone(&heads));
        let flusher = Flusher { disk, progress: progress_, heads: heads_, writer: queue.downgrade() };
        let (batches, flushing) = flusher::start(flusher).map_err(OpenError::Thread)?;
        let writer = Writer {
            db: opened.db,
            lock: opened.lock,
            home: opened.home.clone(),
            again: None,
            clock: Arc::clone(&clock),
            max_batch: config.max_batch,
            progress: Arc::clone(&progress),
            flusher: batches,
            flushing,
        };
        std::thread::Builder::new().name("ledger-writer".to_owned()).spawn(move || writer.run(inbox)).map_err(OpenError::Thread)?;
        Ok(Self { queue, pool: Arc::new(Pool::new(opened.home, progress)), keys: Arc::default(), heads, clock })
    }

    /// Raise the epoch: writers with an older one are refused from now on. Each write below also raises it, if its
    /// epoch is newer.
    ///
    /// # Errors
    /// [`Refused::Fenced`] when the ledger's epoch is newer, or the ledger cannot write.
    pub async fn fence(&self, epoch: i64) -> Result<(), Refused> {
        self.write(move |tx| tx.fence(epoch)).await
    }

    /// Reserve without permission to run.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn hold(&self, epoch: i64, hold: Hold) -> Result<Held, Refused> {
        let input = self.input(&hold.subject.org, &hold.subject.input).await?;
        self.write(move |tx| verbs::hold::hold(tx, epoch, hold, input)).await
    }

    /// Turn a hold into a start, or reserve and start. When this returns, the start is on disk.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn begin(&self, epoch: i64, begin: Begin) -> Result<Begun, Refused> {
        self.begin_as(epoch, begin, Durability::Durable).await
    }

    /// As [`Ledger::begin`], answered as early as the Org allows.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn begin_as(&self, epoch: i64, begin: Begin, durability: Durability) -> Result<Begun, Refused> {
        let resume = body("resume data", &begin.resume)?;
        let input = self.input(&begin.subject.org, &begin.subject.input).await?;
        self.send(move |tx| verbs::begin::begin(tx, epoch, begin, input, resume), durability == Durability::Relaxed).await
    }

    /// Say what became of an action that began, or of a part of it.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn settle(&self, epoch: i64, settle: Settle) -> Result<Settled, Refused> {
        self.settle_as(epoch, settle, Durability::Durable).await
    }

    /// As [`Ledger::settle`], answered as early as the Org allows.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn settle_as(&self, epoch: i64, settle: Settle, durability: Durability) -> Result<Settled, Refused> {
        let result = match &settle.result {
            None => None,
            Some(result) => {
                let text = body("the result", result)?;
                let key = self.find_key(&settle.org.uid).await?;
                let key = key.ok_or_else(|| Refused::NotFound { id: settle.id.clone() })?;
                let digest = key.digest(&text)?;
                Some((text, digest))
            }
        };
        self.send(move |tx| verbs::settle::settle(tx, epoch, settle, result), durability == Durability::Relaxed).await
    }

    /// Give a hold back. Returns the sequence of the record.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn release(&self, epoch: i64, release: Release) -> Result<i64, Refused> {
        self.write(move |tx| verbs::release::release(tx, epoch, &release)).await
    }

    /// Record what reserves nothing. Returns the sequence of the record.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn note(&self, epoch: i64, note: Note) -> Result<i64, Refused> {
        let input = match &note.subject {
            Some(subject) if !subject.input.is_null() => Some(self.input(&subject.org, &subject.input).await?),
            _ => None,
        };
        self.write(move |tx| verbs::note::note(tx, epoch, note, input)).await
    }

    /// Keep a definition's version, and record that it came into force, changed, or went. Nothing is written
    /// when it is what is in force already.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn definition(&self, epoch: i64, definition: Definition) -> Result<Defined, Refused> {
        let text = definition.body.as_ref().map(|value| body("the definition", value)).transpose()?;
        self.write(move |tx| verbs::definition::define(tx, epoch, definition, text)).await
    }

    /// A definition's body by its digest.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn definition_body(&self, org: &OrgId, digest: &str) -> Result<Option<Value>, Refused> {
        let (uid, digest) = (org.uid.clone(), digest.to_owned());
        self.pool.read(move |db| Ok(read::definition(db, &uid, &digest)?.map(|text| serde_json::from_str(&text)).transpose()?)).await
    }

    /// Lapse holds whose time is over (reason `HoldExpired`) and return them, at most 1,000 a call; drop results
    /// and callers' keys after a day. To be called now and then.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn expire(&self, epoch: i64) -> Result<Vec<Attempt>, Refused> {
        self.write(move |tx| verbs::expire::expire(tx, epoch)).await
    }

    /// Close segments of chains with signed roots, at most 100 a call, and change the signing key in time. Returns how
    /// many were closed. To be called now and then.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn seal(&self, epoch: i64, when: Sealing) -> Result<usize, Refused> {
        self.write(move |tx| verbs::seal::seal(tx, epoch, &when)).await
    }

    /// Drop the oldest segment of an Org's chain, if it is sealed and all of it was written before a time. Returns the
    /// sequences of its first and last record if it was dropped; then there may be more to drop.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn retain(&self, epoch: i64, org: &OrgId, before: Timestamp) -> Result<Option<(i64, i64)>, Refused> {
        let org = org.clone();
        self.write(move |tx| verbs::retain::retain(tx, epoch, &org, before)).await
    }

    /// Destroy the keys of an Org's digests, once for each name, and record it. What was digested can no longer be found
    /// out by trying; the chain stays whole. Returns whether the name was new.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn erase(&self, epoch: i64, org: &OrgId, name: &str) -> Result<bool, Refused> {
        let (wanted, name) = (org.clone(), name.to_owned());
        let destroyed = self.write(move |tx| verbs::erase::erase(tx, epoch, &wanted, &name)).await?;
        let new = destroyed.is_some();
        self.keys.destroy(&org.uid, destroyed.unwrap_or_default());
        if new && let Err(error) = self.pool.scrub().await {
            tracing::error!(%error, "destroyed keys may still be in the files of Postgres: run {SCRUB:?} there");
        }
        Ok(new)
    }

    /// Counters in their present windows, all as of one moment, with versions for [`Begin::read`].
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn counters(&self, keys: Vec<CounterKey>) -> Result<Vec<CounterValue>, Refused> {
        let now = self.clock.now();
        self.pool.read(move |db| keys.into_iter().map(|key| counters::value(db, key, now)).collect()).await
    }

    /// Counters as of one moment, without what the action of this id has reserved or used there itself: what there was before it. With versions for
    /// [`Begin::read`].
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn counters_before(&self, org: &OrgId, id: &str, keys: Vec<CounterKey>) -> Result<Vec<CounterValue>, Refused> {
        let now = self.clock.now();
        let (uid, id) = (org.uid.clone(), id.to_owned());
        self.pool.read(move |db| counters::values_without(db, &attempts::spend(db, &uid, &id)?, keys, now)).await
    }

    /// An action by its id.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn attempt(&self, org: &OrgId, id: &str) -> Result<Option<Attempt>, Refused> {
        let (uid, id) = (org.uid.clone(), id.to_owned());
        self.pool.read(move |db| Ok(attempts::list(db, &Which::Id(&uid, &id))?.pop())).await
    }

    /// Actions held or begun, for recovery and the reaper.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn open_attempts(&self) -> Result<Vec<Attempt>, Refused> {
        self.pool.read(|db| attempts::list(db, &Which::Open)).await
    }

    /// The action that a caller's idempotency key stands for.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn by_idempotency(&self, org: &OrgId, caller: &str, verb: &str, key: &str) -> Result<Option<Attempt>, Refused> {
        let [uid, caller, verb, key] = [&org.uid, caller, verb, key].map(str::to_owned);
        self.pool.read(move |db| Ok(attempts::list(db, &Which::Key(&uid, &caller, &verb, &key))?.pop())).await
    }

    /// Id of the action that a caller's key stands for, if it was of this very request; None: there is none, or the key was used for another.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn replayed(&self, org: &OrgId, caller: &str, verb: &str, key: &Idempotency) -> Result<Option<String>, Refused> {
        let [uid, caller, verb] = [&org.uid, caller, verb].map(str::to_owned);
        let key = key.clone();
        let read = move |db: &Db| attempts::replayed(db, &uid, &caller, &verb, &key);
        self.pool.read(read).await
    }

    /// Digest of a canonical text under the Org's key, which is made on first use.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub async fn digest(&self, org: &OrgId, canonical: &str) -> Result<KeyedDigest, Refused> {
        self.key(org).await?.digest(canonical)
    }

    /// The end of an Org's chain.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn head(&self, org: &OrgId) -> Result<Option<Head>, Refused> {
        let uid = org.uid.clone();
        self.pool.read(move |db| read::head(db, &uid)).await
    }

    /// How an Org's chain stands to a head that was kept elsewhere.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn standing(&self, org: &OrgId, anchor: &Head) -> Result<Standing, Refused> {
        let (uid, anchor) = (org.uid.clone(), anchor.clone());
        self.pool.read(move |db| read::standing(db, &uid, &anchor)).await
    }

    /// Records of an Org's chain from a sequence on, at most `limit` and at most 10,000.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn export(&self, org: &OrgId, from_seq: i64, limit: i64) -> Result<Vec<Record>, Refused> {
        let uid = org.uid.clone();
        self.pool.read(move |db| read::export(db, &uid, from_seq, limit)).await
    }

    /// The records of an Org's chain after a sequence that the filter lets through, of at most `limit` (and at most
    /// [`MAX_PAGE`](crate::MAX_PAGE)) looked at; with `roots` also the signed roots, each after the last record of its
    /// segment. An Org without a chain has an empty page.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn page(&self, org_uid: &str, after: i64, limit: i64, filter: Filter, roots: bool) -> Result<Page, Refused> {
        let uid = org_uid.to_owned();
        self.pool.read(move |db| query::page(db, &uid, after, limit, &filter, roots)).await
    }

    /// Records of an Org's chain after a sequence in which rules that are not enforced would have done something, of at most `limit` (and at most
    /// [`MAX_PAGE`](crate::MAX_PAGE)) looked at, and the sequence of the last one looked at: that of the chain's head when it was reached.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn advised(&self, org: &OrgId, after: i64, limit: i64) -> Result<(Vec<Record>, i64), Refused> {
        let uid = org.uid.clone();
        self.pool.read(move |db| query::advised(db, &uid, after, limit)).await
    }

    /// Wait until an Org's chain has grown beyond a sequence, at most so long.
    pub async fn grown(&self, org_uid: &str, beyond: i64, longest: Duration) {
        let mut commits = self.heads.commits();
        let grown = async { while !self.heads.beyond(org_uid, beyond) && commits.changed().await.is_ok() {} };
        // A time-out is an answer too: nothing has come.
        let _ = tokio::time::timeout(longest, grown).await;
    }

    /// The Orgs that have a chain.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn orgs(&self) -> Result<Vec<OrgId>, Refused> {
        self.pool.read(read::orgs).await
    }

    /// Finish what was asked before, close the database and release its lock. Later calls are refused.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        self.pool.close();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    async fn write<T: Send + 'static>(&self, work: impl FnOnce(&mut Tx<'_>) -> Outcome<T> + Send + 'static) -> Result<T, Refused> {
        self.send(work, false).await
    }

    async fn send<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Outcome<T> + Send + 'static,
        relaxed: bool,
    ) -> Result<T, Refused> {
        let closed = || Refused::LedgerUnavailable { what: "the ledger is closed".to_owned() };
        let (job, answer) = Call::queued(work, relaxed);
        self.queue.send(Message::Run(job)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn input(&self, org: &OrgId, input: &Value) -> Result<KeyedDigest, Refused> {
        let text = canonical(input).map_err(|e| Refused::from(invalid(e.to_string())))?;
        if text.len() > verbs::MAX_BODY {
            return Err(invalid("the input is larger than 1 MiB").into());
        }
        self.key(org).await?.digest(&text)
    }

    async fn find_key(&self, uid: &str) -> Result<Option<Key>, Refused> {
        if let Some(key) = self.keys.get(uid) {
            return Ok(Some(key));
        }
        let wanted = uid.to_owned();
        let key = self.pool.read(move |db| keys::find(db, &wanted)).await?;
        if let Some(key) = &key {
            self.keys.keep(uid, key);
        }
        Ok(key)
    }

    async fn key(&self, org: &OrgId) -> Result<Key, Refused> {
        if let Some(key) = self.find_key(&org.uid).await? {
            return Ok(key);
        }
        let wanted = org.clone();
        let key = self.write(move |tx| tx.key(&wanted)).await?;
        self.keys.keep(&org.uid, &key);
        Ok(key)
    }
}

#[cfg(test)]
mod tests;
