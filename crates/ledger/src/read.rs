//! Reading: a few connections of their own, used off the async threads, and the read-only opening for the
//! command line. Nothing here writes.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use crate::chain::position;
use crate::fault::{Fault, Outcome, unavailable};
use crate::flusher::Progress;
use crate::open::{Home, OpenError, check_heads};
use crate::query::{Filter, Page, page};
use crate::record::Record;
use crate::store::{Db, sqlite, values};
use crate::types::{OrgId, Refused};
use crate::verify::Head;

/// Connections kept open while idle.
const KEPT: usize = 4;
/// Writes tables anew without what was deleted from them.
pub(crate) const SCRUB: [&str; 2] = ["VACUUM FULL keys", "VACUUM FULL results"];
/// Most reads at once from a server.
const AT_ONCE: usize = 8;
/// Most records of one export.
const MAX_EXPORT: i64 = 10_000;

/// Connections that read.
#[derive(Debug)]
pub(crate) struct Pool {
    home: Home,
    /// How many may read at once: a server gives a connection to each.
    turns: Arc<Semaphore>,
    idle: Mutex<Option<Vec<Db>>>,
    progress: Arc<Progress>,
}

impl Pool {
    pub(crate) fn new(home: Home, progress: Arc<Progress>) -> Self {
        let turns = match home {
            Home::File(_) => Semaphore::MAX_PERMITS,
            Home::Server(_) => AT_ONCE,
        };
        Self { home, turns: Arc::new(Semaphore::new(turns)), idle: Mutex::new(Some(Vec::new())), progress }
    }

    /// Run a read in one transaction on a thread that may block. The answer is given once all that it rests on is on disk.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Db) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Refused> {
        let pool = Arc::clone(self);
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || -> Outcome<T> {
            // Also of a caller that has gone away meanwhile.
            let _turn = turn;
            let db = pool.reading()?;
            let answer = work(&db);
            db.commit()?;
            pool.put(db);
            answer
        });
        match done.await {
            Ok(answer) => {
                let answer = answer.map_err(Refused::from)?;
                self.progress.settled().await?;
                Ok(answer)
            }
            Err(error) => Err(Refused::LedgerUnavailable { what: format!("a read ended: {error}") }),
        }
    }

    /// Have a server forget what was deleted: it keeps what a row was before, until told. A file of SQLite is overwritten at once.
    pub(crate) async fn scrub(self: &Arc<Self>) -> Result<(), Refused> {
        let Home::Server(server) = self.home.clone() else { return Ok(()) };
        let done = tokio::task::spawn_blocking(move || SCRUB.iter().try_for_each(|sql| server.connect()?.batch(sql)));
        let done = done.await.map_err(|e| Refused::LedgerUnavailable { what: format!("the scrubbing ended: {e}") })?;
        done.map_err(|e| unavailable(&e))
    }

    /// Close the connections; later reads are refused.
    pub(crate) fn close(&self) {
        if let Ok(mut idle) = self.idle.lock() {
            *idle = None;
        }
    }

    /// Whether a read has ended and left its connection.
    #[cfg(test)]
    pub(crate) fn has_idle(&self) -> bool {
        self.idle.lock().is_ok_and(|idle| idle.as_ref().is_some_and(|kept| !kept.is_empty()))
    }

    /// A connection with a transaction begun. One that was lost while it was idle is let go for another.
    fn reading(&self) -> Outcome<Db> {
        loop {
            let (db, idle) = self.take()?;
            match db.begin_reading() {
                Ok(()) => return Ok(db),
                Err(_) if idle && db.is_lost() => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    /// A connection, and whether it was idle before.
    fn take(&self) -> Outcome<(Db, bool)> {
        let closed = || Refused::LedgerUnavailable { what: "the ledger is closed".to_owned() };
        let mut idle = self.idle.lock().map_err(|_| closed())?;
        let kept = idle.as_mut().ok_or_else(closed)?;
        if let Some(db) = kept.pop() {
            return Ok((db, true));
        }
        drop(idle);
        Ok((self.home.reader()?, false))
    }

    fn put(&self, db: Db) {
        if let Ok(mut idle) = self.idle.lock()
            && let Some(kept) = idle.as_mut()
            && kept.len() < KEPT
        {
            kept.push(db);
        }
    }
}

/// The head of an Org's chain.
pub(crate) fn head(db: &Db, uid: &str) -> Outcome<Option<Head>> {
    db.row("SELECT seq, hash FROM orgs WHERE uid = ?1", values![uid], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? }))
}

/// How a chain stands to a head that was kept elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The record is in it; or it was dropped with its segment after its time.
    Fits,
    /// It ends before: its tail is lost.
    Behind {
        /// Sequence of its last record, 0 without one.
        head: i64,
    },
    /// It has another record there.
    Differs,
}

