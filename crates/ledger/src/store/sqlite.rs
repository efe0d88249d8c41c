//! SQLite: the tables, their migrations, and how a connection is set up.
//!
//! Amounts and times (microseconds since 1970) are INTEGER, 64 bits signed. A migration is never edited once
//! released; a database of a newer version is refused.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::open::OpenError;
use crate::store::StoreError;

/// Name of the database in the ledger's directory.
pub(crate) const FILE: &str = "ledger.db";

/// One text a version; `PRAGMA user_version` counts those applied.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE orgs (
  n    INTEGER PRIMARY KEY,
  uid  TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  seq  INTEGER NOT NULL,        -- head of the chain
  hash TEXT NOT NULL
);

-- pos = orgs.n << 40 | seq: one b-tree, each chain in a row.
CREATE TABLE records (pos INTEGER PRIMARY KEY, hash TEXT NOT NULL, text TEXT NOT NULL);

CREATE TABLE keys (
  id   TEXT PRIMARY KEY,
  org  INTEGER NOT NULL REFERENCES orgs(n),
  made INTEGER NOT NULL,
  key  BLOB                     -- NULL once destroyed
) WITHOUT ROWID;
CREATE INDEX keys_org ON keys(org, made);

CREATE TABLE attempts (
  n             INTEGER PRIMARY KEY,
  org           INTEGER NOT NULL REFERENCES orgs(n),
  id            TEXT NOT NULL,
  verb          TEXT NOT NULL,
  state         INTEGER NOT NULL,  -- 0 held, 1 begun, 2 released, 3 settled
  executor      TEXT NOT NULL,
  deadline      INTEGER NOT NULL,
  resume        TEXT NOT NULL,
  outcome       INTEGER,           -- 0 done, 1 not done, 2 unknown
  resolved      INTEGER NOT NULL DEFAULT 0,
  reason        TEXT NOT NULL DEFAULT '',
  message       TEXT NOT NULL DEFAULT '',
  facts         TEXT NOT NULL DEFAULT '{}',
  spend         TEXT NOT NULL,
  input_digest  TEXT NOT NULL,
  input_key     TEXT NOT NULL,
  input_size    INTEGER NOT NULL,
  result_digest TEXT,
  result_key    TEXT,
  result_size   INTEGER,
  first_seq     INTEGER NOT NULL,  -- the hold, or the begin without one
  begin_seq     INTEGER,
  last_seq      INTEGER NOT NULL,
  begun         INTEGER,
  UNIQUE (org, id)
);
CREATE INDEX attempts_open ON attempts(state, deadline) WHERE state < 2;

CREATE TABLE results (
  attempt INTEGER PRIMARY KEY REFERENCES attempts(n),
  until   INTEGER NOT NULL,
  text    TEXT NOT NULL
);
CREATE INDEX results_until ON results(until);

CREATE TABLE counters (
  n        INTEGER PRIMARY KEY AUTOINCREMENT,  -- attempts name it: never given twice
  base     TEXT NOT NULL,          -- unit, window and dimensions
  start    INTEGER NOT NULL,       -- of the window, Unix seconds; 0 never resets
  ends     INTEGER,                -- of the window; NULL never resets
  used     INTEGER NOT NULL CHECK (used >= 0),
  reserved INTEGER NOT NULL CHECK (reserved >= 0),
  version  INTEGER NOT NULL,
  UNIQUE (base, start)
);
CREATE INDEX counters_ended ON counters(ends) WHERE ends IS NOT NULL;

CREATE TABLE consumed (
  org     INTEGER NOT NULL REFERENCES orgs(n),
  key     TEXT NOT NULL,
  attempt TEXT NOT NULL,
  PRIMARY KEY (org, key)
) WITHOUT ROWID;

