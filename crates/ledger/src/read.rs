//! Reading: a few connections of their own, used off the async threads, and the read-only opening for the
//! command line. Nothing here writes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension, params};

use crate::chain::position;
use crate::fault::{Outcome, unavailable};
use crate::flusher::Progress;
use crate::open::{OpenError, check_heads};
use crate::query::{Filter, Page, page};
use crate::record::Record;
use crate::schema;
use crate::types::{OrgId, Refused};
use crate::verify::Head;

/// Connections kept open while idle.
const KEPT: usize = 4;
/// Most records of one export.
const MAX_EXPORT: i64 = 10_000;

/// Connections that read.
#[derive(Debug)]
pub(crate) struct Pool {
    path: PathBuf,
    idle: Mutex<Option<Vec<Connection>>>,
    progress: Arc<Progress>,
}

impl Pool {
    pub(crate) fn new(path: PathBuf, progress: Arc<Progress>) -> Self {
        Self { path, idle: Mutex::new(Some(Vec::new())), progress }
    }

    /// Run a read in one transaction on a thread that may block. The answer is given once all that it rests on is on disk.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Refused> {
        let pool = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || -> Outcome<T> {
            let conn = pool.take()?;
            conn.execute_batch("BEGIN")?;
            let answer = work(&conn);
            conn.execute_batch("COMMIT")?;
            pool.put(conn);
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

    fn take(&self) -> Outcome<Connection> {
        let closed = || Refused::LedgerUnavailable { what: "the ledger is closed".to_owned() };
        let mut idle = self.idle.lock().map_err(|_| closed())?;
        let kept = idle.as_mut().ok_or_else(closed)?;
        match kept.pop() {
            Some(conn) => Ok(conn),
            None => Ok(schema::open_reader(&self.path).map_err(|e| unavailable(&e))?),
        }
    }

    fn put(&self, conn: Connection) {
        if let Ok(mut idle) = self.idle.lock()
            && let Some(kept) = idle.as_mut()
            && kept.len() < KEPT
        {
            kept.push(conn);
        }
    }
}

/// The head of an Org's chain.
pub(crate) fn head(conn: &Connection, uid: &str) -> Outcome<Option<Head>> {
    Ok(conn
        .prepare_cached("SELECT seq, hash FROM orgs WHERE uid = ?1")?
        .query_row([uid], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? }))
        .optional()?)
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
pub(crate) fn standing(conn: &Connection, uid: &str, anchor: &Head) -> Outcome<Standing> {
    let found: Option<(i64, i64)> =
        conn.prepare_cached("SELECT n, seq FROM orgs WHERE uid = ?1")?.query_row([uid], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((n, _)) = found.filter(|(_, head)| *head >= anchor.seq) else {
        return Ok(Standing::Behind { head: found.map_or(0, |(_, head)| head) });
    };
    let hash: Option<String> = conn
        .prepare_cached("SELECT hash FROM records WHERE pos = ?1")?
        .query_row([position(n, anchor.seq)?], |row| row.get(0))
        .optional()?;
    Ok(match hash {
        Some(hash) if hash != anchor.hash => Standing::Differs,
        _ => Standing::Fits,
    })
}

/// Records of an Org's chain from a sequence on, at most 10,000.
pub(crate) fn export(conn: &Connection, uid: &str, from_seq: i64, limit: i64) -> Outcome<Vec<Record>> {
    let n: Option<i64> = conn.prepare_cached("SELECT n FROM orgs WHERE uid = ?1")?.query_row([uid], |row| row.get(0)).optional()?;
    let Some(n) = n else { return Ok(Vec::new()) };
    let mut statement = conn.prepare_cached("SELECT text, hash FROM records WHERE pos >= ?1 AND pos < ?2 ORDER BY pos LIMIT ?3")?;
    let mut rows = statement.query(params![position(n, from_seq.max(0))?, position(n + 1, 0)?, limit.clamp(0, MAX_EXPORT)])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let record = Record::stored(row.get(0)?, row.get(1)?);
        records.push(record.map_err(|e| crate::fault::Fault::Stored(e.to_string()))?);
    }
    Ok(records)
}

/// The Orgs that have a chain, in the order of their first record.
pub(crate) fn orgs(conn: &Connection) -> Outcome<Vec<OrgId>> {
    let mut statement = conn.prepare_cached("SELECT name, uid FROM orgs ORDER BY n")?;
    let rows = statement.query_map([], |row| Ok(OrgId { name: row.get(0)?, uid: row.get(1)? }))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Canonical body of a definition.
pub(crate) fn definition(conn: &Connection, uid: &str, digest: &str) -> Outcome<Option<String>> {
    Ok(conn
        .prepare_cached("SELECT d.text FROM definitions d JOIN orgs o ON o.n = d.org WHERE o.uid = ?1 AND d.digest = ?2")?
        .query_row([uid, digest], |row| row.get(0))
        .optional()?)
}

/// A ledger opened for reading only, beside a running writer or without one.
#[derive(Debug)]
pub struct ReadOnly {
    conn: Connection,
}

/// Open a ledger's directory for reading only, as `kubectl polity audit` does. Takes no lock and blocks no writer.
///
/// # Errors
/// When there is no ledger, or a later Polity wrote it, or a head does not match its chain.
pub fn open_read_only(dir: impl AsRef<Path>) -> Result<ReadOnly, OpenError> {
    let path = dir.as_ref().join(schema::FILE);
    std::fs::File::open(&path).map_err(|source| OpenError::Files { path: path.clone(), source })?;
    let wal = dir.as_ref().join(format!("{}-wal", schema::FILE));
    let found = schema::open_reader(&path).and_then(|conn| schema::version(&conn).map(|version| (conn, version)));
    let (conn, version) = match found {
        Ok(found) => found,
        // A read-only volume: without a write-ahead log there is nothing that could be missed.
        Err(_) if !wal.exists() => {
            let conn = schema::open_immutable(&path)?;
            let version = schema::version(&conn)?;
            (conn, version)
        }
        Err(error) => return Err(error.into()),
    };
    let known = schema::newest();
    if version > known {
        return Err(OpenError::Newer { found: version, known });
    }
    if version < known {
        return Err(OpenError::Older { found: version, known });
    }
    conn.execute_batch("BEGIN")?;
    check_heads(&conn)?;
    Ok(ReadOnly { conn })
}

impl ReadOnly {
    /// The Orgs that have a chain.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn orgs(&self) -> Result<Vec<OrgId>, Refused> {
        orgs(&self.conn).map_err(Refused::from)
    }

    /// The head of an Org's chain.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn head(&self, org: &OrgId) -> Result<Option<Head>, Refused> {
        head(&self.conn, &org.uid).map_err(Refused::from)
    }

    /// Records of a chain from a sequence on, at most `limit` and at most 10,000. All reads see one state of
    /// the ledger, the one at the opening.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn export(&self, org: &OrgId, from_seq: i64, limit: i64) -> Result<Vec<Record>, Refused> {
        export(&self.conn, &org.uid, from_seq, limit).map_err(Refused::from)
    }

    /// The records of a chain after a sequence that the filter lets through, of at most `limit` looked at; with `roots`
    /// also the signed roots.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn page(&self, org: &OrgId, after: i64, limit: i64, filter: &Filter, roots: bool) -> Result<Page, Refused> {
        page(&self.conn, &org.uid, after, limit, filter, roots).map_err(Refused::from)
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
