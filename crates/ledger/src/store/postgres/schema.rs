//! The tables in Postgres, and their migrations. They are those of SQLite, with the types that Postgres has for them.
//!
//! A migration is never edited once released; a database of a newer version is refused.

use crate::open::OpenError;
use crate::store::{Db, values};

/// One text a version; `meta` counts those applied, under `schema`.
const MIGRATIONS: &[&str] = &["
CREATE TABLE orgs (
  n    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  uid  TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  seq  BIGINT NOT NULL,
  hash TEXT NOT NULL
);

-- pos = orgs.n << 40 | seq
CREATE TABLE records (pos BIGINT PRIMARY KEY, hash TEXT NOT NULL, text TEXT NOT NULL);

CREATE TABLE keys (
  id   TEXT PRIMARY KEY,
  org  BIGINT NOT NULL REFERENCES orgs(n),
  made BIGINT NOT NULL,
  key  BYTEA
);
CREATE INDEX keys_org ON keys(org, made);

CREATE TABLE attempts (
  n             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org           BIGINT NOT NULL REFERENCES orgs(n),
  id            TEXT NOT NULL,
  verb          TEXT NOT NULL,
  state         BIGINT NOT NULL,
  executor      TEXT NOT NULL,
  deadline      BIGINT NOT NULL,
  resume        TEXT NOT NULL,
  outcome       BIGINT,
  resolved      BIGINT NOT NULL DEFAULT 0,
  reason        TEXT NOT NULL DEFAULT '',
  message       TEXT NOT NULL DEFAULT '',
  facts         TEXT NOT NULL DEFAULT '{}',
  spend         TEXT NOT NULL,
  input_digest  TEXT NOT NULL,
  input_key     TEXT NOT NULL,
  input_size    BIGINT NOT NULL,
  result_digest TEXT,
  result_key    TEXT,
  result_size   BIGINT,
  first_seq     BIGINT NOT NULL,
  begin_seq     BIGINT,
  last_seq      BIGINT NOT NULL,
  begun         BIGINT,
  UNIQUE (org, id)
);
CREATE INDEX attempts_open ON attempts(state, deadline) WHERE state < 2;
CREATE INDEX attempts_unsettled ON attempts(org, first_seq) WHERE state < 2 OR (outcome = 2 AND resolved = 0);

CREATE TABLE results (
  attempt BIGINT PRIMARY KEY REFERENCES attempts(n),
  until   BIGINT NOT NULL,
  text    TEXT NOT NULL
);
CREATE INDEX results_until ON results(until);

CREATE TABLE counters (
  n        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  base     TEXT NOT NULL,
  start    BIGINT NOT NULL,
  ends     BIGINT,
  used     BIGINT NOT NULL CHECK (used >= 0),
  reserved BIGINT NOT NULL CHECK (reserved >= 0),
  version  BIGINT NOT NULL,
  UNIQUE (base, start)
);
CREATE INDEX counters_ended ON counters(ends) WHERE ends IS NOT NULL;
CREATE INDEX counters_version ON counters(version);

CREATE TABLE consumed (
  org     BIGINT NOT NULL REFERENCES orgs(n),
  key     TEXT NOT NULL,
  attempt TEXT NOT NULL,
  PRIMARY KEY (org, key)
);

CREATE TABLE idempotency (
  org     BIGINT NOT NULL REFERENCES orgs(n),
  caller  TEXT NOT NULL,
  verb    TEXT NOT NULL,
  key     TEXT NOT NULL,
  body    TEXT NOT NULL,
  attempt TEXT NOT NULL,
  made    BIGINT NOT NULL,
  PRIMARY KEY (org, caller, verb, key)
);
CREATE INDEX idempotency_made ON idempotency(made);

CREATE TABLE once (
  org BIGINT NOT NULL REFERENCES orgs(n),
  key TEXT NOT NULL,
  seq BIGINT NOT NULL,
  PRIMARY KEY (org, key)
);

CREATE TABLE definitions (
  org    BIGINT NOT NULL REFERENCES orgs(n),
  digest TEXT NOT NULL,
  text   TEXT NOT NULL,
  PRIMARY KEY (org, digest)
);

CREATE TABLE in_force (
  n         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org       BIGINT NOT NULL REFERENCES orgs(n),
  kind      TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name      TEXT NOT NULL,
  digest    TEXT NOT NULL,
  since     BIGINT NOT NULL,
  until     BIGINT,
  FOREIGN KEY (org, digest) REFERENCES definitions(org, digest)
);
CREATE UNIQUE INDEX in_force_now ON in_force(org, kind, namespace, name) WHERE until IS NULL;
CREATE INDEX in_force_then ON in_force(org, kind, namespace, name, since);

CREATE TABLE signers (
  n         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id        TEXT NOT NULL UNIQUE,
  public    TEXT NOT NULL,
  seed      BYTEA,
  made      BIGINT NOT NULL,
  by        TEXT,
  signature TEXT
);

CREATE TABLE roots (
  org       BIGINT NOT NULL REFERENCES orgs(n),
  segment   BIGINT NOT NULL,
  first     BIGINT NOT NULL,
  last      BIGINT NOT NULL,
  last_time BIGINT NOT NULL,
  key_id    TEXT NOT NULL,
  text      TEXT NOT NULL,
  signature TEXT NOT NULL,
  dropped   BIGINT,
  PRIMARY KEY (org, segment)
);
CREATE INDEX roots_last ON roots(org, last);

-- One row an opening; only the newest may write, and counts its batches.
CREATE TABLE writers (
  n     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  token TEXT NOT NULL UNIQUE,
  batch BIGINT NOT NULL
);
"];

/// Bring the tables to the version that this crate writes.
pub(super) fn migrate(db: &Db) -> Result<(), OpenError> {
    let Db::Postgres(session) = db else { return Ok(()) };
    session.batch("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")?;
    let found: Option<i64> = db.row("SELECT CAST(value AS BIGINT) FROM meta WHERE name = 'schema'", &[], |row| row.get(0))?;
    let (found, known) = (found.unwrap_or(0), i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX));
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    if found == known {
        return Ok(());
    }
    session.begin()?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        session.batch(migration)?;
    }
    let sql = "INSERT INTO meta VALUES ('schema', CAST(?1 AS BIGINT)) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    session.execute(sql, values![known])?;
    Ok(session.commit()?)
}