CREATE TABLE idempotency (
  org     INTEGER NOT NULL REFERENCES orgs(n),
  caller  TEXT NOT NULL,
  verb    TEXT NOT NULL,
  key     TEXT NOT NULL,
  body    TEXT NOT NULL,
  attempt TEXT NOT NULL,
  made    INTEGER NOT NULL,
  PRIMARY KEY (org, caller, verb, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_made ON idempotency(made);

CREATE TABLE once (
  org INTEGER NOT NULL REFERENCES orgs(n),
  key TEXT NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (org, key)
) WITHOUT ROWID;

CREATE TABLE definitions (
  org    INTEGER NOT NULL REFERENCES orgs(n),
  digest TEXT NOT NULL,
  text   TEXT NOT NULL,
  PRIMARY KEY (org, digest)
) WITHOUT ROWID;

CREATE TABLE in_force (
  n         INTEGER PRIMARY KEY,
  org       INTEGER NOT NULL REFERENCES orgs(n),
  kind      TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name      TEXT NOT NULL,
  digest    TEXT NOT NULL,
  since     INTEGER NOT NULL,
  until     INTEGER,
  FOREIGN KEY (org, digest) REFERENCES definitions(org, digest)
);
CREATE UNIQUE INDEX in_force_now ON in_force(org, kind, namespace, name) WHERE until IS NULL;
CREATE INDEX in_force_then ON in_force(org, kind, namespace, name, since);
",
    "
CREATE TABLE signers (
  n         INTEGER PRIMARY KEY,
  id        TEXT NOT NULL UNIQUE,
  public    TEXT NOT NULL,
  seed      BLOB,                -- NULL once another key follows
  made      INTEGER NOT NULL,
  by        TEXT,                -- key that endorses it
  signature TEXT
);

CREATE TABLE roots (
  org       INTEGER NOT NULL REFERENCES orgs(n),
  segment   INTEGER NOT NULL,
  first     INTEGER NOT NULL,
  last      INTEGER NOT NULL,
  last_time INTEGER NOT NULL,
  key_id    TEXT NOT NULL,
  text      TEXT NOT NULL,
  signature TEXT NOT NULL,
  dropped   INTEGER,             -- when retention dropped its records
  PRIMARY KEY (org, segment)
) WITHOUT ROWID;
CREATE INDEX roots_last ON roots(org, last);

CREATE INDEX attempts_unsettled ON attempts(org, first_seq) WHERE state < 2 OR (outcome = 2 AND resolved = 0);
",
];

/// The writer's connection, migrated.
pub(crate) fn open_writer(path: &Path, max_pages: Option<i64>) -> Result<Connection, OpenError> {
    // One thread alone uses it: no need of SQLite's own locks.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    setup(&conn)?;
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    conn.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -32768; PRAGMA cache_spill = OFF; \
         PRAGMA secure_delete = FAST;",
    )?;
    migrate(&mut conn)?;
    if let Some(pages) = max_pages {
        conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    Ok(conn)
}

/// From now on commits are flushed by the flusher, not within the commit. SQLite itself still flushes the log before
/// each checkpoint, the database after it, and the log's header before it is used again: whatever the moment of a
/// power failure, the database is whole, and the flusher's `fdatasync` makes a commit last.
pub(crate) fn flush_apart(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("PRAGMA synchronous = NORMAL;")
}

/// What it means that SQLite has ended a transaction by itself.
pub(super) fn ended() -> StoreError {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    rusqlite::Error::SqliteFailure(code, Some("the store ended the transaction, it may be full".to_owned())).into()
}

/// A connection that only reads.
pub(crate) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    setup(&conn)?;
    conn.execute_batch("PRAGMA query_only = ON;")?;
    Ok(conn)
}

/// A connection to a database that nobody writes, in a directory that cannot be written either.
pub(crate) fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let name = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let conn = Connection::open_with_flags(format!("file:{name}?immutable=1"), flags)?;
    setup(&conn)?;
    Ok(conn)
}

/// Version of the tables in a database.
pub(crate) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Version of the tables that this crate writes.
pub(crate) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

fn setup(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(128);
    conn.execute_batch("PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF;")
}

fn migrate(conn: &mut Connection) -> Result<(), OpenError> {
    let found = version(conn)?;
    if found > newest() {
        return Err(OpenError::Newer { found, known: newest() });
    }
    let tx = conn.transaction()?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        tx.execute_batch(migration)?;
    }
    tx.execute_batch(&format!("PRAGMA user_version = {}", newest()))?;
    tx.commit()?;
    Ok(())
}
