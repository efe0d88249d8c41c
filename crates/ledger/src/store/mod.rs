//! The one seam between the ledger and the database that keeps it: statements in, rows out.
//!
//! Statements are written once, in the SQL that SQLite and Postgres share, with parameters `?1`, `?2`, …; only how they
//! are executed, how a transaction begins, and what stands for a lost store is told apart here. No statement of a verb
//! and no decision is made here.

pub(crate) mod lock;
pub(crate) mod postgres;
pub(crate) mod sqlite;
mod value;

use std::fmt;
use std::ops::ControlFlow;

use rusqlite::OptionalExtension;

use crate::fault::{Fault, Outcome};

pub(crate) use value::{Column, Value, values};

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// Postgres refused, in its words.
    #[error("{0}")]
    Postgres(String),
    /// The connection to Postgres is gone; the transaction that was open is undone.
    #[error("{0}")]
    Lost(String),
    /// The connection was gone before the answer to a commit came.
    #[error("no answer to a commit: {0}")]
    Doubt(String),
    /// Another writer has opened the ledger since.
    #[error("another core has opened the ledger")]
    Taken,
}

/// A connection to the database.
pub(crate) enum Db {
    /// A file of SQLite.
    Sqlite(rusqlite::Connection),
    /// A server of Postgres.
    Postgres(Box<postgres::Session>),
}

/// A row of an answer.
pub(crate) enum Row<'a> {
    /// Of SQLite.
    Sqlite(&'a rusqlite::Row<'a>),
    /// Of Postgres.
    Postgres(&'a tokio_postgres::Row),
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite(_) => "Db::Sqlite",
            Self::Postgres(_) => "Db::Postgres",
        })
    }
}

impl Row<'_> {
    /// The value of a column.
    pub(crate) fn get<T: Column>(&self, at: usize) -> Outcome<T> {
        Ok(match self {
            Self::Sqlite(row) => T::of_sqlite(row, at)?,
            Self::Postgres(row) => T::of_postgres(row, at).map_err(|e| Fault::Stored(postgres::told(&e)))?,
        })
    }
}

impl Db {
    /// Run a statement. Returns how many rows it changed.
    pub(crate) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Outcome<u64> {
        Ok(match self {
            Self::Sqlite(conn) => {
                let changed = conn.prepare_cached(sql)?.execute(rusqlite::params_from_iter(values))?;
                u64::try_from(changed).unwrap_or(u64::MAX)
            }
            Self::Postgres(session) => session.execute(sql, values)?,
        })
    }

    /// The first row of the answer, if there is one.
    pub(crate) fn row<T>(&self, sql: &str, values: &[Value<'_>], read: impl FnOnce(&Row<'_>) -> Outcome<T>) -> Outcome<Option<T>> {
        match self {
            Self::Sqlite(conn) => conn
                .prepare_cached(sql)?
                .query_row(rusqlite::params_from_iter(values), |row| Ok(read(&Row::Sqlite(row))))
                .optional()?
                .transpose(),
            Self::Postgres(session) => {
                let (mut read, mut found) = (Some(read), None);
                // To the end: what is wrong with a statement may be told after its rows.
                session.each(sql, values, |row| {
                    if let Some(read) = read.take() {
                        found = Some(read(&Row::Postgres(row))?);
                    }
                    Ok(ControlFlow::Continue(()))
                })?;
                Ok(found)
            }
        }
    }

    /// The value of the only column of the only row.
    pub(crate) fn value<T: Column>(&self, sql: &str, values: &[Value<'_>]) -> Outcome<T> {
        let none = || Fault::Stored(format!("no row answers {sql:?}"));
        self.row(sql, values, |row| row.get(0))?.ok_or_else(none)
    }

    /// All rows of the answer.
    pub(crate) fn rows<T>(&self, sql: &str, values: &[Value<'_>], mut read: impl FnMut(&Row<'_>) -> Outcome<T>) -> Outcome<Vec<T>> {
        let mut found = Vec::new();
        self.each(sql, values, |row| {
            found.push(read(row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Each row of the answer, until told to break, which only a reader may do.
    pub(crate) fn each(&self, sql: &str, values: &[Value<'_>], mut read: impl FnMut(&Row<'_>) -> Outcome<ControlFlow<()>>) -> Outcome<()> {
        match self {
            Self::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql)?;
                let mut rows = statement.query(rusqlite::params_from_iter(values))?;
                while let Some(row) = rows.next()? {
                    if read(&Row::Sqlite(row))?.is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Self::Postgres(session) => session.each(sql, values, |row| read(&Row::Postgres(row))),
        }
    }

    /// Begin the transaction that a batch of verbs shares.
    pub(crate) fn begin(&self) -> Outcome<()> {
        match self {
            Self::Sqlite(_) => self.execute("BEGIN IMMEDIATE", &[]).map(drop),
            Self::Postgres(session) => session.begin(),
        }
    }

    /// Begin a verb, which can be undone alone.
    pub(crate) fn savepoint(&self) -> Outcome<()> {
        match self {
            Self::Sqlite(_) => self.execute("SAVEPOINT verb", &[]).map(drop),
            Self::Postgres(session) => session.savepoint(),
        }
    }

    /// End a verb; what it wrote stays with the transaction.
    pub(crate) fn release(&self) -> Outcome<()> {
        match self {
            Self::Sqlite(_) => self.execute("RELEASE verb", &[]).map(drop),
            Self::Postgres(session) => {
                session.release();
                Ok(())
            }
        }
    }

    /// Undo what a verb wrote.
    pub(crate) fn undo(&self) -> Outcome<()> {
        match self {
            Self::Sqlite(_) => self.execute("ROLLBACK TO verb", &[]).map(drop),
            Self::Postgres(session) => session.undo(),
        }
    }

    /// Commit the transaction.
    pub(crate) fn commit(&self) -> Outcome<()> {
        match self {
            Self::Sqlite(_) => self.execute("COMMIT", &[]).map(drop),
            Self::Postgres(session) => session.commit(),
        }
    }

    /// Undo the transaction, if there is one.
    pub(crate) fn rollback(&self) -> Outcome<()> {
        match self {
            Self::Sqlite(conn) if conn.is_autocommit() => Ok(()),
            Self::Sqlite(_) => self.execute("ROLLBACK", &[]).map(drop),
            Self::Postgres(session) => session.rollback(),
        }
    }

    /// Why the store has ended the transaction by itself, if it has.
    pub(crate) fn ended(&self) -> Option<StoreError> {
        match self {
            Self::Sqlite(conn) => conn.is_autocommit().then(sqlite::ended),
            Self::Postgres(session) => session.is_lost().then(|| StoreError::Lost("the connection to Postgres is lost".to_owned())),
        }
    }

    /// Begin a transaction that reads one state of the database.
    pub(crate) fn begin_reading(&self) -> Outcome<()> {
        match self {
            Self::Sqlite(_) => self.execute("BEGIN", &[]).map(drop),
            Self::Postgres(session) => session.begin_reading(),
        }
    }

    /// Whether the connection itself is gone, so that only another one can serve.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(session) => session.is_lost(),
        }
    }

    /// Before the writer lets go of its connection.
    pub(crate) fn close(self) {
        match self {
            Self::Sqlite(conn) => {
                if let Err(error) = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
                    tracing::warn!(%error, "ledger closed without a checkpoint; the next open makes up for it");
                }
            }
            Self::Postgres(session) => session.close(),
        }
    }
}