/// How a chain stands to a head that was kept elsewhere.
pub(crate) fn standing(db: &Db, uid: &str, anchor: &Head) -> Outcome<Standing> {
    let sql = "SELECT n, seq FROM orgs WHERE uid = ?1";
    let found: Option<(i64, i64)> = db.row(sql, values![uid], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((n, _)) = found.filter(|(_, head)| *head >= anchor.seq) else {
        return Ok(Standing::Behind { head: found.map_or(0, |(_, head)| head) });
    };
    let sql = "SELECT hash FROM records WHERE pos = ?1";
    let hash: Option<String> = db.row(sql, values![position(n, anchor.seq)?], |row| row.get(0))?;
    Ok(match hash {
        Some(hash) if hash != anchor.hash => Standing::Differs,
        _ => Standing::Fits,
    })
}

/// Records of an Org's chain from a sequence on, at most 10,000.
pub(crate) fn export(db: &Db, uid: &str, from_seq: i64, limit: i64) -> Outcome<Vec<Record>> {
    let n: Option<i64> = db.row("SELECT n FROM orgs WHERE uid = ?1", values![uid], |row| row.get(0))?;
    let Some(n) = n else { return Ok(Vec::new()) };
    let sql = "SELECT text, hash FROM records WHERE pos >= ?1 AND pos < ?2 ORDER BY pos LIMIT ?3";
    let (from, to) = (position(n, from_seq.max(0))?, position(n + 1, 0)?);
    db.rows(sql, values![from, to, limit.clamp(0, MAX_EXPORT)], |row| {
        Record::stored(row.get(0)?, row.get(1)?).map_err(|e| Fault::Stored(e.to_string()))
    })
}

/// The Orgs that have a chain, in the order of their first record.
pub(crate) fn orgs(db: &Db) -> Outcome<Vec<OrgId>> {
    db.rows("SELECT name, uid FROM orgs ORDER BY n", &[], |row| Ok(OrgId { name: row.get(0)?, uid: row.get(1)? }))
}

/// Canonical body of a definition.
pub(crate) fn definition(db: &Db, uid: &str, digest: &str) -> Outcome<Option<String>> {
    let sql = "SELECT d.text FROM definitions d JOIN orgs o ON o.n = d.org WHERE o.uid = ?1 AND d.digest = ?2";
    db.row(sql, values![uid, digest], |row| row.get(0))
}

/// A ledger opened for reading only, beside a running writer or without one.
#[derive(Debug)]
pub struct ReadOnly {
    db: Db,
}

/// Open a ledger's directory for reading only, as `kubectl polity audit` does. Takes no lock and blocks no writer.
///
/// # Errors
/// When there is no ledger, or a later Polity wrote it, or a head does not match its chain.
pub fn open_read_only(dir: impl AsRef<Path>) -> Result<ReadOnly, OpenError> {
    let path = dir.as_ref().join(sqlite::FILE);
    std::fs::File::open(&path).map_err(|source| OpenError::Files { path: path.clone(), source })?;
    let wal = dir.as_ref().join(format!("{}-wal", sqlite::FILE));
    let found = sqlite::open_reader(&path).and_then(|conn| sqlite::version(&conn).map(|version| (conn, version)));
    let (conn, version) = match found {
        Ok(found) => found,
        // A read-only volume: without a write-ahead log there is nothing that could be missed.
        Err(_) if !wal.exists() => {
            let conn = sqlite::open_immutable(&path)?;
            let version = sqlite::version(&conn)?;
            (conn, version)
        }
        Err(error) => return Err(error.into()),
    };
    let known = sqlite::newest();
    if version > known {
        return Err(OpenError::Newer { found: version, known });
    }
    if version < known {
        return Err(OpenError::Older { found: version, known });
    }
    let db = Db::Sqlite(conn);
    db.begin_reading()?;
    check_heads(&db)?;
    Ok(ReadOnly { db })
}

impl ReadOnly {
    /// The Orgs that have a chain.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn orgs(&self) -> Result<Vec<OrgId>, Refused> {
        orgs(&self.db).map_err(Refused::from)
    }

    /// The head of an Org's chain.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn head(&self, org: &OrgId) -> Result<Option<Head>, Refused> {
        head(&self.db, &org.uid).map_err(Refused::from)
    }

    /// Records of a chain from a sequence on, at most `limit` and at most 10,000. All reads see one state of
    /// the ledger, the one at the opening.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn export(&self, org: &OrgId, from_seq: i64, limit: i64) -> Result<Vec<Record>, Refused> {
        export(&self.db, &org.uid, from_seq, limit).map_err(Refused::from)
    }

    /// The records of a chain after a sequence that the filter lets through, of at most `limit` looked at; with `roots`
    /// also the signed roots.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn page(&self, org: &OrgId, after: i64, limit: i64, filter: &Filter, roots: bool) -> Result<Page, Refused> {
        page(&self.db, &org.uid, after, limit, filter, roots).map_err(Refused::from)
    }

    /// All records of a chain, read piece by piece.
    pub fn records(&self, org: &OrgId) -> impl Iterator<Item = Result<Record, Refused>> {
        let mut next = Some(1);
        std::iter::from_fn(move || {
            let from = next?;
            let piece = self.export(org, from, 1000);
            next = match &piece {
                Ok(records) => records.last().map(|last| last.seq + 1),
                Err(_) => None,
            };
            match piece {
                Ok(records) if records.is_empty() => None,
                Ok(records) => Some(records.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => Some(vec![Err(error)]),
            }
        })
        .flatten()
    }
}
